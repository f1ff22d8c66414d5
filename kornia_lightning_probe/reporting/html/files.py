"""Probes to and from files: probe.json, which holds all of a Trainer, and the single files that a training leaves."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kornia_lightning_probe.reporting.html.gathered import Probed
from kornia_lightning_probe.results.lookup import ProbeNumbers
from kornia_lightning_probe.results.plain import Part, json_text
from kornia_lightning_probe.results.storage import numbers_of, numbers_of_json, state_of

FORMAT = "kornia_lightning_probe probes 1"
_NAME = re.compile(r"(?P<stage>fit|validate|test)-epoch=(?P<epoch>-?\d+)-step=(?P<step>\d+)(?:-(?P<number>\d+))?\.json")


def probes_text(probes: Iterable[Probed]) -> str:
    """All results of all probes as one line of strict JSON, which :func:`read_probes` reads."""
    return json_text({"format": FORMAT, "probes": [_state(probed) for probed in probes]})


def read_probes(path: str | os.PathLike[str]) -> list[Probed]:
    """The probes in a file or a folder.

    Args:
        path: a probe.json, the file of one result, or a folder, which is searched with all folders in it for the files
            that a training leaves (`fit-epoch=3-step=120.json`).

    Returns:
        By folder, stage and training a probe, its results by step.

    Raises:
        ValueError: where there are no results, or a file is malformed, with its name.
    """
    found = Path(path)
    if found.is_dir():
        return _of_folder(found)
    if not found.exists():
        raise ValueError(f"there is no file or folder {str(path)!r}; give a log directory, a probe.json or a result")
    probes = _of_probe_json(found)
    if probes is None:
        return [Probed(found.stem, [numbers_of_json(found)])]
    return probes


def _of_probe_json(path: Path) -> list[Probed] | None:
    """The probes of a probe.json; None where the file is something else."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON, or only a piece of it: {error}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        return None
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
    }


def _probed(part: Part) -> Probed:
    names = {name: part.entry(name).read(str) for name in ("name", "stage", "model")}
    results = [numbers_of(entry.value) for entry in part.entry("results").entries()]
    return Probed(results=results, **names)


def _of_folder(folder: Path) -> list[Probed]:
    groups: dict[tuple[str, str, Any], list[ProbeNumbers]] = {}
    for path in _result_files(folder):
        numbers = numbers_of_json(path)
        name = path.parent.relative_to(folder).as_posix()
        stage = _facts(path)["stage"]
        key = (folder.resolve().name if name == "." else name, stage, numbers.metadata.get("run"))
        groups.setdefault(key, []).append(numbers)
    if not groups:
        raise ValueError(
            f"there are no results of a probe under {str(folder)!r}; it is to be a folder that holds files such as "
            "fit-epoch=3-step=120.json, at any depth"
        )
    names = [name for name, _, _ in groups]
    return [Probed(_told_apart(key, names), results, key[1]) for key, results in groups.items()]


def _told_apart(key: tuple[str, str, Any], names: Sequence[str]) -> str:
    """The name of a probe, with its training behind it where two have left their files in one folder."""
    name, _, run = key
    return f"{name} ({run})" if names.count(name) > 1 and run is not None else name


def _result_files(folder: Path) -> list[Path]:
    paths = [path for path in folder.rglob("*.json") if _NAME.fullmatch(path.name)]
    return sorted(paths, key=_order)


def _facts(path: Path) -> dict[str, Any]:
    found = _NAME.fullmatch(path.name)
    return {} if found is None else found.groupdict()


def _order(path: Path) -> tuple[str, int, int, int]:
    facts = _facts(path)
    return (path.parent.as_posix(), int(facts["step"]), int(facts["epoch"]), int(facts["number"] or 0))
