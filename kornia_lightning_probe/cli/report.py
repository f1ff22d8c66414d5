"""`report`: every probe in some log directories as one page."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kornia_lightning_probe.cli.telling import FINE, CommandError, reason_of, remark, say, warnings_as_remarks
from kornia_lightning_probe.reporting.html import Probed, read_probes, require_extra, write_report
from kornia_lightning_probe.wording import counted

_MEGABYTE = 1e6


def report(given: Any) -> int:
    """Write a page of all probes under some folders.

    Args:
        given: dirs, output.
    """
    require_extra()
    target = Path(given.output)
    if target.is_dir():
        raise CommandError(f"--output {target} is a folder; name a file in it, such as {target / 'report.html'}")
    folders = [Path(text) for text in dict.fromkeys(given.dirs)]
    with warnings_as_remarks():
        probes = list(_probes_under(folders))
    write_page(target, probes)
    return FINE


def write_page(target: Path, probes: Sequence[Probed]) -> None:
    """Write the page, and say what is in it."""
    try:
        write_report(target, probes)
    except OSError as error:
        raise CommandError(f"{target} can't be written: {error.strerror or error}") from error
    results = sum(len(probed.results) for probed in probes)
    size = target.stat().st_size / _MEGABYTE
    said = f"{counted(len(probes), 'probe')} with {counted(results, 'result')}"
    say(f"wrote {target} ({size:.1f} MB): {said}; open it in a browser")


def _probes_under(folders: Sequence[Path]) -> Iterator[Probed]:
    shared = _shared_folder(folders)
    for folder in folders:
        if not folder.exists():
            raise CommandError(f"{folder}: there is no such file or folder")
        front = os.path.relpath(folder.resolve(), shared)
        for probed in read_probes(folder, skipped=_skipped):
            yield replace(probed, name=_named(front, folder, probed.name)) if len(folders) > 1 else probed


def _shared_folder(folders: Sequence[Path]) -> str:
    """The folder that all of them are in, which no run needs in its name."""
    return os.path.commonpath([folder.resolve().parent for folder in folders])


def _named(front: str, folder: Path, name: str) -> str:
    """A probe's name with the folder that was given in front."""
    inner = name.removeprefix(folder.resolve().name).removeprefix("/")
    if folder.is_file() or not inner or inner.startswith(" ("):
        return f"{front}{inner}" if folder.is_dir() else front
    return f"{front}/{inner}"


def _skipped(path: Path, error: ValueError) -> None:
    remark(f"skipped {path}: {reason_of(error)}")
