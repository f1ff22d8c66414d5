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
        return any(_are_close(number, edge) for edge in edges)


def range_behind(view: View) -> Range | None:
    """The range that a view draws its magnitude from, where the user has written the one number that its severity is.

    `{15: K.RandomRotation(15.0)}` turns by anything from -15 to 15 degrees. Who writes `(-15.0, 15.0)` knows that.

    Args:
        view: one of a bank's.

    Example:
        >>> import kornia.augmentation as K
        >>> from kornia_lightning_probe.bank.views import read_views
        >>> wide, pinned = read_views({"a": {15: K.RandomRotation(15.0)}, "b": {15: K.RandomRotation((15.0, 15.0))}})
        >>> range_behind(wide), range_behind(pinned)
        (Range(kind='RandomRotation', name='degrees', low=-15.0, high=15.0), None)
    """
    if not view.severity_given or view.severity == 0 or not isinstance(view.transform, nn.Module):
        return None
    number = abs(view.severity)
    found: list[Range] = []
    for module in view.transform.modules():
        generator = getattr(module, "_param_generator", None)
        if any(_are_close(number, written) for written in _written(generator)):
            found += _ranges(module, generator)
    named = [each for each in found if each.is_named_by(number)]
    if any(each.low == each.high for each in named):
        return None
    return named[0] if named else None


def _ranges(module: nn.Module, generator: Any) -> Iterator[Range]:
    """Kornia's uniform distributions, under the names of what they draw."""
    held = dict(vars(generator))
    held |= held.pop("sampler_dict", None) or {}
    for name, sampler in held.items():
        is_magnitude = not name.startswith(_NO_MAGNITUDE)
        if is_magnitude and hasattr(sampler, "low") and hasattr(sampler, "high"):
            yield Range(type(module).__name__, name.removesuffix("_sampler"), float(sampler.low), float(sampler.high))


def _written(generator: Any) -> Iterator[float]:
    """The single numbers that one of Kornia's classes was made with; a translation is one for each axis."""
    held = dict(getattr(generator, "__dict__", {}))
    values = [sampler[0] for sampler in held.pop("samplers", ())]
    translation = held.get("translate")
    values += [*held.values(), *(translation or ())]
    for value in values:
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield float(value)


def _are_close(first: float, second: float) -> bool:
    return math.isclose(first, second, rel_tol=1e-5)
