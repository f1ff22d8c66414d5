"""Where a probe's results go: loggers, monitors, TensorBoard's pictures, files in the log directory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from weakref import WeakSet

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from kornia_lightning_probe.bank import AugmentationBank
from kornia_lightning_probe.result import ProbeResult
from kornia_lightning_probe.tables import unknown
from kornia_lightning_probe.tensorboard import KINDS, Curves, add_charts, add_picture, chart_layout, curves, writer_of


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
        self._seen: WeakSet[Any] = WeakSet()

    def write(
        self,
        trainer: Trainer,
        module: LightningModule,
        history: Sequence[ProbeResult],
        *,
        bank: AugmentationBank,
        images: Tensor,
    ) -> None:
        """Write the latest result of a history, on every process; only rank 0 touches files and loggers.

        Args:
            trainer: the Trainer.
            module: the LightningModule, whose ``log`` the summaries go through.
            history: all results, oldest first.
            bank: the bank, for its picture.
            images: the first block's images, for that picture.
        """
        result = history[-1]
        summaries = summarise(history, name=self.name)
        logged = curves(result, name=self.name, log_curves=self.log_curves)
        if logged.left_out:
            self.say_once(logged.left_out)
        started = result.epoch < 0
        if not started:
            self._log(module, summaries, self._monitored(result))
        values = logged.values | (summaries if started else {})
        for logger in trainer.loggers:
            if values:
                logger.log_metrics(values, step=result.step)
        self._write_file(trainer, result)
        if trainer.is_global_zero and not trainer.fast_dev_run:
            self._draw(trainer, history, logged, bank=bank, images=images)

    def _log(self, module: LightningModule, summaries: dict[str, float], monitored: dict[str, float]) -> None:
        for tag, value in summaries.items():
            module.log(tag, value, sync_dist=True, batch_size=1, add_dataloader_idx=False)
        for tag, value in monitored.items():
            module.log(tag, value, sync_dist=True, batch_size=1, add_dataloader_idx=False, logger=False)

    def _monitored(self, result: ProbeResult) -> dict[str, float]:
        known = curves(result, name=self.name, log_curves="all", most_tags=2**31).values
        missing = [tag for tag in self.monitor if tag not in known]
        if missing:
            raise MisconfigurationException(f"monitor: {unknown('curve', missing[0], list(known))}")
        return {tag: known[tag] for tag in self.monitor}

    def _write_file(self, trainer: Trainer, result: ProbeResult) -> None:
        directory = trainer.log_dir
        if directory is None or trainer.fast_dev_run or not trainer.is_global_zero:
            return
        stage = "" if trainer.state.fn == "fit" else f"{getattr(trainer.state.fn, 'value', trainer.state.fn)}-"
        folder = Path(directory) / self.name
        folder.mkdir(parents=True, exist_ok=True)
        result.to_json(folder / f"{stage}epoch={result.epoch}-step={result.step}.json")

    def _draw(
        self,
        trainer: Trainer,
        history: Sequence[ProbeResult],
        logged: Curves,
        *,
        bank: AugmentationBank,
        images: Tensor,
    ) -> None:
        result = history[-1]
        for logger in trainer.loggers:
            writer = writer_of(logger)
            if writer is None:
                continue
            first = writer not in self._seen
            prefix = getattr(logger, "_prefix", "")
            if first:
                self._seen.add(writer)
                add_charts(writer, chart_layout(result, logged, name=self.name, prefix=prefix))
            if self.figures and find_spec("matplotlib") is None:
                self.say_once(
                    "TensorBoard gets no figures: matplotlib is not installed; pip install 'kornia-lightning-probe[plots]'"
                )
            elif self.figures:
                self._add_pictures(writer, history, bank=bank if first else None, images=images)

    def _add_pictures(
        self, writer: object, history: Sequence[ProbeResult], *, bank: AugmentationBank | None, images: Tensor
    ) -> None:
        from kornia_lightning_probe.plotting import plot_bank, plot_epoch

        result = history[-1]
        if bank is not None:
            add_picture(writer, f"{self.name}/bank", plot_bank(bank, images), step=result.step)
        add_picture(writer, f"{self.name}/layers", plot_epoch(_compared(history)), step=result.step)


def summarise(history: Sequence[ProbeResult], *, name: str) -> dict[str, float]:
    """The handful of numbers that Lightning logs of the latest result.

    Args:
        history: all results, oldest first.
        name: the probe's name.

    Returns:
        Tag to value.
    """
    result = history[-1]
    embedding = result.metadata["embedding"]
    wanted = (
        {"embedding_sensitivity": result.value("sensitivity", layer=embedding)} if _has(result, "sensitivity") else {}
    )
    if _has(result, "spread"):
        wanted["spread"] = _spread(result, embedding) / _spread(history[0], embedding)
    wanted["seconds"] = result.metadata["seconds"]
    return {f"{name}/{key}": value for key, value in wanted.items()}


def _has(result: ProbeResult, metric: str) -> bool:
    return metric in result.metrics


def _spread(result: ProbeResult, embedding: str) -> float:
    """The spread of the embedding; of its class token, where it has one."""
    layers = result.table("spread").layers
    return result.value("spread", layer=embedding if embedding in layers else f"{embedding}:cls")


def _compared(history: Sequence[ProbeResult]) -> dict[str, ProbeResult]:
    names = ("start", "previous", "now")
    picked = (history[0], history[-2], history[-1]) if len(history) > 2 else (history[0], history[-1])
    if len(history) == 1:
        return {"now": history[0]}
    return dict(zip(names if len(picked) == 3 else ("start", "now"), picked, strict=True))
