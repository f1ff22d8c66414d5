"""Whether a ladder's number is the edge of a range that Kornia draws from, instead of the magnitude itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import nn

from kornia_lightning_probe.bank.views import View

# Ranges of something else than a magnitude.
_NO_MAGNITUDE = ("ratio", "rand", "coordinates")


class Range(NamedTuple):
    """What one of Kornia's classes draws a parameter from."""

    kind: str
    name: str
    low: float
    high: float

    def is_named_by(self, number: float) -> bool:
        """Whether a number is an edge of this range, or its half width."""
        edges = (abs(self.low), abs(self.high), (self.high - self.low) / 2)
        return any(math.isclose(number, edge, rel_tol=1e-5) for edge in edges)


def range_behind(view: View) -> Range | None:
    """The range that a view draws its magnitude from, where its severity is no more than the edge of that range.

    Only a severity that the user wrote says what the magnitude should be: `{15: K.RandomRotation(15.0)}` turns by
    anything from -15 to 15 degrees.

    Args:
        view: one of a bank's.

    Example:
        >>> import kornia.augmentation as K
        >>> from kornia_lightning_probe.bank.views import read_views
        >>> wide, pinned = read_views({"a": {15: K.RandomRotation(15.0)}, "b": {15: K.RandomRotation((15.0, 15.0))}})
        >>> range_behind(wide), range_behind(pinned)
        (Range(kind='RandomRotation', name='degrees', low=-15.0, high=15.0), None)
    """
    if not view.severity_given or view.severity == 0:
        return None
    found = [each for each in _ranges(view.transform) if each.is_named_by(abs(view.severity))]
    if any(each.low == each.high for each in found):
        return None
    return found[0] if found else None


def _ranges(transform: Any) -> Iterator[Range]:
    modules = transform.modules() if isinstance(transform, nn.Module) else ()
    for module in modules:
        generator = getattr(module, "_param_generator", None)
        for name, sampler in _samplers(generator):
            if not name.startswith(_NO_MAGNITUDE):
                yield Range(type(module).__name__, name, float(sampler.low), float(sampler.high))


def _samplers(generator: Any) -> Iterator[tuple[str, Any]]:
    """Kornia's uniform distributions, under the names of what they draw."""
    held = dict(getattr(generator, "__dict__", {}))
    held |= held.pop("sampler_dict", None) or {}
    for name, sampler in held.items():
        if hasattr(sampler, "low") and hasattr(sampler, "high"):
            yield name.removesuffix("_sampler"), sampler
