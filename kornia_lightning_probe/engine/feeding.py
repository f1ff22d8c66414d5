"""Keeps small readouts and distances of several views, so that metrics look at all of them at once, not at each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from kornia_lightning_probe.engine.segments import Segment

#: At most so much is kept of a block's views, beside the views of one forward pass.
MOST_GATHERED_BYTES = 16 * 2**20

_Key = tuple[str, int]


class Gathered:
    """Slots for what is kept of a block, one for each of the views that are measured at once.

    Args:
        memory: by a layer's name and a number, one or more tensors (views, n, ...) with arbitrary content.
        enough: of so many views it is full.

    Example:
        >>> import torch
        >>> gathered = Gathered({("fc", 0): (torch.empty(2, 3, 1),)}, enough=2)
        >>> for view in range(2):
        ...     segment = Segment(range(view, view + 1), slice(0, 3))
        ...     came = gathered.coming(segment)
        ...     (slot,) = gathered.slots(("fc", 0), segment)
        ...     _ = slot.fill_(view)
        ...     came.add("fc")
        >>> gathered.is_full
        True
        >>> [(key, view, rows.flatten().tolist()) for key, view, (rows,) in gathered.emptied()]
        [(('fc', 0), 0, [0.0, 0.0, 0.0, 1.0, 1.0, 1.0])]
    """

    def __init__(self, memory: Mapping[_Key, tuple[Tensor, ...]], enough: int) -> None:
        self._memory = memory
        # Of whole blocks under one view, as most are: made once.
        self._slots = {
            key: list(zip(*(tensor.unbind() for tensor in tensors), strict=True)) for key, tensors in memory.items()
        }
        self._enough = enough
        self._came: list[tuple[Segment, set[str]]] = []
        self._first = 0

    @property
    def is_full(self) -> bool:
        """Whether what is there should be measured before the next views come."""
        return bool(self._came) and self._came[-1][0].views.stop - self._first >= self._enough

    def coming(self, segment: Segment) -> set[str]:
        """Say that a segment comes; into what is returned go the layers whose slots have been written.

        The first segment after :meth:`emptied` has the first slot.
        """
        if not self._came:
            self._first = segment.views.start
        layers: set[str] = set()
        self._came.append((segment, layers))
        return layers

    def slots(self, key: _Key, segment: Segment) -> Sequence[Tensor]:
        """Where a segment's rows are to be written, (rows, ...) each; of several views only whole blocks."""
        number, num_views = segment.views.start - self._first, len(segment.views)
        if num_views > 1:
            several = slice(number, number + num_views)
            return [tensor[several].view(-1, *tensor.shape[2:]) for tensor in self._memory[key]]
        slots = self._slots[key][number]
        return slots if segment.num_images == slots[0].shape[0] else [slot[segment.rows] for slot in slots]

    def emptied(self) -> Iterator[tuple[_Key, int, list[Tensor]]]:
        """All that is there: by key the first of some views in a row, and their rows, (views, n, ...) each.

        What did not come whole, as of a layer that runs on some images only, is left out.
        """
        for key, tensors in self._memory.items():
            filled: dict[int, int] = {}
            for segment, layers in self._came:
                if key[0] in layers:
                    for view in segment.views:
                        filled[view] = filled.get(view, 0) + segment.num_images
            whole = {view - self._first for view, count in filled.items() if count == tensors[0].shape[1]}
            starts = sorted(number for number in whole if number - 1 not in whole)
            stops = sorted(number + 1 for number in whole if number + 1 not in whole)
            for start, stop in zip(starts, stops, strict=True):
                yield key, self._first + start, [tensor[start:stop] for tensor in tensors]
        self._came.clear()
