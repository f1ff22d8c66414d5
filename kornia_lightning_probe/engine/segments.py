"""How a block's views are cut or merged into forward passes: arithmetic only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# How many images of the first block, mirrored, metrics may calibrate on.
CALIBRATED = 16
# How many of them they may see with stripes.
STRIPED = 8


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

    def by_view(self) -> list[Segment]:
        """The views apart.

        Example:
            >>> [list(part.views) for part in Segment(range(2, 4), slice(0, 7)).by_view()]
            [[2], [3]]
        """
        return [Segment(range(view, view + 1), self.rows) for view in self.views]


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


def count_passes(
    blocks: Sequence[range], num_views: int, batch_size: int, *, rank: int, world_size: int, calibrates: bool = False
) -> int:
    """How many forward passes a process runs: those of the scout, then clean and augmented ones over its blocks.

    The scout runs block 0 twice, sixteen mirrored images where a metric calibrates on them, and two images. That of
    images with stripes, which all processes run or none, is known only then and not counted.

    Args:
        blocks: the rows of every block of all processes.
        num_views: V.
        batch_size: at most so many images in a pass.
        rank: the process; its blocks are those of ``rank`` modulo ``world_size``, and the scout is block 0.
        world_size: the number of processes.
        calibrates: whether a metric asks for mirror images.

    Example:
        >>> blocks = [range(0, 32), range(32, 64)]
        >>> count_passes(blocks, 3, 32, rank=0, world_size=2)  # the scout, 3 views
        6
        >>> count_passes(blocks, 3, 32, rank=1, world_size=2)  # the scout, 1 clean, 3 views
        7
    """
    passes = 2 * len(slices(len(blocks[0]), batch_size)) + (1 if len(blocks[0]) > 2 else 0)
    passes += len(slices(min(CALIBRATED, len(blocks[0])), batch_size)) if calibrates else 0
    for index in range(rank, len(blocks), world_size):
        cuts = len(slices(len(blocks[index]), batch_size))
        passes += cuts * len(view_groups(num_views, len(blocks[index]), batch_size)) + (cuts if index else 0)
    return passes
