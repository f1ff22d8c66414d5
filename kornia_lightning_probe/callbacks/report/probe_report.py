"""ProbeReport: what every probe of a Trainer has measured, as a page and a file beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from typing_extensions import override

from kornia_lightning_probe.callbacks.base import EpochProbe
from kornia_lightning_probe.callbacks.mishaps import told
from kornia_lightning_probe.callbacks.schedule import EVALUATIONS
from kornia_lightning_probe.callbacks.trainer import is_trial, run_folder, stage_of
from kornia_lightning_probe.reporting.html.files import probes_text
from kornia_lightning_probe.reporting.html.gathered import Probed
from kornia_lightning_probe.reporting.html.report import require_extra, write_report
from kornia_lightning_probe.reporting.html.thumbnails import with_pictures
from kornia_lightning_probe.results.storage import write_whole
from kornia_lightning_probe.wording import counted


class ProbeReport(Callback):
    """Gathers every probe of its Trainer into report.html and probe.json.

    Both are written by rank 0 at the end of a training, also of one that fails or is interrupted, and again after
    ``trainer.validate`` and ``trainer.test``; where there was no training the files are ``validate-report.html`` and so
    on. Each appears whole or not at all, and replaces an earlier one. The page is one file that opens from disk, and
    nothing in it asks the network for anything. ``probe.json`` holds every number, for
    :func:`~kornia_lightning_probe.reporting.html.read_probes`. Where a file can't be written the callback warns, and
    the training goes on.

    It needs the extra ``[report]``, and no place among the callbacks: probes may stand before or behind it.

    Args:
        dirpath: the folder of the two files; None takes that of the run, in which each probe has a folder, too.

    Raises:
        ImportError: At the start, where a package of the extra is missing.

    Example:
        >>> report = ProbeReport()  # Trainer(callbacks=[SensitivityProbe(), DriftProbe(), report])
        >>> report.dirpath is None
        True
    """

    def __init__(self, dirpath: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        self.dirpath = dirpath

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Better than at the end of a long training.
        require_extra()
        if not list(_probes_of(trainer)):
            rank_zero_warn(
                "ProbeReport has nothing to gather, as there is no probe in this Trainer; add one to its callbacks, "
                "such as SensitivityProbe()"
            )

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if stage_of(trainer) == "validate":
            self._write(trainer, pl_module)

    @override
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, module: LightningModule) -> None:
        if is_trial(trainer) or not trainer.is_global_zero:
            return
        probes = list(_gathered(trainer, module))
        if not probes:
            return
        try:
            page = self._files(trainer, probes)
        except Exception as error:
            rank_zero_warn(f"ProbeReport could not write its files: {told(error)}; the results stay in memory")
            return
        rank_zero_info(f"the report of {counted(len(probes), 'probe')} is in {page}")

    def _files(self, trainer: Trainer, probes: list[Probed]) -> Path:
        """Write both files; where the page is."""
        folder = str(run_folder(trainer) if self.dirpath is None else self.dirpath)
        if "://" in folder:
            raise OSError(f"{folder} is no folder of this machine; pass dirpath=, one that is")
        stage = stage_of(trainer)
        # The report of a training is not to be lost to that of an evaluation without one.
        is_whole = stage not in EVALUATIONS or any(probed.stage == "fit" for probed in probes)
        front = "" if is_whole else f"{stage}-"
        write_whole(Path(folder) / f"{front}probe.json", probes_text(probes))
        page = Path(folder) / f"{front}report.html"
        write_report(page, probes)
        return page


def _probes_of(trainer: Trainer) -> Iterator[EpochProbe]:
    for callback in getattr(trainer, "callbacks", ()):
        if isinstance(callback, EpochProbe):
            yield callback


def _gathered(trainer: Trainer, module: LightningModule) -> Iterator[Probed]:
    """The results of every probe by stage, where there are any."""
    model = type(module).__name__
    for probe in _probes_of(trainer):
        stages = {"fit": probe.history, "validate": probe.validations, "test": probe.tests}
        for stage, results in stages.items():
            if results:
                yield with_pictures(Probed(probe.name, list(results), stage, model))
