"""Whether a ladder's number is the edge of a range that Kornia draws from, instead of the magnitude itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn

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

    def is_half_as_wide_as(self, number: float) -> bool:
        """Whether a number is its half width; or it is the number alone."""
        return self.low == self.high or _are_close(number, (self.high - self.low) / 2)


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
    number = abs(view.severity)
    if not view.severity_given or number == 0 or not isinstance(view.transform, nn.Module):
        return None
    named: list[Range] = []
    for module in view.transform.modules():
        generator = getattr(module, "_param_generator", None)
        if generator is None:
            continue
        if number in _written(generator):
            named += [each for each in _ranges(module, generator) if each.is_named_by(number)]
        elif _keeps_no_number(generator):
            named += [each for each in _ranges(module, generator) if each.is_half_as_wide_as(number)]
    if any(each.low == each.high for each in named):
        return None
    return named[0] if named else None


def _ranges(module: nn.Module, generator: Any) -> Iterator[Range]:
    """Kornia's uniform distributions, under the names of what they draw."""
    held = vars(generator) | vars(generator).get("sampler_dict", {})
    for name, sampler in held.items():
        low, high = getattr(sampler, "low", None), getattr(sampler, "high", None)
        if low is None or high is None or name.startswith(_NO_MAGNITUDE):
            continue
        parameter = name.removesuffix("_sampler")
        yield Range(type(module).__name__, parameter, float(low), float(high))


def _written(generator: Any) -> list[float]:
    """The single numbers that one of Kornia's classes was made with; a translation is one for each axis."""
    held = vars(generator)
    values = list(held.values())
    values += [sampler[0] for sampler in held.get("samplers", ())]
    values += held.get("translate") or ()
    # No flags, which are integers too.
    return [float(value) for value in values if type(value) in (int, float)]


def _keeps_no_number(generator: Any) -> bool:
    """Whether a class keeps a range, whatever it was made with: `RandomHue(0.1)` is `RandomHue((-0.1, 0.1))`."""
    samplers = vars(generator).get("samplers", ())
    return any(isinstance(sampler[0], Tensor) and sampler[0].numel() == 2 for sampler in samplers)


def _are_close(first: float, second: float) -> bool:
    return math.isclose(first, second, rel_tol=1e-5)
