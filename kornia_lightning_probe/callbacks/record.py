"""What is kept of a probe's results: plain tables in checkpoints, and files that replace no other file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kornia_lightning_probe.result import ProbeResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def states_of(history: Sequence[ProbeResult]) -> list[dict[str, Any]]:
    """The states of results, oldest first; equal parts are the same objects, which a pickle writes once.

    Args:
        history: all results.

    Returns:
        Plain containers, numbers, strings and tensors, that load as weights only.
    """
    states: list[dict[str, Any]] = []
    for result in history:
        state = result.state()
        if states:
            state = _shared(state, states[-1])
        states.append(state)
    return states


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

    def of_stage(self, stage: str) -> list[ProbeResult]:
        """The results of "fit", "validate" or "test"."""
        return {"fit": self.history, "validate": self.validations, "test": self.tests}[stage]

    def add(self, result: ProbeResult, *, stage: str) -> None:
        """Put a result behind the others of its stage."""
        results = self.of_stage(stage)
        results.append(result)
        self.latest = result
        if len(results) > 2:
            # What pairs images in a comparison is kept of the first and the last result only.
            results[-2] = results[-2].without_influence()

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds: plain containers, numbers, strings and tensors."""
        return {"run": self.run, "history": states_of(self.history)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state` has given; an earlier version may have written less.

        Raises:
            ValueError: for anything else, saying where.
        """
        history = state.get("history", [])
        if not isinstance(history, list | tuple):
            raise ValueError(f"'history' must be a list of results, got a {type(history).__name__}")
        results = [_result_of(entry, number) for number, entry in enumerate(history)]
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


def _result_of(state: Any, number: int) -> ProbeResult:
    try:
        return ProbeResult.from_state(state)
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


def _shared(new: Any, old: Any) -> Any:
    """The new value, with every part that equals the old one's replaced by that very object."""
    if type(new) is not type(old):
        return new
    if isinstance(new, Tensor):
        same = new.dtype == old.dtype and torch.equal(new, old)
    elif isinstance(new, dict):
        new = {key: _shared(value, old.get(key)) for key, value in new.items()}
        same = new.keys() == old.keys() and all(new[key] is old[key] for key in new)
    else:
        same = new == old
    if same:
        return old
    return new
