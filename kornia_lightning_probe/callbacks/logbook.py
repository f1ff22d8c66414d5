"""Where a probe's results go: loggers, monitors, TensorBoard's pictures, files in the log directory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from importlib.util import find_spec
from pathlib import Path

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from kornia_lightning_probe.bank.bank import AugmentationBank
from kornia_lightning_probe.callbacks.summaries import compared, summarise
from kornia_lightning_probe.callbacks.trainer import is_training, is_trial
from kornia_lightning_probe.reporting.tensorboard import (
    KINDS,
    Curves,
    add_charts,
    add_picture,
    chart_layout,
    curves,
    writer_of,
)
from kornia_lightning_probe.result import ProbeResult
from kornia_lightning_probe.wording import unknown

_ANY_NUMBER = 2**31


class Logbook:
    """Writes one probe's results.

    Args:
        name: the probe's name.
        log_curves: "layers", "all" or "summary".
        monitor: tags of curves that go through Lightning's ``log`` too.
        figures: whether TensorBoard gets pictures.
        say_once: how to warn.

    Raises:
        MisconfigurationException: for an unknown ``log_curves``.
    """

    def __init__(
        self, name: str, *, log_curves: str, monitor: Sequence[str], figures: bool, say_once: Callable[[str], None]
    ) -> None:
        if log_curves not in KINDS:
            raise MisconfigurationException(unknown("value of log_curves", log_curves, KINDS))
        self.name = name
        self.log_curves = log_curves
        self.monitor = (monitor,) if isinstance(monitor, str) else tuple(monitor)
        self.figures = figures
        self.say_once = say_once
        self._runs: set[str] = set()

    def write(
        self,
        trainer: Trainer,
        module: LightningModule,
        history: Sequence[ProbeResult],
        *,
        bank: AugmentationBank,
        images: Tensor,
    ) -> None:
        """Write the latest result of a history; every process calls it, and only rank 0 touches files and pictures.

        Args:
            trainer: the Trainer.
            module: the LightningModule, whose ``log`` the summaries go through.
            history: all results, oldest first.
            bank: the bank, for its picture.
            images: the first block's images, for that picture.

        Raises:
            MisconfigurationException: where a curve to be monitored doesn't exist; near tags are shown.
        """
        result = history[-1]
        logged = curves(result, name=self.name, log_curves=self.log_curves)
        if logged.left_out:
            self.say_once(logged.left_out)
        summaries = summarise(history, name=self.name)
        monitored = self._monitored(result)
        values = dict(logged.values)
        if result.epoch < 0:
            # Lightning's own log is not to be had in on_train_start for values of an epoch.
            values |= summaries | monitored
        else:
            self._log(module, summaries | monitored, drawn=logged.values.keys())
        self._log_curves(trainer, values, step=result.step)
        self._write_file(trainer, result)
        if trainer.is_global_zero and not is_trial(trainer):
            self._draw(trainer, history, logged, bank=bank, images=images)

    def _log(self, module: LightningModule, values: dict[str, float], *, drawn: Collection[str]) -> None:
        for tag, value in values.items():
            to_logger = bool(module.trainer.loggers) and tag not in drawn
            module.log(tag, value, logger=to_logger, sync_dist=True, batch_size=1, add_dataloader_idx=False)

    def _log_curves(self, trainer: Trainer, values: dict[str, float], *, step: int) -> None:
        for logger in trainer.loggers if values else ():
            logger.log_metrics(values, step=step)
            logger.save()

    def _monitored(self, result: ProbeResult) -> dict[str, float]:
        if not self.monitor:
            return {}
        known = curves(result, name=self.name, log_curves="all", most_tags=_ANY_NUMBER).values
        for tag in self.monitor:
            if tag not in known:
                raise MisconfigurationException(f"monitor: {unknown('curve', tag, list(known))}")
        return {tag: known[tag] for tag in self.monitor}

    def _write_file(self, trainer: Trainer, result: ProbeResult) -> None:
        # Asked for on every process: Lightning broadcasts it.
        directory = trainer.log_dir
        if directory is not None and trainer.is_global_zero and not is_trial(trainer):
            stage = "" if is_training(trainer) else f"{getattr(trainer.state.fn, 'value', trainer.state.fn)}-"
            result.to_json(Path(directory) / self.name / f"{stage}epoch={result.epoch}-step={result.step}.json")

    def _draw(
        self,
        trainer: Trainer,
        history: Sequence[ProbeResult],
        logged: Curves,
        *,
        bank: AugmentationBank,
        images: Tensor,
    ) -> None:
        for logger in trainer.loggers:
            writer = writer_of(logger)
            if writer is None:
                continue
            run = str(writer.get_logdir())
            is_new = run not in self._runs
            self._runs.add(run)
            if is_new:
                prefix = getattr(logger, "_prefix", "")
                add_charts(writer, chart_layout(history[-1], logged, name=self.name, prefix=prefix))
            if self.figures:
                self._add_pictures(writer, history, bank=bank if is_new else None, images=images)

    def _add_pictures(
        self, writer: object, history: Sequence[ProbeResult], *, bank: AugmentationBank | None, images: Tensor
    ) -> None:
        if find_spec("matplotlib") is None:
            self.say_once(
                "TensorBoard gets no figures of the probe, as matplotlib is not installed: "
                "pip install 'kornia-lightning-probe[plots]', or pass figures=False"
            )
            return
        from kornia_lightning_probe.plotting import plot_bank, plot_epoch

        step = history[-1].step
        if bank is not None:
            add_picture(writer, f"{self.name}/bank", plot_bank(bank, images), step=step)
        add_picture(writer, f"{self.name}/layers", plot_epoch(compared(history)), step=step)
