"""`show`: a saved result as text, and as a picture."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from kornia_lightning_probe.cli.files import Found, find_results, timed
from kornia_lightning_probe.cli.telling import FINE, CommandError, reason_of, say
from kornia_lightning_probe.wording import listed

_NO_MATPLOTLIB = "--plot needs matplotlib: pip install matplotlib (the extra [plots])"


def show(given: Any) -> int:
    """Show what is in a file, or the newest result of each run in a folder.

    Args:
        given: path, full, plot, kind.
    """
    found = find_results(Path(given.path))
    if given.plot and len(found) > 1:
        names = listed(one.path for one in found)
        raise CommandError(f"--plot draws one result and {given.path} holds {len(found)} runs: name one of {names}")
    # Before anything is said: what can't be drawn is an error without half an answer in front.
    drawn = _drawn(found[0], Path(given.plot), given.kind) if given.plot else ""
    if len(found) > 1:
        say(f"{len(found)} runs, the newest result of each:")
        for one in found:
            say(_entry(one, full=given.full))
    else:
        say(f"{found[0].path}\n{found[0].result.summary(full=given.full)}")
    if drawn:
        say(drawn)
    return FINE


def _entry(one: Found, *, full: bool) -> str:
    """What is said of one of several runs."""
    body = one.result.summary(full=True) if full else one.result.verdict()
    return f"\n{timed(one.path, one.result)}\n{body or repr(one.result)}"


def _drawn(one: Found, target: Path, kind: str) -> str:
    """Draw a result, and say where."""
    if importlib.util.find_spec("matplotlib") is None:
        raise CommandError(_NO_MATPLOTLIB)
    figure = one.result.plot(kind)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(target)
    except (OSError, ValueError) as error:
        raise CommandError(f"--plot {target}: {reason_of(error)}") from error
    return f"drawn to {target}"
