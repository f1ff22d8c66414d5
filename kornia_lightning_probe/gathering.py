"""Keeps small readouts and distances of several views, so that metrics look at all of them at once, not at each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from kornia_lightning_probe.schedule import Segment

#: At most so much is kept of a block's views, beside the views of one forward pass.
MOST_GATHERED_BYTES = 16 * 2**20

_Key = tuple[str, int]


class Gathered:
    """Slots for what is kept of one block, one for each of the views that are measured at once.

    Args:
        memory: by a layer's name and a number, one or more tensors (views, n, ...) with arbitrary content.
        enough: of so many views it is full.

    Example:
        >>> import torch
        >>> gathered = Gathered({("fc", 0): (torch.empty(2, 3, 1),)}, enough=2)
        >>> for view in (0, 1):
        ...     (slot,) = gathered.slots(("fc", 0), Segment(view, slice(0, 3)))
        ...     _ = slot.fill_(view)
        ...     gathered.came("fc", Segment(view, slice(0, 3)))
        >>> gathered.advance(2)
        >>> gathered.is_full
        True
        >>> [(key, view, rows.flatten().tolist()) for key, view, (rows,) in gathered.emptied()]
        [(('fc', 0), 0, [0.0, 0.0, 0.0, 1.0, 1.0, 1.0])]
    """

    def __init__(self, memory: Mapping[_Key, tuple[Tensor, ...]], enough: int) -> None:
        self._memory = memory
        self._slots = {
            key: list(zip(*(tensor.unbind() for tensor in tensors), strict=True)) for key, tensors in memory.items()
        }
        self._enough = enough
        # By layer and number of a slot, how many of its rows are there.
        self._filled: dict[str, dict[int, int]] = {}
        self._first = self._stop = 0

    @property
    def is_full(self) -> bool:
        """Whether what is there should be measured before the next forward pass."""
        return self._stop - self._first >= self._enough

    def advance(self, stop: int) -> None:
        """Say that all views before number ``stop`` have been seen."""
        self._stop = stop

    def slots(self, key: _Key, segment: Segment) -> Sequence[Tensor]:
        """Where the rows of a segment are to be written, (rows, ...) each."""
        number, rows = segment.view - self._first, segment.rows
        slots = self._slots[key][number]
        return slots if len(segment) == slots[0].shape[0] else [slot[rows] for slot in slots]

    def came(self, layer: str, segment: Segment) -> None:
        """Say that a layer's slots of a segment are written."""
        filled = self._filled.setdefault(layer, {})
        number = segment.view - self._first
        filled[number] = filled.get(number, 0) + len(segment)

    def emptied(self) -> Iterator[tuple[_Key, int, list[Tensor]]]:
        """All that is there: by key the first of some views in a row, and their rows, (views, n, ...) each.

        What did not come whole, as of a layer that runs on some images only, is left out. The next view gets the first
        slot again.
        """
        for key, tensors in self._memory.items():
            filled = self._filled.get(key[0], {})
            whole = [number for number in sorted(filled) if filled[number] == tensors[0].shape[1]]
            starts = [number for number in whole if number - 1 not in whole]
            stops = [number + 1 for number in whole if number + 1 not in whole]
            for start, stop in zip(starts, stops, strict=True):
                yield key, self._first + start, [tensor[start:stop] for tensor in tensors]
        self._filled.clear()
        self._first = self._stop
