"""The visitor that compares each block under every view of a bank with its clean self, and the probe that it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from kornia_lightning_probe.activations.about import Shown
from kornia_lightning_probe.activations.clean import CleanBlock
from kornia_lightning_probe.activations.site import INPUT, OUTPUT
from kornia_lightning_probe.bank.bank import AugmentationBank
from kornia_lightning_probe.engine.loop import Route, run_loop
from kornia_lightning_probe.engine.memory import PassSize
from kornia_lightning_probe.engine.notes import Findings
from kornia_lightning_probe.engine.passes import Passes
from kornia_lightning_probe.engine.probe_set import ProbeSet, require_finite
from kornia_lightning_probe.engine.processes import World
from kornia_lightning_probe.engine.scout import Scouted
from kornia_lightning_probe.engine.segments import Segment, slices, view_groups
from kornia_lightning_probe.engine.sighting import FirstLooks
from kornia_lightning_probe.engine.under_views.cleaning import Clean, Cleaning
from kornia_lightning_probe.engine.under_views.drawing import Views, view_info
from kornia_lightning_probe.engine.under_views.feeding import Feed, Slots
from kornia_lightning_probe.engine.under_views.imagewise import image_scores
from kornia_lightning_probe.engine.under_views.keeping import KeptViews
from kornia_lightning_probe.engine.under_views.labels import note_unused_labels
from kornia_lightning_probe.engine.under_views.preparing import Prepared, prepare
from kornia_lightning_probe.engine.under_views.readings import Reading, Rows
from kornia_lightning_probe.engine.under_views.worst import with_worst
from kornia_lightning_probe.functional.memory import Temporaries
from kornia_lightning_probe.images.blocks import Block
from kornia_lightning_probe.images.nested import map_tensors
from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.metrics.base import ProbeMetric
from kornia_lightning_probe.model.subject import Subject
from kornia_lightning_probe.results.lookup import ProbeNumbers
from kornia_lightning_probe.results.tables import MetricTable


@dataclass(frozen=True)
class Plan:
    """What a probe does beside the model.

    Args:
        images: the probe images, with the blocks of this process.
        bank: the views.
        metrics: what is measured.
        default_set: whether these are what nobody asked for in particular; one that applies nowhere is then no news.
        reference: images that supply mean and between-image distance; None takes each block's own.
        size: how many images go into one forward pass; it splits a block, or merges views of it.
        seed: of the random stream that a forward pass finds, for models that draw in eval mode.
        progress: whether to show a bar.
        world: the other processes.
        looks: what has been seen of the model, of these images, before.
        kept: the views of these images that have been drawn before.
    """

    images: ProbeImages
    bank: AugmentationBank
    metrics: Sequence[ProbeMetric]
    default_set: bool = False
    reference: ProbeImages | None = None
    size: PassSize = field(default_factory=PassSize)
    seed: int = 0
    progress: bool = False
    world: World = field(default_factory=World)
    looks: FirstLooks = field(default_factory=FirstLooks)
    kept: KeptViews = field(default_factory=KeptViews)


def run_probe(subject: Subject, plan: Plan, *, epoch: int = 0, step: int = 0) -> ProbeNumbers:
    """Measure a model's layers under every view of a bank.

    Args:
        subject: the model under probe.
        plan: on which images, under which views, by which metrics.
        epoch: when the result is made, as it will say.
        step: likewise.

    Returns:
        The numbers, the same on every process; ``metadata["warnings"]`` holds what a caller should say aloud.

    Raises:
        ValueError: for images outside of the bank's range, a layer that was named exactly and gave no activation, an
            unknown embedding, or an augmentation that changes the size of images.
        RuntimeError: where another process has failed or sees different layers, or the model changes its parameters.
    """
    findings = Findings()
    visitor = UnderViews(plan, findings, device=subject.device)
    route = Route(
        plan.images,
        size=plan.size,
        seed=plan.seed,
        progress=plan.progress,
        world=plan.world,
        looks=plan.looks,
        asks_for_scores=visitor.wants_scores and not plan.default_set,
    )
    try:
        run_loop(subject, route, visitor, findings)
        numbers = visitor.numbers(epoch=epoch, step=step)
    finally:
        visitor.let_go()
    return with_worst(numbers, plan.images, plan.bank, plan.world, device=subject.device, kept=plan.kept)


class UnderViews:
    """Draws each view of a block, runs the model on it, and has metrics compare what its layers put out.

    Args:
        plan: the views and the metrics.
        findings: where it is noted what is not in the result.
        device: where the model is.
    """

    def __init__(self, plan: Plan, findings: Findings, *, device: torch.device) -> None:
        self.wants_scores = any(metric.scope == "output" or metric.reads_scores for metric in plan.metrics)
        self._plan = plan
        self._findings = findings
        self._device = device
        twins = any(metric.reads_twins for metric in plan.metrics)
        self._views = Views(plan.bank, plan.images, twins=twins, kept=plan.kept)
        self._set = ProbeSet(plan.images)
        self._prepared, self._rows = Prepared(), Rows()
        self._temporaries = Temporaries()
        self._cleaning = Cleaning({}, self._temporaries)
        self._slots: tuple[object, Slots] | None = None
        self._first: Clean = {}
        self._dropped: frozenset[str] = frozenset()
        # Layers whose means over cells hold rounding only.
        self._nothing: list[str] = []

    def opening_passes(self, num_images: int, size: int) -> int:  # noqa: ARG002 - for all visitors
        """The reference's."""
        if self._plan.reference is None:
            return 0
        return sum(len(slices(len(block), size)) for block in self._plan.reference.deal)

    def block_passes(self, num_images: int, size: int) -> int:
        """All views and their twins."""
        groups = view_groups(len(self._views.all), num_images, size)
        return len(slices(num_images, size)) * len(groups)

    def check(self) -> None:
        """Refuse images that no bank can work on, before the model runs."""
        for name, why in self._plan.bank.left_out.items():
            self._findings.leave_out(name, why)
        for images in (self._plan.images, self._plan.reference):
            if images is not None:
                require_finite(images)
                for block in (images.scout, *images.blocks):
                    for entry in block.images:
                        self._plan.bank.check(entry)
        self._views.doubt(self._plan.images.scout, self._findings)

    def open(self, scouted: Scouted, passes: Passes) -> None:
        """Prepare the metrics, and read the first block."""
        plan, block = self._plan, scouted.block
        self._prepared = prepare(
            plan.metrics,
            scouted.sites,
            self._views.all,
            plan.images.num_images,
            device=self._device,
            findings=self._findings,
            default_set=plan.default_set,
            image_ids=plan.images.image_ids,
            blocks=plan.images.deal,
        )
        self._nothing = self._prepared.choose_precision(scouted.activations, scouted.dtypes)
        self._findings.nothing_but_rounding(self._nothing)
        note_unused_labels(plan.images, block, scouted.sites, findings=self._findings, default_set=plan.default_set)
        self._views.seen.zero_()
        self._cleaning = Cleaning(self._prepared.readers, self._temporaries)
        if plan.reference is not None:
            blocks = (passes.keep_clean(other.to(self._device)) for other in plan.reference.blocks)
            self._cleaning.centre_on(blocks)
        self._first = self._cleaning.read(scouted.activations)
        clean_bytes = sum(entries[0].activation.nbytes for entries in self._first.values())
        self._findings.facts["clean_block_bytes"] = clean_bytes

    def see(self, block: Block, clean: Mapping[str, Tensor], passes: Passes) -> None:
        """Compare a block under every view with its clean self."""
        entries = self._first if block.index == 0 else self._cleaning.read(clean)
        readings = self._readings(block, entries)
        size = passes.size(len(block))
        groups = view_groups(len(self._views.all), len(block), size)
        height, width = block.images[0].shape[-2:]
        shown = Shown(
            ids=(block.ids.start, block.ids.stop),
            rows=slice(0, len(block)),
            labels=block.labels,
            image_size=(height, width),
            temporaries=self._temporaries,
        )
        slots = self._slots_for(readings, len(block), at_once=len(groups[0]))
        feed = Feed(readings, shown, slots=slots, rows=self._rows)
        for group in groups:
            views, inputs = self._views.draw(block, shown, group)
            draw = self._views.all[group.start].label
            for rows in slices(len(block), size):
                segment = Segment(group, rows)
                is_whole = segment.num_images == len(block)
                cut = inputs
                if not is_whole:
                    # Of what is no row each pass gets a copy, too, since a model may write into it.
                    cut = map_tensors(block.rows(rows.start, rows.stop, inputs=inputs), torch.clone)
                sink = feed.sink(segment, [_some_rows(view, rows) for view in views])
                passes.run(block, cut, sink, draw=draw, num_rows=len(segment))
                self._rows.write(self._prepared.metrics)
            if feed.is_full:
                feed.finish()
        feed.finish()
        self._rows.write(self._prepared.metrics)

    def tables(self) -> list[Tensor]:
        """The metrics' tables, and what was seen of the views and of the images."""
        tables = [table for metric in self._prepared.metrics.values() for table in (metric.table, metric.filled)]
        return [*tables, self._views.seen, self._set.seen]

    def drop(self, layers: Sequence[str]) -> None:
        """Leave out layers that can't be compared after all."""
        for layer in layers:
            self._prepared.readers.pop(layer, None)
        self._dropped = frozenset(layers)

    def numbers(self, *, epoch: int, step: int) -> ProbeNumbers:
        """What was found, once all processes have been summed."""
        plan, findings = self._plan, self._findings
        findings.facts["bank"] = plan.bank.describe()
        ledger = self._prepared.ledger
        findings.non_finite(ledger.non_finite().cpu(), ledger.layers, plan.images.image_ids)
        dead = [ledger.layers[column] for column in ledger.dead().nonzero().flatten().tolist()]
        findings.dead([layer for layer in dead if layer not in self._nothing])
        findings.missing(self._missing())
        self._set.note(findings)
        self._views.note(findings)
        tables = self._metric_tables()
        without = [name for name, table in tables.items() if table.influence is None]
        if without:
            findings.facts["metrics_without_influence"] = without
        return ProbeNumbers(
            layers=[name for name in self._prepared.readers if name not in (INPUT, OUTPUT)],
            views=[view_info(view) for view in plan.bank],
            tables=tables,
            epoch=epoch,
            step=step,
            metadata=findings.metadata(),
            images=image_scores(ledger, plan.bank.views, self._set.labels(), without=self._dropped),
        )

    def let_go(self) -> None:
        """Free the tables, and what was kept of the last block."""
        for metric in self._prepared.metrics.values():
            metric.let_go()
        self._prepared, self._rows, self._slots, self._first = Prepared(), Rows(), None, {}
        self._views.let_go()
        self._temporaries = Temporaries()
        self._cleaning = Cleaning({}, self._temporaries)

    def _readings(self, block: Block, clean: Mapping[str, Sequence[CleanBlock]]) -> dict[str, list[Reading]]:
        """Who wants to see what of this block."""
        ids = (block.ids.start, block.ids.stop)
        readings: dict[str, list[Reading]] = {name: [] for name in clean}
        number = 0
        for name, entries in clean.items():
            for reader, entry in zip(self._prepared.readers[name], entries, strict=True):
                wishes = tuple(wish for wish in reader.wishes if wish.metric.wants_block(ids))
                if wishes:
                    readings[name].append(Reading(number, reader, entry, wishes))
                    number += 1
        return readings

    def _slots_for(self, readings: Mapping[str, Sequence[Reading]], num_images: int, *, at_once: int) -> Slots:
        """Memory for what is kept of a block; the last block's, where it will do."""
        kept = [reading for layer in readings.values() for reading in layer if reading.reader.kind != "view"]
        places = [(reading.number, reading.reader.layer, reading.clean.activation.dtype) for reading in kept]
        kind = (num_images, at_once, places)
        if self._slots is None or self._slots[0] != kind:
            templates = {reading.number: reading.templates() for reading in kept}
            self._slots = kind, Slots(templates, len(self._views.all), at_once)
        return self._slots[1]

    def _metric_tables(self) -> dict[str, MetricTable]:
        """The estimates of all metrics but the engine's own."""
        tables: dict[str, MetricTable] = {}
        for given in self._plan.metrics:
            metric = self._prepared.metrics.get(given.name)
            if metric is None:
                continue
            estimate = metric.estimates()
            remarks = metric.remarks(estimate, metric.layers)
            self._findings.remarks(
                metric.name, remarks, is_news=not self._plan.default_set or bool(estimate.num_images.any())
            )
            table = MetricTable(
                metric.layers,
                estimate.value,
                estimate.std_error,
                estimate.num_images,
                (metric.filled > 0).any(-1)[: len(self._plan.bank)],
                estimate.influence,
                metric.quantity,
            )
            tables[metric.name] = table.without(self._dropped)
            self._findings.facts.update(metric.facts(self._prepared.sites))
        return tables

    def _missing(self) -> dict[str, float]:
        """Of layers that did not run in some blocks or views, the share of their cells."""
        ledger = self._prepared.ledger
        shares: dict[str, float] = {}
        for layer, filled in zip(ledger.layers, ledger.filled.unbind(1), strict=True):
            share = float((filled == 0).to(torch.float64).mean())
            if share > 0 and layer not in self._dropped:
                shares[layer] = share
        return shares


def _some_rows(shown: Shown, rows: slice) -> Shown:
    """The same view of some of the images."""
    if rows == shown.rows:
        return shown
    start = shown.ids[0]
    return replace(
        shown,
        ids=(start + rows.start, start + rows.stop),
        rows=rows,
        labels=None if shown.labels is None else shown.labels[rows],
        matrix=None if shown.matrix is None else shown.matrix[rows],
        through=None if shown.through is None else shown.through[rows],
    )
