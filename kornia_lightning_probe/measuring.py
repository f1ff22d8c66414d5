"""Feeds metrics: from the activations of a forward pass to rows in their tables, and from tables to estimates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


@dataclass
class Views:
    """A block under some views.

    Args:
        block: the clean block, on the model's device.
        clean: its clean activations, by layer and readout.
        views: the bank's views.
        matrices: by the number of a view, its (B, 3, 3) pixel matrices, or None; filled as views are drawn.
    """

    block: Block
    clean: Clean
    views: Sequence[View]
    matrices: dict[int, Tensor | None] = field(default_factory=dict)


class Measuring:
    """The metrics of one probe, and what they are to be told.

    Args:
        metrics: as the user gave them.
        findings: where remarks and what is left out go.

    Attributes:
        metrics: the prepared copies, by name.
        readouts: by layer, the ways in which it is read.
    """

    def __init__(self, metrics: Sequence[ProbeMetric], findings: Findings) -> None:
        ledgers = [metric for metric in metrics if isinstance(metric, Ledger)]
        self.metrics: dict[str, ProbeMetric] = {}
        self.readouts: dict[str, list[Readout]] = {}
        self._given = metrics
        self._ledger = next((metric for metric in ledgers if metric.representation == "activation"), Ledger())
        self._findings = findings
        self._centres: dict[str, list[Centre]] = {}
        self._scratch = Scratch()
        # By the metric's name: a torchmetrics.Metric hashes all of its states.
        self._rows: dict[tuple[str, int, tuple[int, int]], dict[str, Mapping[str, Tensor]]] = {}
        self._valid: dict[tuple[str, int, tuple[int, int]], list[Tensor]] = {}
        self._parts: dict[tuple[Site, int], list[Tensor]] = {}

    def prepare(self, sites: Sequence[Site], views: Sequence[View], num_images: int, *, device: torch.device) -> None:
        """Give every metric its tables, once the sites are known."""
        readouts = [readout for site in sites for readout in readouts_of(site)]
        extra = [] if any(metric is self._ledger for metric in self._given) else [self._ledger]
        for metric in (*self._given, *extra):
            concerned = [readout for readout in readouts if metric.applies_to(readout.site)]
            if not concerned:
                self._findings.leave_out(metric.name, f"this metric applies to none of {[site.name for site in sites]}")
                continue
            prepared = metric.prepare(views, [readout.site.name for readout in concerned], num_images, device=device)
            self.metrics[metric.name] = prepared
            for readout in concerned:
                readout.metrics.append(prepared)
        for site in sites:
            used = [readout for readout in readouts if readout.metrics and readout.site.index == site.index]
            if used:
                self.readouts[site.name] = used

    def centre_on(self, blocks: Sequence[Clean]) -> None:
        """Take mean and between-image distance from these blocks, for all that follow."""
        for name in self.readouts:
            parts = zip(*(block[name] for block in blocks if name in block), strict=True)
            self._centres[name] = [Centre.of(entries) for entries in parts]

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
            wide = upcast(part)
            for readout, entry in zip(self.readouts[name], views.clean[name], strict=True):
                taken, place = readout.take(wide), segment
                if readout.whole:
                    taken, place = self._gather(readout.site, segment, taken, len(views.block))
                if len(place):
                    about = self._about(readout.site, taken, entry, views, place)
                    for metric in readout.metrics:
                        self._add(metric, about)

    def write(self) -> None:
        """Write what has been measured since the last time, each metric and view in one go."""
        for key, measured in self._rows.items():
            name, view, ids = key
            self.metrics[name].write(measured, view, ids, torch.stack(self._valid[key]))
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

    def _gather(self, site: Site, segment: Segment, part: Tensor, num_rows: int) -> tuple[Tensor, Segment]:
        """The whole block where this part is its last; until then a segment of no rows."""
        if len(segment) == num_rows:
            return part, segment
        parts = self._parts.setdefault((site, segment.view), [])
        parts.append(part)
        if segment.rows.stop < num_rows:
            return part, Segment(segment.view, slice(0, 0))
        return torch.cat(self._parts.pop((site, segment.view))), Segment(segment.view, slice(0, num_rows))

    def _about(self, site: Site, augmented: Tensor, clean: CleanBlock, views: Views, segment: Segment) -> About:
        rows, block, matrix = segment.rows, views.block, views.matrices[segment.view]
        height, width = block.images[0].shape[-2:]
        return About(
            augmented=augmented,
            block=clean,
            rows=rows,
            ids=(block.ids.start + rows.start, block.ids.start + rows.stop),
            site=site,
            view_index=segment.view,
            view=views.views[segment.view],
            labels=None if block.labels is None else block.labels[rows],
            matrix=None if matrix is None else matrix[rows],
            image_size=(height, width),
            scratch=self._scratch,
        )

    def _add(self, metric: ProbeMetric, about: About) -> None:
        values = metric.measure(about.clean, about.augmented, about)
        if values:
            key = (metric.name, about.view_index, about.ids)
            self._rows.setdefault(key, {})[about.layer] = values
            self._valid.setdefault(key, []).append(about.valid)

    def _table(self, metric: ProbeMetric) -> MetricTable:
        value, std_error, num_images = estimate = metric.estimates()
        for sentence in metric.remarks(estimate, metric.layers):
            self._findings.warn(sentence)
        return MetricTable(metric.layers, value, std_error, num_images, (metric.filled > 0).any(-1))
