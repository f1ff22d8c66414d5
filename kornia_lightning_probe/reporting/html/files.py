"""Probes to and from files: probe.json, which holds all of a Trainer, and the single files that a training leaves."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from kornia_lightning_probe.reporting.html.gathered import Probed, Thumbnails
from kornia_lightning_probe.results.image_files import with_images
from kornia_lightning_probe.results.lookup import ProbeNumbers
from kornia_lightning_probe.results.plain import Part, json_text
from kornia_lightning_probe.results.storage import numbers_of, state_of

FORMAT = "kornia_lightning_probe probes 1"
_NAME = re.compile(r"(?P<stage>fit|validate|test)-epoch=(?P<epoch>-?\d+)-step=(?P<step>\d+)(?:-(?P<number>\d+))?")

#: Called with each file that can't be read, and why.
Skipped = Callable[[Path, ValueError], None]


class _File(NamedTuple):
    """A result and the file that it is in."""

    path: Path
    numbers: ProbeNumbers

    @property
    def stage(self) -> str:
        """Of the training, where the name doesn't say another one."""
        found = _NAME.fullmatch(self.path.stem)
        return "fit" if found is None else found["stage"]

    @property
    def order(self) -> tuple[int, int, list[tuple[int, int, str]]]:
        """By time, else by name, as people count: step=9 in front of step=10."""
        parts = re.split(r"(\d+)", self.path.stem)
        natural = [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]
        return self.numbers.step, self.numbers.epoch, natural


def probes_text(probes: Iterable[Probed]) -> str:
    """All results of all probes as one line of strict JSON, which :func:`read_probes` reads."""
    return json_text({"format": FORMAT, "probes": [_state(probed) for probed in probes]})


def read_probes(path: str | os.PathLike[str], *, skipped: Skipped | None = None) -> list[Probed]:
    """The probes in a file or a folder.

    Args:
        path: a probe.json, the file of one result, or a folder, which is searched with all folders in it for results,
            such as a training leaves (`fit-epoch=3-step=120.json`); a probe.json is read there where there are none.
        skipped: called with each file of a folder that is a result and can't be read; None raises.

    Returns:
        By folder, stage and training a probe, its results by step.

    Raises:
        ValueError: where there are no results, or a file is malformed, with its name.
    """
    found = Path(path)
    if found.is_dir():
        return _of_folder(found, skipped or _raise)
    if not found.exists():
        raise ValueError(f"there is no file or folder {str(path)!r}; give a log directory, a probe.json or a result")
    state = _content(found)
    if _holds_probes(state):
        return _of_probe_json(found, state)
    return [Probed(found.stem, [with_images(_result(found, state), found)])]


def _raise(_: Path, error: ValueError) -> None:
    raise error


def _content(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON, or only a piece of it: {error}") from error


def _holds_probes(state: Any) -> bool:
    return isinstance(state, dict) and state.get("format") == FORMAT


def _holds_a_result(state: Any) -> bool:
    return isinstance(state, dict) and {"format", "tables"} <= set(state)


def _result(path: Path, state: Any) -> ProbeNumbers:
    try:
        return numbers_of(state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _of_probe_json(path: Path, state: Any) -> list[Probed]:
    try:
        return [_probed(part) for part in Part(state).entry("probes").entries()]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _state(probed: Probed) -> dict[str, Any]:
    return {
        "name": probed.name,
        "stage": probed.stage,
        "model": probed.model,
        "results": [state_of(numbers) for numbers in probed.results],
        "worst": [vars(pair) for pair in probed.worst],
        "worst_under": probed.worst_under,
    }


def _probed(part: Part) -> Probed:
    names = {name: part.entry(name).read(str) for name in ("name", "stage", "model")}
    results = [numbers_of(entry.value) for entry in part.entry("results").entries()]
    # An earlier version has written no pictures.
    if not part.has("worst"):
        return Probed(results=results, **names)
    pairs = [_pair(entry) for entry in part.entry("worst").entries()]
    return Probed(results=results, worst=pairs, worst_under=part.entry("worst_under").read(str), **names)


def _pair(part: Part) -> Thumbnails:
    return Thumbnails(*(part.entry(name).read(str) for name in ("clean", "augmented", "caption")))


def _of_folder(folder: Path, skipped: Skipped) -> list[Probed]:
    wholes: list[Probed] = []
    files: list[_File] = []
    for path in sorted(folder.rglob("*.json")):
        try:
            state = _content_of_result(path)
            if _holds_probes(state):
                wholes += _of_probe_json(path, state)
            elif _holds_a_result(state):
                files.append(_File(path, _result(path, state)))
        except ValueError as error:
            skipped(path, error)
    if files:
        models = {probed.latest.metadata.get("run"): probed.model for probed in wholes}
        return list(_grouped(folder, files, models))
    if not wholes:
        raise ValueError(
            f"there are no results of a probe under {str(folder)!r}; it is to be a folder that holds files such as "
            "fit-epoch=3-step=120.json, at any depth"
        )
    return wholes


def _content_of_result(path: Path) -> Any:
    """What a file holds; None where that is no JSON, unless it is called as a result is."""
    try:
        return _content(path)
    except ValueError:
        if _NAME.fullmatch(path.stem):
            raise
        return None


def _grouped(folder: Path, files: Iterable[_File], models: Mapping[Any, str]) -> Iterator[Probed]:
    """The results of each folder, stage and training."""
    groups: dict[tuple[str, str, Any], list[_File]] = {}
    for file in sorted(files, key=lambda file: (file.path.parent, file.order)):
        name = file.path.parent.relative_to(folder).as_posix()
        own = folder.resolve().name if name == "." else name
        groups.setdefault((own, file.stage, file.numbers.metadata.get("run")), []).append(file)
    names = [name for name, _, _ in groups]
    for (name, stage, run), ordered in groups.items():
        # Only the latest result's pictures are shown.
        with_images(ordered[-1].numbers, ordered[-1].path)
        # Two trainings may have left their files in one folder.
        is_shared = names.count(name) > 1 and run is not None
        probed = Probed(
            f"{name} ({run})" if is_shared else name,
            [file.numbers for file in ordered],
            stage,
            labels=[file.path.stem for file in ordered],
        )
        yield replace(probed, model=models.get(run, "")) if run is not None else probed
