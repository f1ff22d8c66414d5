"""What is kept of a probe's results: plain tables in checkpoints, and files that replace no other file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kornia_lightning_probe.result import ProbeResult
from kornia_lightning_probe.results.kept.rounded import rounded
from kornia_lightning_probe.results.kept.states import States, numbers_of_checkpoint

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def lighten(history: list[ProbeResult], *, newest: int) -> None:
    """Reduce the older results of a training to what a checkpoint holds of them, in place.

    The first result, the first trained one, the previous and the latest keep every digit, the others those of
    `rounded`. Only the latest keeps each image's own part in every metric. That in sensitivity is in the files of
    the others, and of the first in memory, too.

    Args:
        history: all results, oldest first.
        newest: how many of them, from the latest, have not been looked at since they were the latest or the previous.
    """
    exact = _kept_whole(history)
    for place in range(max(len(history) - newest, 0), len(history) - 1):
        history[place] = _lightened(history[place], exact=place in exact, is_first=place == 0)


def _kept_whole(history: Sequence[ProbeResult]) -> set[int]:
    """The places of the results that verdicts, changes and pictures of the latest are relative to, and its own."""
    trained = next((place for place, result in enumerate(history) if result.epoch >= 0), 0)
    return {0, trained, len(history) - 2, len(history) - 1}


def _lightened(result: ProbeResult, *, exact: bool, is_first: bool) -> ProbeResult:
    lighter = ProbeResult.of(result)
    if not is_first:
        lighter.images_held = None
    for metric, table in result.tables.items():
        lighter.tables[metric] = replace(table, influence=None) if exact else rounded(metric, table)
    return lighter


class Record:
    """The results of a probe by stage, and the run that they are of.

    Attributes:
        history: those of the training, oldest first.
        validations: those of ``trainer.validate``.
        tests: those of ``trainer.test``.
        latest: the last one of whatever stage.
        run: a text that tells this training from others, also after a resume; None before its first result.
    """

    def __init__(self) -> None:
        self.history: list[ProbeResult] = []
        self.validations: list[ProbeResult] = []
        self.tests: list[ProbeResult] = []
        self.latest: ProbeResult | None = None
        self.run: str | None = None
        self._states = States()

    def of_stage(self, stage: str) -> list[ProbeResult]:
        """The results of "fit", "validate" or "test"."""
        return {"fit": self.history, "validate": self.validations, "test": self.tests}[stage]

    def add(self, result: ProbeResult, *, stage: str) -> None:
        """Put a result behind the others of its stage."""
        results = self.of_stage(stage)
        results.append(result)
        self.latest = result
        if stage == "fit":
            lighten(results, newest=3)
        elif len(results) > 2:
            # What pairs images in a comparison is kept of the first and the last result only.
            results[-2] = results[-2].without_influence()

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds: plain containers, numbers, strings and tensors."""
        states = self._states.of(self.history, exact=_kept_whole(self.history))
        return {"run": self.run, "history": states}

    def load(self, state: Mapping[str, Any], *, checkpoint: object = None) -> None:
        """Take up what :meth:`state` has given; an earlier version may have written less, and in other forms.

        Args:
            state: that.
            checkpoint: where it comes from: files that are not where they were written are looked for beside it.

        Raises:
            ValueError: for anything else, saying where.
        """
        history = state.get("history", [])
        if not isinstance(history, list | tuple):
            raise ValueError(f"'history' must be a list of results, got a {type(history).__name__}")
        results = [_result_of(entry, number, checkpoint) for number, entry in enumerate(history)]
        lighten(results, newest=len(results))
        run = state.get("run")
        if run is not None and not isinstance(run, str):
            raise ValueError(f"'run' must be a text or None, got {run!r}")
        self.history, self.run = results, run
        self.latest = None
        if results:
            self.latest = results[-1]

    def goes_on_from(self, other: Record) -> bool:
        """Whether this is a later state of the same training."""
        return self.run == other.run and len(self.history) > len(other.history)


def _result_of(state: Any, number: int, checkpoint: object) -> ProbeResult:
    try:
        return ProbeResult.of(numbers_of_checkpoint(state, checkpoint=checkpoint))
    except Exception as error:
        raise ValueError(f"'history'[{number}] is no result ({type(error).__name__}: {error})") from error


def with_facts(result: ProbeResult, **facts: Any) -> ProbeResult:
    """The result with more in its metadata."""
    return ProbeResult(
        layers=result.layers,
        views=result.views,
        tables={metric: result.table(metric) for metric in result.metrics},
        epoch=result.epoch,
        step=result.step,
        metadata={**result.metadata, **facts},
        images=result.images,
    )


def write_new(folder: str | os.PathLike[str], stem: str, text: str) -> Path:
    """Write a file whose name no other has: ``{stem}.json``, else ``{stem}-1.json``, ``{stem}-2.json``, ...

    It appears whole or not at all, also where another process writes to the same folder.

    Returns:
        Where it is.

    Raises:
        OSError: where nothing can be written.
    """
    home = _home(folder)
    partial = home / f".{stem}.{os.getpid()}.part"
    try:
        partial.write_text(text, encoding="utf-8")
        return next(path for path in _names(home, stem) if _named(partial, path))
    finally:
        partial.unlink(missing_ok=True)


def write_picture(folder: str | os.PathLike[str], name: str, figure: Figure) -> None:
    """Write a figure to a file, over the one that was there, whole or not at all.

    Raises:
        OSError: where nothing can be written.
    """
    home = _home(folder)
    partial = home / f".{name}.{os.getpid()}.part"
    try:
        figure.savefig(partial, format="png")
        partial.replace(home / name)
    finally:
        partial.unlink(missing_ok=True)


def _home(folder: str | os.PathLike[str]) -> Path:
    """A folder of this machine, made where there is none."""
    if "://" in str(folder):
        raise OSError(f"{folder} is not a folder of this machine, and files of a probe are written to such only")
    home = Path(folder)
    home.mkdir(parents=True, exist_ok=True)
    return home


def _names(folder: Path, stem: str) -> Iterator[Path]:
    yield folder / f"{stem}.json"
    for number in count(1):
        yield folder / f"{stem}-{number}.json"


def _named(partial: Path, path: Path) -> bool:
    """Give a written file its name; False where another file has it."""
    try:
        path.hardlink_to(partial)
    except FileExistsError:
        return False
    except OSError:
        return _named_without_links(partial, path)
    return True


def _named_without_links(partial: Path, path: Path) -> bool:
    # Not every file system has links; then the name is taken first, which no two can do.
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    try:
        partial.replace(path)
    except OSError:
        # A name without a text must not stay.
        path.unlink(missing_ok=True)
        raise
    return True
