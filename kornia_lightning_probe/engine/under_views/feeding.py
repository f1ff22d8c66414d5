"""Feeds the readings of one block: what a pass gives is written to memory or measured at once.

Of small readouts and of distances several views are kept, so that metrics look at all of them at once, not at each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kornia_lightning_probe.activations.about import Shown
from kornia_lightning_probe.engine.passes import Sink
from kornia_lightning_probe.engine.segments import Segment
from kornia_lightning_probe.engine.under_views.readings import Reading, Rows, Writer, runs
from kornia_lightning_probe.functional.memory import Scratch

#: At most so much is kept of a block's views, beside the views of one forward pass.
MOST_KEPT_BYTES = 16 * 2**20


class Slots:
    """Memory for what is kept of a block, one slot for each of the views that are measured at once.

    Args:
        templates: for each reading, tensors (n, ...) such as those to be kept under one view.
        num_views: of the bank.
        at_once: how many views come in one pass.

    Attributes:
        enough: of so many views it is full.
    """

    def __init__(self, templates: Mapping[int, Sequence[Tensor]], num_views: int, at_once: int) -> None:
        view_bytes = sum(tensor.nbytes for tensors in templates.values() for tensor in tensors)
        self.enough = min(num_views, max(1, MOST_KEPT_BYTES // max(1, view_bytes)))
        # The pass that fills them up may bring more than the last one.
        number = self.enough + at_once - 1
        self.memory = {
            key: [Scratch().rows(number, tensor) for tensor in tensors] for key, tensors in templates.items()
        }
        # Of whole blocks under one view, as most are: made once.
        self._single = {key: [tensor.unbind() for tensor in tensors] for key, tensors in self.memory.items()}

    def of(self, key: int, number: int, segment: Segment) -> list[Tensor]:
        """Where a segment's rows are to be written, (rows, ...) each; of several views only whole blocks.

        Args:
            key: the reading.
            number: the slot of the segment's first view.
            segment: what comes.
        """
        num_views = len(segment.views)
        if num_views > 1:
            several = [tensor[number : number + num_views] for tensor in self.memory[key]]
            return [tensor.flatten(0, 1) for tensor in several]
        slots = [views[number] for views in self._single[key]]
        if all(segment.num_images == slot.shape[0] for slot in slots):
            return slots
        return [slot[segment.rows] for slot in slots]


class Feed:
    """One block under all views.

    Args:
        readings: by layer, the ways in which the block is read.
        shown: the block, as yet under no view.
        slots: memory for what is kept.
        rows: gets what is measured.
    """

    def __init__(
        self,
        readings: Mapping[str, Sequence[Reading]],
        shown: Shown,
        *,
        slots: Slots,
        rows: Rows,
    ) -> None:
        self._readings = readings
        self._shown = shown
        self._slots = slots
        self._rows = rows
        self._came: list[tuple[Segment, set[str]]] = []

    @property
    def is_full(self) -> bool:
        """Whether what is there should be measured before the next views come."""
        return bool(self._came) and self._came[-1][0].views.stop - self._first >= self._slots.enough

    @property
    def _first(self) -> int:
        """The view that has the first slot."""
        return self._came[0][0].views.start

    def sink(self, segment: Segment, views: Sequence[Shown]) -> Sink:
        """What measures the forward pass of a segment, layer by layer.

        Args:
            segment: the rows and views that come.
            views: the segment's rows under each of its views.
        """
        layers: set[str] = set()
        self._came.append((segment, layers))
        # All memory is cold in a hook, so that little should be left to do there.
        kept = {name: list(self._writers(readings, segment)) for name, readings in self._readings.items()}
        at_once = {
            name: [reading for reading in readings if reading.reader.kind == "view"]
            for name, readings in self._readings.items()
        }
        # All readings of a layer are of one precision.
        upcasts = {name: readings[0].reader.upcast for name, readings in self._readings.items() if readings}
        rows, num_images = self._rows, segment.num_images

        def measure(name: str, activation: Tensor) -> None:
            if name not in upcasts:
                return
            wide = upcasts[name](activation)
            for write, slot in kept.get(name, ()):
                write(wide, slot)
            for reading in at_once.get(name, ()):
                for piece, shown in zip(torch.split(wide, num_images), views, strict=True):
                    reading.measure_view(piece, shown, rows)
            layers.add(name)

        return measure

    def finish(self) -> None:
        """Measure what was kept of the views whose rows are all there."""
        if not self._came:
            return
        for name, readings in self._readings.items():
            whole = self._whole_views(name)
            for reading in readings:
                if reading.reader.kind != "view":
                    self._measure(reading, [view for view in whole if reading.reader.views[view]])
        self._came.clear()

    def _measure(self, reading: Reading, whole: Sequence[int]) -> None:
        for views in runs(whole):
            start, stop = views.start - self._first, views.stop - self._first
            kept = [tensor[start:stop] for tensor in self._slots.memory[reading.number]]
            reading.measure_kept(kept, replace(self._shown, views=views), self._rows)

    def _writers(self, readings: Sequence[Reading], segment: Segment) -> Iterator[tuple[Writer, Tensor]]:
        number = segment.views.start - self._first
        for reading in readings:
            wanted = any(reading.reader.views[view] for view in segment.views)
            if wanted and reading.reader.kind != "view":
                slots = self._slots.of(reading.number, number, segment)
                yield from zip(reading.writers(segment.rows), slots, strict=True)

    def _whole_views(self, name: str) -> list[int]:
        """The views under which all images of the block have come; not so where a layer runs on some of them only."""
        num_images = self._shown.ids[1] - self._shown.ids[0]
        counts: dict[int, int] = {}
        for segment, layers in self._came:
            if name in layers:
                for view in segment.views:
                    counts[view] = counts.get(view, 0) + segment.num_images
        return [view for view, count in counts.items() if count == num_images]
