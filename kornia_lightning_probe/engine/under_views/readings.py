"""One block, read in one way: its clean side, what is kept of it under views, and what its metrics make of that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from kornia_lightning_probe.activations.about import About, Distances, Shown
from kornia_lightning_probe.activations.clean import CleanBlock
from kornia_lightning_probe.engine.under_views.preparing import Reader, Wish
from kornia_lightning_probe.functional.distances import sum_of_squares
from kornia_lightning_probe.metrics.base import BlockMetric, DistanceMetric, ProbeMetric
from kornia_lightning_probe.metrics.block_sums import Sums

#: Writes something of an activation into memory that is there.
Writer = Callable[[Tensor, Tensor], None]

# Views and images, each as (start, stop).
_Where = tuple[tuple[int, int], tuple[int, int]]


@dataclass
class Rows:
    """What has been measured and not yet been written: a table takes the rows of many layers in one go."""

    # By place and a metric's name, not by the metric itself: a torchmetrics.Metric hashes all of its states.
    _waiting: dict[_Where, dict[str, dict[str, Mapping[str, Tensor]]]] = field(default_factory=dict)
    _valid: dict[_Where, dict[str, list[Tensor | None]]] = field(default_factory=dict)

    def add(
        self,
        metric: ProbeMetric,
        layer: str,
        statistics: Mapping[str, Tensor],
        views: range,
        ids: tuple[int, int],
        valid: Tensor | None,
    ) -> None:
        """Take in what a metric has measured at a layer.

        Args:
            metric: the metric.
            layer: the column.
            statistics: what it has measured.
            views: the views' rows.
            ids: the images' rows, (start, stop).
            valid: which images had finite clean activations; None: all of them.
        """
        if not statistics:
            return
        where = ((views.start, views.stop), ids)
        self._waiting.setdefault(where, {}).setdefault(metric.name, {})[layer] = statistics
        self._valid.setdefault(where, {}).setdefault(metric.name, []).append(valid)

    def write(self, metrics: Mapping[str, ProbeMetric]) -> None:
        """Write all of it."""
        for where, by_metric in self._waiting.items():
            views, ids = where
            for name, measured in by_metric.items():
                metrics[name].write(measured, range(*views), ids, _joined(self._valid[where][name]))
        self._waiting.clear()
        self._valid.clear()


@dataclass(frozen=True)
class Reading:
    """A block of images, read in one way.

    Args:
        number: its place among all readings of the block.
        reader: the way.
        clean: the block's clean activations, read so.
        wishes: those of the reader's that want this block.
    """

    number: int
    reader: Reader
    clean: CleanBlock
    wishes: tuple[Wish, ...]

    @property
    def valid(self) -> Tensor | None:
        """Which images had finite clean activations; None: all of them."""
        return None if self.clean.num_valid == self.clean.valid.shape[0] else self.clean.valid

    def templates(self) -> list[Tensor]:
        """Tensors such as those in which what is kept waits for that of other views."""
        clean = self.clean.activation
        if self.reader.kind == "distances":
            return [clean.new_empty(len(clean), self.clean.room.num_pieces)] * len(self.reader.reads)
        return [clean]

    def writers(self, rows: slice) -> Sequence[Writer]:
        """What writes that which is kept, from an activation of some of the block's rows to a slot."""
        if rows.stop - rows.start == self.clean.activation.shape[0]:
            return self._whole
        return self._writers(rows)

    @cached_property
    def _whole(self) -> Sequence[Writer]:
        return self._writers(slice(0, len(self.clean.activation)))

    def _writers(self, rows: slice) -> Sequence[Writer]:
        if self.reader.kind == "block":
            return [self.reader.readout.put]
        write = self.clean.room.write_norms
        return [partial(write, self.clean.other(name, rows)) for name in self.reader.reads]

    def measure_view(self, activation: Tensor, shown: Shown, into: Rows) -> None:
        """Measure some rows under one view."""
        readout = self.reader.readout
        about = About(shown, readout.site, self.clean, readout.take(activation))
        valid = None if self.valid is None else about.valid
        for wish in self.wishes:
            if wish.views[shown.views.start]:
                statistics = wish.metric.measure(about.clean, about.augmented, about)
                into.add(wish.metric, about.layer, statistics, shown.views, shown.ids, valid)

    def measure_kept(self, kept: Sequence[Tensor], shown: Shown, into: Rows) -> None:
        """Measure the whole block under some views in a row.

        Args:
            kept: what the writers have written, (views, n, ...) each.
            shown: the block and these views.
            into: gets what was measured.
        """
        told = _Told(self, kept, shown)
        for wish in self.wishes:
            wanted = [view for view in shown.views if wish.views[view]]
            if not wanted:
                continue
            statistics = told.measured_by(wish.metric)
            for views in runs(wanted):
                part = slice(views.start - shown.views.start, views.stop - shown.views.start)
                cut = {name: _of_views(values, part, len(shown.views)) for name, values in statistics.items()}
                into.add(wish.metric, self.reader.readout.site.name, cut, views, shown.ids, self.valid)


class _Told:
    """What the metrics of a reading are told, computed for the first of them that asks."""

    def __init__(self, reading: Reading, kept: Sequence[Tensor], shown: Shown) -> None:
        self._reading, self._kept, self._shown = reading, kept, shown

    def measured_by(self, metric: ProbeMetric) -> Mapping[str, Tensor]:
        """What a metric takes from it."""
        if isinstance(metric, DistanceMetric):
            return metric.measure_distances(self._distances)
        if isinstance(metric, BlockMetric):
            return metric.measure_block(self._about.clean, self._about.augmented, self._about)
        raise TypeError(f"{type(metric).__name__} is measured view by view")

    @cached_property
    def _about(self) -> About:
        readout = self._reading.reader.readout
        (rows,) = self._kept
        return About(self._shown, readout.site, self._reading.clean, readout.settle(rows))

    @cached_property
    def _distances(self) -> Distances:
        reader, clean = self._reading.reader, self._reading.clean
        known: dict[str, Any] = {"site": reader.readout.site, "labels": self._shown.labels}
        if reader.kind == "distances":
            norms = zip(reader.reads, self._kept, strict=True)
            known |= {name: sum_of_squares(found) for name, found in norms}
            return Distances(clean, self._shown.rows, **known)
        centred = (self._about.augmented - clean.mean).flatten(2)
        deviation = centred.to(clean.squared_deviation).square().sum(2) if "squared_deviation" in reader.reads else None
        return Distances(clean, self._shown.rows, self._about.movement.squared_length, deviation, **known)


def runs(numbers: Iterable[int]) -> Iterator[range]:
    """Ascending numbers as ranges of those that follow each other.

    Example:
        >>> list(runs([0, 1, 4, 5, 6]))
        [range(0, 2), range(4, 7)]
    """
    start = stop = None
    for number in numbers:
        if start is None or number != stop:
            if start is not None and stop is not None:
                yield range(start, stop)
            start = number
        stop = number + 1
    if start is not None and stop is not None:
        yield range(start, stop)


def _of_views(values: Any, part: slice, num_views: int) -> Any:
    """Some views' rows; what is the same under every view stays as it is."""
    if isinstance(values, Sums):
        if values.total.ndim == 1:
            return values
        return Sums(values.total[part], values.num_images[part])
    if values.ndim == 1 or values.shape[0] != num_views:
        return values
    return values[part]


def _joined(valid: Sequence[Tensor | None]) -> Tensor | None:
    """Which images count in each layer, (layer, n); None where all do in all of them."""
    masks = [mask for mask in valid if mask is not None]
    if not masks:
        return None
    every = torch.ones_like(masks[0])
    return torch.stack([every if mask is None else mask for mask in valid])
