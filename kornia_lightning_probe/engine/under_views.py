"""Feeds metrics: from the activations of a forward pass to rows in their tables, and from tables to estimates."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from kornia_lightning_probe.bank.bank import View
from kornia_lightning_probe.engine.feeding import MOST_GATHERED_BYTES, Gathered
from kornia_lightning_probe.engine.notes import Findings
from kornia_lightning_probe.engine.segments import Segment, slices
from kornia_lightning_probe.functional.distances import sum_of_squares, upcast
from kornia_lightning_probe.images.blocks import Block
from kornia_lightning_probe.metrics import (
    About,
    Centre,
    CleanBlock,
    Ledger,
    MeanOfBlocks,
    Movements,
    ProbeMetric,
    Readout,
    Scratch,
    Site,
    Temporaries,
    mask_non_finite,
    readouts_of,
    split_by_views,
)
from kornia_lightning_probe.model.outputs import of_images
from kornia_lightning_probe.result import MetricTable
from kornia_lightning_probe.wording import listed

# Of so many numbers movements are computed together.
_MOST_TOGETHER = 2**16

# Of pooled features, so much of what images differ by may be lost to rounding.
_MOST_LOST = 1e-5

Clean = dict[str, list[CleanBlock]]
# By layer what a metric has measured there, and which rows had finite clean activations; None: all of them.
_Measured = tuple[dict[str, Mapping[str, Tensor]], list[Tensor | None]]
# Views and images as (start, stop), and by a metric's name what it has measured of them. Not by the metric itself: a
# torchmetrics.Metric hashes all of its states.
_Rows = dict[str, _Measured]
_Where = tuple[tuple[int, int], tuple[int, int]]
# What writes something of an activation into memory that is there.
_Writer = Callable[[Tensor, Tensor], None]


@dataclass(frozen=True)
class Reading:
    """One way in which a layer is read, for one block.

    Args:
        key: the layer's name and the number of the readout.
        readout: the way.
        clean: the block's clean activations, read so.
        metrics: those of the readout's metrics that want this block.
    """

    key: tuple[str, int]
    readout: Readout
    clean: CleanBlock
    metrics: list[ProbeMetric]

    @property
    def is_kept(self) -> bool:
        """Whether something of the activation is kept, to be measured under several views at once."""
        return self.readout.whole or bool(self.readout.distances)

    def templates(self) -> list[Tensor]:
        """Tensors such as those in which what is kept waits for that of other views."""
        clean = self.clean.activation
        if self.readout.distances:
            return [clean.new_empty(len(clean), self.clean.room.num_pieces)] * len(self.readout.distances)
        return [clean]

    def writers(self, rows: slice) -> Sequence[_Writer]:
        """What writes that which is kept, from an activation of some of the block's rows to a slot."""
        return self._whole if rows.stop - rows.start == self.clean.activation.shape[0] else self._writers(rows)

    @cached_property
    def _whole(self) -> Sequence[_Writer]:
        return self._writers(slice(0, len(self.clean.activation)))

    def _writers(self, rows: slice) -> Sequence[_Writer]:
        if not self.readout.distances:
            return [self.readout.put]
        write = self.clean.room.write_norms
        return [partial(write, self.clean.other(name, rows)) for name in self.readout.distances]


@dataclass
class Views:
    """A block under some views.

    Args:
        block: the clean block, on the model's device.
        kept: by layer, the readings of which something is kept until several views are measured at once.
        fed: by layer, the readings that are measured in each forward pass.
        views: the bank's views.
        gathered: what is kept.
        matrices: by the number of a view, its (B, 3, 3) pixel matrices, or None; filled as views are drawn.
        through: by the number of a view, the matrices on the way of a chain, or None.
    """

    block: Block
    kept: Mapping[str, Sequence[Reading]]
    fed: Mapping[str, Sequence[Reading]]
    views: Sequence[View]
    gathered: Gathered
    matrices: dict[int, Tensor | None] = field(default_factory=dict)
    through: dict[int, Tensor | None] = field(default_factory=dict)


class Measuring:
    """The metrics of one probe, and what they are to be told.

    Args:
        metrics: as the user gave them.
        findings: where remarks and what is left out go.
        default_set: whether nobody asked for just these metrics, so that one that applies nowhere is no news.

    Attributes:
        metrics: the prepared copies, by name.
        readouts: by layer, the ways in which it is read.
    """

    def __init__(self, metrics: Sequence[ProbeMetric], findings: Findings, *, default_set: bool = False) -> None:
        ledgers = [metric for metric in metrics if isinstance(metric, Ledger)]
        self.metrics: dict[str, ProbeMetric] = {}
        self.readouts: dict[str, list[Readout]] = {}
        self._given = metrics
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._default_set = default_set
        self._ledger = next((metric for metric in ledgers if metric.representation == "activation"), Ledger())
        self._findings = findings
        self._centres: dict[str, list[Centre]] = {}
        self._temporaries = Temporaries()
        self._rows: dict[_Where, _Rows] = {}
        # What the last block's memory is for, and that memory.
        self._gathered: tuple[Hashable, Gathered] | None = None

    def prepare(self, sites: Sequence[Site], views: Sequence[View], num_images: int, *, device: torch.device) -> None:
        """Give every metric its tables, once the sites are known."""
        self._shapes = {site.name: site.shape for site in sites}
        readouts = [readout for site in sites for readout in readouts_of(site)]
        extra = [] if any(metric is self._ledger for metric in self._given) else [self._ledger]
        for metric in (*self._given, *extra):
            concerned = [readout for readout in readouts if metric.applies_to(readout.site)]
            if not concerned:
                reason = _why_nowhere(metric, sites)
                if self._default_set:
                    self._findings.facts.setdefault("metrics_left_out", {})[metric.name] = reason
                else:
                    self._findings.metric_left_out(metric.name, reason, of_output=metric.scope == "output")
                continue
            prepared = metric.prepare(views, [readout.site.name for readout in concerned], num_images, device=device)
            self.metrics[metric.name] = prepared
            for readout in concerned:
                readout.metrics.append(prepared)
        for site in sites:
            used = [readout for readout in readouts if readout.metrics and readout.site.index == site.index]
            if used:
                self.readouts[site.name] = [part for readout in used for part in split_by_views(readout)]

    def choose_precision(self, activations: Mapping[str, Tensor]) -> None:
        """Have those readouts averaged in float64 that would lose digits in float32, which takes less time."""
        lost = {
            (name, number): share
            for name, readouts in self.readouts.items()
            for number, readout in enumerate(readouts)
            if (share := readout.loses(activations[name])) is not None
        }
        shares = torch.stack([share.cpu() for share in lost.values()]).tolist() if lost else []
        for (name, number), share in zip(lost, shares, strict=True):
            if share > _MOST_LOST:
                self.readouts[name][number] = replace(self.readouts[name][number], is_wide=True)

    def centre_on(self, blocks: Iterable[Clean]) -> None:
        """Take mean and between-image distance from these blocks, for all that follow; one block is held at a time."""
        centres = {name: [MeanOfBlocks() for _ in readouts] for name, readouts in self.readouts.items()}
        for block in blocks:
            for name, entries in block.items():
                for centre, entry in zip(centres[name], entries, strict=True):
                    centre.add(entry)
        self._centres = {name: [centre.value() for centre in found] for name, found in centres.items()}

    def asks_for_stripes(self, image_size: tuple[int, int]) -> bool:
        """Whether some metric is to be shown images with stripes."""
        readouts = [readout for layer in self.readouts.values() for readout in layer]
        return any(_asks(metric, readout.site, image_size) for readout in readouts for metric in readout.metrics)

    def calibrate(
        self,
        clean: Mapping[str, Tensor],
        flipped: Mapping[str, Tensor],
        striped: Mapping[str, Tensor],
        image_size: tuple[int, int],
    ) -> None:
        """Show activations of the first block, mirrored and with stripes, to the metrics that ask for them."""
        for name, readouts in self.readouts.items():
            for readout in readouts:
                for metric in readout.metrics:
                    if metric.calibrates and name in flipped:
                        pair = readout.take(clean[name]), readout.take(flipped[name])
                        more = {}
                        if name in striped and _asks(metric, readout.site, image_size):
                            more["striped"] = readout.take(striped[name])
                        metric.calibrate(readout.site, *pair, image_size=image_size, **more)

    def clean(self, activations: Mapping[str, Tensor]) -> Clean:
        """The clean activations of a whole block, read and centred; they may be written to."""
        clean: Clean = {}
        for name, readouts in self.readouts.items():
            if name in activations:
                centres: Sequence[Centre | None] = self._centres.get(name) or [None] * len(readouts)
                # Readouts of one site differ in who wants them only.
                entries: dict[Site, CleanBlock] = {}
                for readout, centre in zip(readouts, centres, strict=True):
                    if readout.site not in entries:
                        taken = readout.take(activations[name])
                        entries[readout.site] = CleanBlock(
                            taken, centre=centre, owned=True, temporaries=self._temporaries
                        )
                clean[name] = [entries[readout.site] for readout in readouts]
        mask_non_finite(entry for entries in clean.values() for entry in entries)
        return clean

    def views(self, block: Block, clean: Clean, views: Sequence[View], *, at_once: int = 1) -> Views:
        """A block that is to be seen under some views, so many in one pass, and who wants to see what of it."""
        ids = (block.ids.start, block.ids.stop)
        kept: dict[str, list[Reading]] = {name: [] for name in clean}
        fed: dict[str, list[Reading]] = {}
        for name, entries in clean.items():
            for number, (readout, entry) in enumerate(zip(self.readouts[name], entries, strict=True)):
                metrics = [metric for metric in readout.metrics if metric.wants(ids)]
                if metrics:
                    reading = Reading((name, number), readout, entry, metrics)
                    (kept[name] if reading.is_kept else fed.setdefault(name, [])).append(reading)
        return Views(block, kept, fed, views, self._gathering(kept, len(block), len(views), at_once))

    def _gathering(
        self, kept: Mapping[str, Sequence[Reading]], num_images: int, num_views: int, at_once: int
    ) -> Gathered:
        """Memory for what is kept of a block; the last block's, where it will do."""
        readings = [reading for layer in kept.values() for reading in layer]
        kind = (num_images, num_views, at_once, [(reading.key, reading.clean.activation.dtype) for reading in readings])
        if self._gathered is None or self._gathered[0] != kind:
            templates = {reading.key: reading.templates() for reading in readings}
            view_bytes = sum(tensor.nbytes for tensors in templates.values() for tensor in tensors)
            enough = min(num_views, max(1, MOST_GATHERED_BYTES // max(1, view_bytes)))
            # The pass that fills them up may bring more than the last one.
            num_slots = enough + at_once - 1
            memory = {
                key: tuple(Scratch().rows(num_slots, tensor) for tensor in tensors)
                for key, tensors in templates.items()
            }
            self._gathered = kind, Gathered(memory, enough)
        return self._gathered[1]

    def sink(self, views: Views, segment: Segment) -> Callable[[str, Tensor], None]:
        """What measures the forward pass of a segment, layer by layer."""
        gathered, shapes, fed = views.gathered, self._shapes, views.fed
        came = gathered.coming(segment)
        # All memory is cold in a hook, so that little should be left to do there.
        kept = {
            name: [
                pair
                for reading in readings
                for pair in zip(reading.writers(segment.rows), gathered.slots(reading.key, segment), strict=True)
            ]
            for name, readings in views.kept.items()
        }
        told = [self._told(views, part) for part in segment.by_view()] if fed else []

        def measure(name: str, activation: Tensor) -> None:
            if activation.shape[1:] != shapes[name]:
                raise ValueError(
                    f"layer {name!r} gave {tuple(activation.shape[1:])} for each image under a view, and "
                    f"{shapes[name]} without; activations can only be compared at one size: leave it out"
                )
            wide = upcast(activation)
            for write, slot in kept.get(name, ()):
                write(wide, slot)
            for reading in fed.get(name, ()):
                for piece, (common, rows) in zip(torch.split(wide, segment.num_images), told, strict=True):
                    _feed(reading, reading.readout.take(piece), common, rows)
            came.add(name)

        return measure

    def finish(self, views: Views) -> None:
        """Measure what was gathered of a block's views, whose rows are all there."""
        readings = {reading.key: reading for layer in views.kept.values() for reading in layer}
        gathered = [(readings[key], first, kept) for key, first, kept in views.gathered.emptied()]
        for reading, _, kept in gathered:
            reading.readout.settle(kept[0])
        movements = _movements_together(gathered)
        for reading, first, kept in gathered:
            seen = Segment(range(first, first + len(kept[0])), slice(0, len(views.block)))
            common, rows = self._told(views, seen)
            augmented = kept[0].flatten(0, 1)
            if reading.readout.distances:
                known = [sum_of_squares(norms).flatten() for norms in kept]
                common |= zip(reading.readout.distances, known, strict=True)
                augmented = augmented.new_empty(0)
            common["movements"] = movements.get((reading.key, first))
            _feed(reading, augmented, common, rows)
        self.write()

    def write(self) -> None:
        """Write what has been measured since the last time, each metric and view in one go."""
        for (views, ids), rows in self._rows.items():
            for name, (measured, valid) in rows.items():
                masks = [mask for mask in valid if mask is not None]
                if masks:
                    everything = torch.ones_like(masks[0])
                    masks = [everything if mask is None else mask for mask in valid]
                self.metrics[name].write(measured, views, ids, torch.stack(masks) if masks else None)
        self._rows.clear()

    def tables(self) -> dict[str, MetricTable]:
        """The estimates of all metrics but the engine's own."""
        measured = [self.metrics[metric.name] for metric in self._given if metric.name in self.metrics]
        return {metric.name: self._table(metric) for metric in measured}

    def note_ledger(self, image_ids: Sequence[int]) -> None:
        """Note which activations were not finite and which layers are dead."""
        ledger = self.metrics[self._ledger.name]
        if isinstance(ledger, Ledger):
            self._findings.non_finite(ledger.non_finite().cpu(), ledger.layers, image_ids)
            self._findings.dead([ledger.layers[column] for column in ledger.dead().nonzero().flatten().tolist()])

    def _told(self, views: Views, segment: Segment) -> tuple[dict[str, Any], _Rows]:
        """What metrics are told of every layer of a segment, and where its rows are kept until they are written."""
        rows, block, first, num_views = segment.rows, views.block, segment.views.start, len(segment.views)
        alone = num_views == 1
        labels = None if block.labels is None else block.labels[rows]
        matrix, through = (found[first] if alone else None for found in (views.matrices, views.through))
        ids = (block.ids.start + rows.start, block.ids.start + rows.stop)
        common = {
            "rows": rows,
            "ids": ids,
            "view_index": first,
            "num_views": num_views,
            "view": views.views[first] if alone else None,
            "labels": labels.repeat(num_views) if labels is not None and labels.ndim == 1 and not alone else labels,
            "matrix": None if matrix is None else matrix[rows],
            "through": None if through is None else through[rows],
            "image_size": tuple(block.images[0].shape[-2:]),
            "temporaries": self._temporaries,
        }
        return common, self._rows.setdefault(((first, first + num_views), ids), {})

    def _table(self, metric: ProbeMetric) -> MetricTable:
        value, std_error, num_images = estimate = metric.estimates()
        for sentence in metric.remarks(estimate, metric.layers):
            self._findings.warn(sentence)
        return MetricTable(
            metric.layers, value, std_error, num_images, (metric.filled > 0).any(-1), metric.influences()
        )


def _asks(metric: ProbeMetric, site: Site, image_size: tuple[int, int]) -> bool:
    return metric.calibrates and metric.asks_for_stripes(site, image_size)


def _why_nowhere(metric: ProbeMetric, sites: Sequence[Site]) -> str:
    """Why a metric applies to none of these: what it needs, and what the output has where it is one of outputs."""
    reason = f"this metric applies to none of [{listed([repr(site.name) for site in sites])}]"
    if metric.needs:
        reason += f"; it needs {metric.needs}"
    for site in sites:
        if site.kind == "output" and metric.scope == "output":
            labels = "no labels" if site.label_shape is None else f"labels {of_images(site.label_shape)}"
            reason += f"; here are class scores {of_images(site.shape)} and {labels}"
    return reason


def _movements_together(
    gathered: Iterable[tuple[Reading, int, Sequence[Tensor]]],
) -> dict[tuple[tuple[str, int], int], tuple[Movements, int]]:
    """By a pooled reading's key and first view, the movements of the layers of its width, and its place among them."""
    alike: dict[Hashable, list[tuple[Reading, int, Tensor]]] = {}
    for reading, first, (pooled, *_) in gathered:
        if reading.readout.site.representation == "pooled":
            alike.setdefault((pooled.shape, pooled.dtype, pooled.device), []).append((reading, first, pooled))
    found: dict[tuple[tuple[str, int], int], tuple[Movements, int]] = {}
    for layers in alike.values():
        # Their temporaries should stay in a processor's cache.
        for part in slices(len(layers), max(1, _MOST_TOGETHER // max(1, layers[0][2].numel()))):
            movements = Movements([reading.clean for reading, *_ in layers[part]], [rows for *_, rows in layers[part]])
            found |= {(reading.key, first): (movements, n) for n, (reading, first, _) in enumerate(layers[part])}
    return found


def _feed(reading: Reading, augmented: Tensor, common: Mapping[str, Any], rows: _Rows) -> None:
    about = About.sharing(common, augmented=augmented, block=reading.clean, site=reading.readout.site)
    for metric in reading.metrics:
        values = metric.measure(about.clean_rows if metric.merges_views else about.clean, augmented, about)
        if values:
            measured, valid = rows.setdefault(metric.name, ({}, []))
            measured[about.layer] = values
            valid.append(None if reading.clean.num_valid == reading.clean.valid.shape[0] else about.valid)
