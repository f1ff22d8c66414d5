"""Results among files: one that is named, or the newest of each run in a folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from kornia_lightning_probe.cli.telling import CommandError, reason_of, remark
from kornia_lightning_probe.result import ProbeResult
from kornia_lightning_probe.wording import listed

_NAME = re.compile(r"^(?P<stage>.*?)-?epoch=(?P<epoch>-?\d+)-step=(?P<step>\d+)(?:-(?P<number>\d+))?$")


class Found(NamedTuple):
    """A result and the file that it is in."""

    path: Path
    result: ProbeResult


def timed(path: Path, result: ProbeResult) -> str:
    """A file and, where it is known, the time in the training that it is of."""
    return f"{path} ({result.when})" if result.when else str(path)


def natural(path: Path) -> list[tuple[int, int, str]]:
    """A key that sorts paths as people do: epoch=2 in front of epoch=10.

    Example:
        >>> sorted([Path("step=10"), Path("step=9")], key=natural)[0].name
        'step=9'
    """
    parts = re.split(r"(\d+)", str(path))
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]


def find_results(path: Path) -> list[Found]:
    """The result in a file, or the newest of each run under a folder, in natural order.

    A run is a folder in which results lie, and a stage (fit, validate, test). Files that hold no probe result are
    passed over; of one that is broken it is said.

    Raises:
        CommandError: where there is no such file, or no result in the folder.
        ValueError: where the file is no result.
    """
    if path.is_dir():
        found = list(_newest_of_each(path))
        if not found:
            raise CommandError(
                f"{path}: no probe result in this folder or those in it; a callback writes JSON files to its run's "
                "folder, result.to_json(path) writes one"
            )
        return found
    if not path.exists():
        raise CommandError(f"{path}: there is no such file or folder")
    return [Found(path, ProbeResult.from_json(path))]


def one_result(path: Path) -> Found:
    """As `find_results`, where one is wanted.

    Raises:
        CommandError: also where there are several runs.
    """
    found = find_results(path)
    if len(found) > 1:
        raise CommandError(f"{path}: {len(found)} runs, name one: {listed(one.path for one in found)}")
    return found[0]


def _newest_of_each(folder: Path) -> Iterator[Found]:
    runs: dict[tuple[Path, str], list[Path]] = {}
    for path in sorted(folder.rglob("*.json"), key=natural):
        runs.setdefault((path.parent, _stage(path)), []).append(path)
    for paths in runs.values():
        yield from _first_that_reads(sorted(paths, key=_age, reverse=True))


def _first_that_reads(paths: Iterable[Path]) -> Iterator[Found]:
    for path in paths:
        if not _may_be_a_result(path):
            continue
        try:
            result = ProbeResult.from_json(path)
        except (OSError, ValueError) as error:
            remark(f"skipped {path}: {reason_of(error)}")
            continue
        yield Found(path, result)
        return


def _stage(path: Path) -> str:
    match = _NAME.match(path.stem)
    return match["stage"] if match else ""


def _age(path: Path) -> tuple[int, int, int, float]:
    """A key that sorts a run's files from oldest to newest: by what their names say, else by when they were written."""
    match = _NAME.match(path.stem)
    if match is None:
        return (-2, 0, 0, path.stat().st_mtime)
    return (int(match["epoch"]), int(match["step"]), int(match["number"] or 0), 0.0)


def _may_be_a_result(path: Path) -> bool:
    """Whether a JSON file looks like a result, or like a broken one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return _NAME.match(path.stem) is not None
    return isinstance(content, dict) and {"format", "tables"} <= set(content)
