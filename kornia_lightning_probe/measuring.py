"""Feeds metrics: from the activations of a forward pass to rows in their tables, and from tables to estimates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kornia_lightning_probe.bank import View
from kornia_lightning_probe.findings import Findings
from kornia_lightning_probe.functional import upcast
from kornia_lightning_probe.images import Block
from kornia_lightning_probe.metrics import (
    About,
    Centre,
    CleanBlock,
    Ledger,
    MeanOfBlocks,
    ProbeMetric,
    Readout,
    Scratch,
    Site,
    mask_non_finite,
    readouts_of,
)
from kornia_lightning_probe.result import MetricTable
from kornia_lightning_probe.schedule import Segment

Clean = dict[str, list[CleanBlock]]
# A metric's name, its views and its images, both as (start, stop).
_Rows = tuple[str, tuple[int, int], tuple[int, int]]


@dataclass
class Views:
    """A block under some views.

    Args:
        block: the clean block, on the model's device.
        clean: its clean activations, by layer and readout.
        views: the bank's views.
        matrices: by the number of a view, its (B, 3, 3) pixel matrices, or None; filled as views are drawn.
        through: by the number of a view, the matrices on the way of a chain, or None.
        metrics: by layer and number of the readout, those that want this block; filled as layers come.
    """

    block: Block
    clean: Clean
    views: Sequence[View]
    matrices: dict[int, Tensor | None] = field(default_factory=dict)
    through: dict[int, Tensor | None] = field(default_factory=dict)
    metrics: dict[tuple[str, int], list[ProbeMetric]] = field(default_factory=dict)


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
        self._default_set = default_set
        self._ledger = next((metric for metric in ledgers if metric.representation == "activation"), Ledger())
        self._findings = findings
        self._centres: dict[str, list[Centre]] = {}
        self._scratch = Scratch()
        # By the metric's name: a torchmetrics.Metric hashes all of its states.
        self._rows: dict[_Rows, dict[str, Mapping[str, Tensor]]] = {}
        self._valid: dict[_Rows, list[Tensor]] = {}
        self._gathered: dict[tuple[str, int], list[tuple[Segment, Tensor]]] = {}

    def prepare(self, sites: Sequence[Site], views: Sequence[View], num_images: int, *, device: torch.device) -> None:
        """Give every metric its tables, once the sites are known."""
        readouts = [readout for site in sites for readout in readouts_of(site)]
        extra = [] if any(metric is self._ledger for metric in self._given) else [self._ledger]
        for metric in (*self._given, *extra):
            concerned = [readout for readout in readouts if metric.applies_to(readout.site)]
            if not concerned:
                needs = f"; it needs {metric.needs}" if metric.needs else ""
                reason = f"this metric applies to none of {[site.name for site in sites]}{needs}"
                if self._default_set:
                    self._findings.facts.setdefault("metrics_left_out", {})[metric.name] = reason
                else:
                    self._findings.leave_out(metric.name, reason)
                continue
            prepared = metric.prepare(views, [readout.site.name for readout in concerned], num_images, device=device)
            self.metrics[metric.name] = prepared
            for readout in concerned:
                readout.metrics.append(prepared)
        for site in sites:
            used = [readout for readout in readouts if readout.metrics and readout.site.index == site.index]
            if used:
                self.readouts[site.name] = used

    def centre_on(self, blocks: Iterable[Clean]) -> None:
        """Take mean and between-image distance from these blocks, for all that follow; one block is held at a time."""
        centres = {name: [MeanOfBlocks() for _ in readouts] for name, readouts in self.readouts.items()}
        for block in blocks:
            for name, entries in block.items():
                for centre, entry in zip(centres[name], entries, strict=True):
                    centre.add(entry)
        self._centres = {name: [centre.value() for centre in found] for name, found in centres.items()}

    def calibrate(self, clean: Mapping[str, Tensor], flipped: Mapping[str, Tensor], size: tuple[int, int]) -> None:
        """Show the first block and its mirror images to the metrics that ask for them."""
        for name, readouts in self.readouts.items():
            for readout in readouts:
                for metric in readout.metrics:
                    if metric.calibrates and name in flipped:
                        pair = readout.take(clean[name]), readout.take(flipped[name])
                        metric.calibrate(readout.site, *pair, image_size=size)

    def clean(self, activations: Mapping[str, Tensor]) -> Clean:
        """The clean activations of a whole block, read and centred; they may be written to."""
        clean: Clean = {}
        for name, readouts in self.readouts.items():
            if name in activations:
                centres = self._centres.get(name, [])
                clean[name] = [
                    CleanBlock(
                        readout.take(activations[name]),
                        centre=centres[number] if centres else None,
                        owned=True,
                        scratch=self._scratch,
                    )
                    for number, readout in enumerate(readouts)
                ]
        mask_non_finite(entry for entries in clean.values() for entry in entries)
        return clean

    def measure(self, views: Views, segments: Sequence[Segment], name: str, activation: Tensor) -> None:
        """Measure one layer's augmented activation, which is that of ``segments`` behind each other."""
        parts = torch.split(activation, [len(segment) for segment in segments]) if len(segments) > 1 else [activation]
        for segment, part in zip(segments, parts, strict=True):
            wide, clean = upcast(part), views.clean[name]
            for number, readout in enumerate(self.readouts[name]):
                taken, entry = readout.take(wide), clean[number]
                if readout.whole:
                    self._gathered.setdefault((name, number), []).append((segment, taken))
                else:
                    self._feed(
                        self._wanting(views, name, number), self._about(readout.site, taken, entry, views, segment)
                    )

    def finish(self, views: Views) -> None:
        """Measure what was gathered of a block's views, whose rows are all there."""
        for (name, number), parts in self._gathered.items():
            numbers = [segment.view for segment, _ in parts if segment.rows.start == 0]
            rows = torch.cat([taken for _, taken in parts])
            readout, entry = self.readouts[name][number], views.clean[name][number]
            whole = Segment(numbers[0], slice(0, len(views.block)))
            about = self._about(readout.site, rows, entry, views, whole, len(numbers))
            self._feed(self._wanting(views, name, number), about)
        self._gathered.clear()
        self.write()

    def write(self) -> None:
        """Write what has been measured since the last time, each metric and view in one go."""
        for key, measured in self._rows.items():
            name, views, ids = key
            self.metrics[name].write(measured, views, ids, torch.stack(self._valid[key]))
        self._rows.clear()
        self._valid.clear()

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

    def _about(
        self, site: Site, augmented: Tensor, clean: CleanBlock, views: Views, segment: Segment, num_views: int = 1
    ) -> About:
        rows, block = segment.rows, views.block
        matrix, through = (found[segment.view] if num_views == 1 else None for found in (views.matrices, views.through))
        height, width = block.images[0].shape[-2:]
        return About(
            augmented=augmented,
            block=clean,
            rows=rows,
            ids=(block.ids.start + rows.start, block.ids.start + rows.stop),
            site=site,
            view_index=segment.view,
            num_views=num_views,
            view=views.views[segment.view] if num_views == 1 else None,
            labels=None if block.labels is None else block.labels[rows],
            matrix=None if matrix is None else matrix[rows],
            through=None if through is None else through[rows],
            image_size=(height, width),
            scratch=self._scratch,
        )

    def _wanting(self, views: Views, name: str, number: int) -> list[ProbeMetric]:
        key = (name, number)
        if key not in views.metrics:
            ids = (views.block.ids.start, views.block.ids.stop)
            views.metrics[key] = [metric for metric in self.readouts[name][number].metrics if metric.wants(ids)]
        return views.metrics[key]

    def _feed(self, metrics: Sequence[ProbeMetric], about: About) -> None:
        for metric in metrics:
            values = metric.measure(about.clean, about.augmented, about)
            if values:
                key = (metric.name, (about.view_index, about.view_index + about.num_views), about.ids)
                self._rows.setdefault(key, {})[about.layer] = values
                self._valid.setdefault(key, []).append(about.valid)

    def _table(self, metric: ProbeMetric) -> MetricTable:
        value, std_error, num_images = estimate = metric.estimates()
        for sentence in metric.remarks(estimate, metric.layers):
            self._findings.warn(sentence)
        return MetricTable(
            metric.layers, value, std_error, num_images, (metric.filled > 0).any(-1), metric.influences()
        )
