"""Where the results of every probe go: loggers and monitors, charts and pictures, files of the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningModule, Trainer

from kornia_lightning_probe.callbacks.mishaps import only_warned_of
from kornia_lightning_probe.callbacks.record import write_new, write_picture
from kornia_lightning_probe.callbacks.trainer import is_trial, run_folder, stage_of
from kornia_lightning_probe.reporting.pictures import Taker, taker_of
from kornia_lightning_probe.reporting.tensorboard import Curves, add_charts, chart_layout, writer_of
from kornia_lightning_probe.result import ProbeResult
from kornia_lightning_probe.results.image_files import ImagesInFile, write_images

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NO_MATPLOTLIB = (
    "there are no figures of the probe, as matplotlib is not installed: pip install matplotlib (the extra [plots]), or "
    "pass figures=False"
)


@dataclass(frozen=True)
class Picture:
    """A picture for loggers that take some, which is drawn only where there is one.

    Args:
        tag: its tag.
        draw: draws it.
        card: draws it to be read at a width of 350 pixels; None where there is one form only.
        once: whether a run needs it once only.
        file: the file in the probe's folder that holds the latest one, also without a logger; empty for none.
    """

    tag: str
    draw: Callable[[], Figure]
    card: Callable[[], Figure] | None = None
    once: bool = False
    file: str = ""

    def drawn_for(self, taker: Taker) -> Figure:
        """The picture in the form that a logger shows well."""
        if taker.wants_cards and self.card is not None:
            return self.card()
        return self.draw()


@dataclass(frozen=True)
class Entry:
    """What a probe has to say of one result, in any logger.

    Args:
        name: the front of the tags: the probe's name, in validate and test with the stage behind it.
        result: the result.
        curves: values by tag, for the loggers.
        watched: values by tag that go through Lightning's own ``log``, which monitors see and progress bars show; to
            the loggers too, but for those that are curves.
        pictures: in the order in which they are written.
    """

    name: str
    result: ProbeResult
    curves: Mapping[str, float]
    watched: Mapping[str, float]
    pictures: Sequence[Picture] = ()


class Logbook:
    """Writes the entries of one probe; of what fails it warns, and goes on.

    Args:
        name: the probe's name, and its folder's.
        figures: whether pictures are drawn.
        say_once: how to warn.
    """

    def __init__(self, name: str, *, figures: bool, say_once: Callable[[str], None]) -> None:
        self.name = name
        self.figures = figures
        self.say_once = say_once
        self._runs: set[tuple[object, ...]] = set()

    def write(self, trainer: Trainer, module: LightningModule, entry: Entry) -> None:
        """Write an entry; every process calls it, and only rank 0 touches files and pictures.

        Args:
            trainer: the Trainer.
            module: the LightningModule, whose ``log`` the watched values go through.
            entry: the entry.
        """
        values = dict(entry.curves)
        if entry.result.epoch < 0:
            # Lightning's own log is not to be had in on_train_start for values of an epoch.
            values = {**entry.watched, **values}
        else:
            self._log(module, entry)
        for logger in trainer.loggers:
            with self._warned_of("log its curves"):
                _log_values(logger, values, step=entry.result.step)
        if trainer.is_global_zero and not is_trial(trainer):
            self._write_file(trainer, entry.result)
            self._draw(trainer, entry)

    def _warned_of(self, what: str) -> Any:
        return only_warned_of(what, name=self.name, say=self.say_once)

    def _log(self, module: LightningModule, entry: Entry) -> None:
        for tag, value in entry.watched.items():
            to_logger = bool(module.trainer.loggers) and tag not in entry.curves
            module.log(tag, value, logger=to_logger, sync_dist=True, batch_size=1, add_dataloader_idx=False)

    def _write_file(self, trainer: Trainer, result: ProbeResult) -> None:
        with self._warned_of("write its file"):
            stem = f"{stage_of(trainer)}-epoch={result.epoch}-step={result.step}"
            path = write_new(f"{run_folder(trainer)}/{self.name}", stem, result.to_json())
            write_images(result, path)
            if result.images_held is not None:
                result.images_elsewhere = ImagesInFile.of_result(result, path)

    def _draw(self, trainer: Trainer, entry: Entry) -> None:
        for logger in trainer.loggers:
            with self._warned_of("draw in its logger"):
                is_new = self._is_new(logger, entry)
                if is_new:
                    _add_charts(logger, entry)
                self._show(logger, entry, is_new=is_new)
        for picture in entry.pictures:
            if picture.file and self._can_draw():
                with self._warned_of(f"write {picture.file!r}"):
                    write_picture(f"{run_folder(trainer)}/{self.name}", picture.file, picture.draw())

    def _is_new(self, logger: Any, entry: Entry) -> bool:
        """Whether nothing of this probe has been drawn in a logger's run."""
        writer = writer_of(logger)
        place = (logger.name, logger.version) if writer is None else (str(writer.get_logdir()),)
        run = (type(logger), *place, entry.name)
        is_new = run not in self._runs
        self._runs.add(run)
        return is_new

    def _show(self, logger: Any, entry: Entry, *, is_new: bool) -> None:
        taker = taker_of(logger)
        if taker is None or not entry.pictures or not self._can_draw():
            return
        for picture in entry.pictures:
            if picture.once and not is_new:
                continue
            with self._warned_of(f"draw {picture.tag!r}"):
                taker.take(picture.tag, picture.drawn_for(taker), entry.result.step)

    def _can_draw(self) -> bool:
        if self.figures and find_spec("matplotlib") is None:
            self.say_once(_NO_MATPLOTLIB)
            return False
        return self.figures


def _add_charts(logger: Any, entry: Entry) -> None:
    writer = writer_of(logger)
    if writer is None:
        return
    logged = Curves(dict(entry.curves), "")
    prefix = getattr(logger, "_prefix", "")
    add_charts(writer, chart_layout(entry.result, logged, name=entry.name, prefix=prefix))


def _log_values(logger: Any, values: dict[str, float], *, step: int) -> None:
    if values:
        logger.log_metrics(values, step=step)
        logger.save()
