"""How a block's views are cut or merged into forward passes: arithmetic only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Segment:
    """What goes into one forward pass: the same rows of a block under each of some views, one view behind the other.

    Args:
        views: the views' numbers.
        rows: which of the block's rows.

    Example:
        >>> len(Segment(range(2, 4), slice(0, 7)))
        14
    """

    views: range
    rows: slice

    def __len__(self) -> int:
        return len(self.views) * self.num_images

    @property
    def num_images(self) -> int:
        """How many rows there are of each view."""
        return int(self.rows.stop - self.rows.start)


def slices(count: int, size: int) -> list[slice]:
    """Cut ``count`` rows into runs of at most ``size``.

    Example:
        >>> slices(5, 2)
        [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def view_groups(num_views: int, num_rows: int, batch_size: int) -> list[range]:
    """Which views of a block go into one forward pass: as many as fit, at least one.

    Example:
        >>> view_groups(5, num_rows=32, batch_size=64)
        [range(0, 2), range(2, 4), range(4, 5)]
    """
    merged = max(1, batch_size // num_rows)
    return [range(first, min(first + merged, num_views)) for first in range(0, num_views, merged)]
