"""What a measure says of itself: its meaning and unit, its range, what it reads at the identity, how it is drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

#: How the ends and the middle of a sensitivity read on a colour bar.
SWAP_MARKS = (
    (0.0, "0 (unmoved)"),
    (0.25, "0.25"),
    (0.5, "0.5"),
    (0.75, "0.75"),
    (1.0, "1 (as far as swapping the image)"),
)


@dataclass(frozen=True)
class Quantity:
    """What a metric's class says of its numbers; it is kept beside them, in results, files and checkpoints.

    Without any of it a metric is measured all the same: then its curves have no start and no worst level, and its
    pictures scale with the values.

    Args:
        meaning: a line that says how to read the number, such as "0: not noticed; 1: as far as another image".
        unit: "" for a number without one, else its name, such as "nats".
        range: the lowest and the highest value that it can take.
        at_identity: what it reads for an augmentation that does nothing; None where that is not known.
        scale: the ends of its axes and colour bars; None: those of the values.
        marks: values and what is written beside them on a colour bar, ascending.
        line: a value to be drawn as a dashed line, whose mark says what it is; None for none.
        of_output: whether it is of the model's output.
        logged: whether it is a curve in the loggers without being asked for.
        on_grid: whether it depends on where the cells of a map lie in the image, so that two models whose cells lie
            elsewhere can't be compared by it.

    Raises:
        ValueError: for a range or a scale that does not ascend.

    Example:
        >>> Quantity(meaning="0: never found, 1: always found", range=(0.0, 1.0), at_identity=1.0).at_identity
        1.0
    """

    meaning: str = ""
    unit: str = ""
    range: tuple[float, float] = (-math.inf, math.inf)
    at_identity: float | None = None
    scale: tuple[float, float] | None = None
    marks: tuple[tuple[float, str], ...] = ()
    line: float | None = None
    of_output: bool = False
    logged: bool = False
    on_grid: bool = False

    def __post_init__(self) -> None:
        for name in ("range", "scale"):
            ends = getattr(self, name)
            if ends is not None and not ends[0] < ends[1]:
                raise ValueError(f"{name} must be (low, high) with low < high, got {ends}")

    def state(self) -> dict[str, Any]:
        """Plain data, which a checkpoint and a JSON file can hold."""
        state = asdict(self)
        state["range"] = list(self.range)
        state["scale"] = None if self.scale is None else list(self.scale)
        state["marks"] = [list(mark) for mark in self.marks]
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Quantity:
        """What :meth:`state` has written; "inf" and "-inf", as JSON has infinities, are read too.

        Example:
            >>> quantity = Quantity(marks=((0.0, "none"), (1.0, "all")))
            >>> Quantity.from_state(quantity.state()) == quantity
            True
        """
        read = dict(state)
        for name in ("range", "scale"):
            if read.get(name) is not None:
                low, high = read[name]
                read[name] = (float(low), float(high))
        read["marks"] = tuple((float(value), str(text)) for value, text in read.get("marks", ()))
        return cls(**read)


def sensitivity_quantity(meaning: str, *, logged: bool = False, on_grid: bool = False) -> Quantity:
    """The quantity of a measure that is 0 where nothing moves and 1 for an image that is swapped."""
    return Quantity(
        meaning=meaning,
        range=(0.0, math.inf),
        at_identity=0.0,
        scale=(0.0, 1.2),
        marks=SWAP_MARKS,
        line=1.0,
        logged=logged,
        on_grid=on_grid,
    )


def share_quantity(meaning: str) -> Quantity:
    """The quantity of the largest share that one of several holds."""
    return Quantity(
        meaning=meaning,
        range=(0.0, 1.0),
        scale=(0.0, 1.0),
        marks=((0.0, "0"), (0.5, "0.5"), (1.0, "1 (all in one)")),
    )
