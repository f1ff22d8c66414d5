"""Keeps what is small of several views, so that metrics look at all of them at once and not at each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from kornia_lightning_probe.schedule import Segment

#: At most so much is kept of a block's views, beside the views of one forward pass.
MOST_GATHERED_BYTES = 16 * 2**20

_Key = tuple[str, int]


class Gathered:
    """Slots for what is kept of one block, one for each of the views that are measured at once.

    Args:
        memory: by key, (views, n, ...) with arbitrary content.
        enough: of so many views it is full.

    Example:
        >>> import torch
        >>> gathered = Gathered({("fc", 0): torch.empty(2, 3, 1)}, enough=2)
        >>> for view in (0, 1):
        ...     _ = gathered.slot(("fc", 0), Segment(view, slice(0, 3))).fill_(view)
        >>> gathered.is_full
        True
        >>> [(key, view, rows.flatten().tolist()) for key, view, rows in gathered.emptied()]
        [(('fc', 0), 0, [0.0, 0.0, 0.0, 1.0, 1.0, 1.0])]
    """

    def __init__(self, memory: Mapping[_Key, Tensor], enough: int) -> None:
        self._memory = memory
        self._slots = {key: slots.unbind() for key, slots in memory.items()}
        self._enough = enough
        # By key and slot, how many of its rows are there.
        self._filled: dict[_Key, dict[int, int]] = {}
        self._first = self._stop = 0

    @property
    def is_full(self) -> bool:
        """Whether what is there should be measured before the next forward pass."""
        return self._stop - self._first >= self._enough

    def slot(self, key: _Key, segment: Segment) -> Tensor:
        """Where the rows of a segment are to be written, (rows, ...)."""
        number, rows = segment.view - self._first, segment.rows
        self._stop = max(self._stop, segment.view + 1)
        filled = self._filled.setdefault(key, {})
        filled[number] = filled.get(number, 0) + len(segment)
        slot = self._slots[key][number]
        return slot if rows.stop - rows.start == slot.shape[0] else slot[rows]

    def emptied(self) -> Iterator[tuple[_Key, int, Tensor]]:
        """All that is there: by key the first of some views in a row, and their rows, (views, n, ...).

        What did not come whole, as of a layer that runs on some images only, is left out. The next view gets the first
        slot again.
        """
        for key, filled in self._filled.items():
            slots = self._memory[key]
            whole = [number for number in sorted(filled) if filled[number] == slots.shape[1]]
            starts = [number for number in whole if number - 1 not in whole]
            stops = [number + 1 for number in whole if number + 1 not in whole]
            for start, stop in zip(starts, stops, strict=True):
                yield key, self._first + start, slots[start:stop]
        self._filled.clear()
        self._first = self._stop
