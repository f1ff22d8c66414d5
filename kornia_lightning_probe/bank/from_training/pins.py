"""Magnitudes: where a step keeps the range that it draws one from, and how a part of that range is set in its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

#: The unit of the severities of a step with several magnitudes of different reach.
PART = "of the range"


class Pin(NamedTuple):
    """One magnitude of an augmentation class, as a row of the tables.

    Attributes:
        place: the dotted path of attributes and keys, from the augmentation to its range: a sampler of Kornia's, a pair
            of numbers, or where `drawn` is False, numbers that limit what is drawn.
        identity: where it does nothing.
        unit: of its distance from there.
        drawn: whether the class draws the magnitude between the two ends; else the number itself is the magnitude.
        whole: whether it is a whole number.
        start: where the pair begins in a longer sequence, such as the shear of both axes.
        in_bytes: the identity and unit instead where images are 0 to 255.
    """

    place: str
    identity: float
    unit: str
    drawn: bool = True
    whole: bool = False
    start: int = 0
    in_bytes: tuple[float, str] | None = None


class Ends:
    """Draws one of two ends for each image, in the place of a Uniform distribution between them.

    Args:
        low: the one end.
        high: the other; the same number where the range lies on one side of the identity.
    """

    def __init__(self, low: float, high: float) -> None:
        self.low = torch.tensor(float(low))
        self.high = torch.tensor(float(high))

    def rsample(self, shape: Sequence[int] = ()) -> Tensor:
        """Draw; moves the stream as far for two equal ends as for different ones."""
        is_low = torch.rand(tuple(shape)) < 0.5
        return torch.where(is_low, self.low, self.high)

    def __repr__(self) -> str:
        low, high = float(self.low), float(self.high)
        return f"{high:g}" if low == high else f"{low:g} or {high:g}"


def look_up(transform: Any, place: str) -> Any:
    """What stands at a place of an augmentation; None where there is nothing."""
    held = transform
    for name in place.split("."):
        held = held.get(name) if isinstance(held, dict) else getattr(held, name, None)
    return held


def put(transform: Any, place: str, value: Any) -> None:
    """Put something at a place of an augmentation."""
    before, _, name = place.rpartition(".")
    holder = look_up(transform, before) if before else transform
    if isinstance(holder, dict):
        holder[name] = value
    else:
        setattr(holder, name, value)


def range_of(transform: Any, pin: Pin) -> tuple[float, float] | None:
    """The two ends of a magnitude, as the user trains with it.

    Args:
        transform: an augmentation of the class that the row is for.
        pin: the row.

    Returns:
        Lower and upper end; None where it isn't used, or never leaves the identity.
    """
    held = look_up(transform, pin.place)
    if held is None:
        return None
    numbers = _numbers(held)[pin.start :]
    if pin.drawn:
        numbers = numbers[:2]
    if all(number == pin.identity for number in numbers):
        return None
    return min(numbers), max(numbers)


def ends_at(limits: tuple[float, float], pin: Pin, part: float) -> Ends:
    """The ends of a part of the range: each end that far from the identity, on its own side.

    A range on one side of the identity, such as a sigma in (0.1, 2), has one end, the one that is further away.

    Args:
        limits: the whole range.
        pin: the row.
        part: in (0, 1].

    Example:
        >>> rotation = Pin("degrees", identity=0.0, unit="degrees")
        >>> ends_at((-30.0, 30.0), rotation, 1 / 3), ends_at((10.0, 30.0), rotation, 1 / 3)
        (-10 or 10, 10)
    """
    low, high = (_towards(end, pin, part) for end in limits)
    if limits[0] < pin.identity < limits[1]:
        return Ends(low, high)
    is_low_further = abs(low - pin.identity) > abs(high - pin.identity)
    far = low if is_low_further else high
    return Ends(far, far)


def reach_at(limits: tuple[float, float], pin: Pin, part: float) -> float:
    """How far the further end of a part of the range is from the identity."""
    ends = [_towards(end, pin, part) for end in limits]
    return round(max(abs(end - pin.identity) for end in ends), 9)


def shrunk(held: Any, pin: Pin, part: float) -> Any:
    """Numbers that limit what is drawn, moved towards the identity, in the form in which they are held."""
    if isinstance(held, torch.distributions.Uniform):
        low, high = (_towards(float(end), pin, part) for end in (held.low, held.high))
        return torch.distributions.Uniform(low, high, validate_args=False)
    if isinstance(held, Tensor):
        return pin.identity + part * (held - pin.identity)
    if isinstance(held, Sequence):
        moved_all = [_towards(float(number), pin, part) for number in held]
        return moved_all if isinstance(held, list) else tuple(moved_all)
    moved = _towards(float(held), pin, part)
    return int(moved) if pin.whole else moved


def _towards(end: float, pin: Pin, part: float) -> float:
    moved = pin.identity + part * (end - pin.identity)
    return float(round(moved)) if pin.whole else moved


def _numbers(held: Any) -> list[float]:
    """The numbers of a distribution's ends, a tensor, a sequence or a number."""
    if hasattr(held, "low"):
        return [plain(held.low), plain(held.high)]
    if isinstance(held, Tensor):
        return [plain(number) for number in held.flatten()]
    if isinstance(held, Sequence):
        return [plain(number) for number in held]
    return [plain(held)]


def plain(number: Any) -> float:
    """A number as its user wrote it: 0.36 as float32 is 0.36000001."""
    if isinstance(number, Tensor):
        return float(f"{number.item():.7g}")
    return float(number)
