"""`show`: a saved result as text, and as a picture."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from kornia_lightning_probe.cli.files import Found, find_results
from kornia_lightning_probe.cli.telling import FINE, CommandError, say
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
    if len(found) > 1:
        say(f"{len(found)} runs, the newest result of each:")
        for one in found:
            say(_entry(one, full=given.full))
    else:
        say(f"{found[0].path}\n{found[0].result.summary(full=given.full)}")
    if given.plot:
        _draw(found[0], Path(given.plot), given.kind)
    return FINE


def _entry(one: Found, *, full: bool) -> str:
    """What is said of one of several runs."""
    body = one.result.summary(full=True) if full else one.result.verdict()
    return f"\n{one.path} ({one.result.when})\n{body or repr(one.result)}"


def _draw(one: Found, target: Path, kind: str) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        raise CommandError(_NO_MATPLOTLIB)
    figure = one.result.plot(kind)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target)
    say(f"drawn to {target}")
