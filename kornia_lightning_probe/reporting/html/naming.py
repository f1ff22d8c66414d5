"""Names that fit into a chart: without what all of them share, their middle left out, and still told apart."""

from __future__ import annotations

from collections.abc import Sequence

from kornia_lightning_probe.reporting.text.table import elided
from kornia_lightning_probe.results.tables import INPUT, OUTPUT
from kornia_lightning_probe.wording import common_module

_LONGEST = 24
_MORE = 6


def short_names(names: Sequence[str], most: int = _LONGEST) -> tuple[list[str], str]:
    """Names of at most so many characters, or of as many more as tell them apart, and the module that all are in.

    Example:
        >>> short_names(["input", "net.layer1.conv", "net.layer2.conv"], 10)
        (['input', 'layer1.conv', 'layer2.conv'], 'net')
    """
    shared = common_module([name for name in names if name not in (INPUT, OUTPUT)])
    prefix = f"{shared}." if shared else ""
    inner = [name.removeprefix(prefix) for name in names]
    longest = max(map(len, inner), default=0)
    for length in range(most, longest + _MORE, _MORE):
        short = [elided(name, length) for name in inner]
        if len(set(short)) == len(set(inner)):
            return short, shared
    return inner, shared
