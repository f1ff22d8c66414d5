"""The one loop over images and views, and the only place that runs the model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from kornia_lightning_probe.bank.bank import AugmentationBank
from kornia_lightning_probe.engine.notes import Findings
from kornia_lightning_probe.engine.passes import INPUT, OUTPUT, Passes, Subject, ignore
from kornia_lightning_probe.engine.processes import World
from kornia_lightning_probe.engine.segments import (
    CALIBRATED,
    STRIPED,
    Segment,
    count_passes,
    slices,
    view_groups,
)
from kornia_lightning_probe.engine.under_views import Clean, Measuring, Views
from kornia_lightning_probe.functional.calibration import FEWEST_STRIPES, with_stripes
from kornia_lightning_probe.functional.distances import accumulation_dtype, all_finite, squared_distance, upcast
from kornia_lightning_probe.images.blocks import Block
from kornia_lightning_probe.images.nested import join_rows
from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.metrics import ProbeMetric, Site
from kornia_lightning_probe.model.outputs import why_labels_do_not_fit
from kornia_lightning_probe.model.undisturbed import undisturbed
from kornia_lightning_probe.randomness import stable_seed
from kornia_lightning_probe.result import ProbeResult, ViewInfo
from kornia_lightning_probe.wording import listed

__all__ = ["INPUT", "OUTPUT", "Plan", "Subject", "World", "run_probe"]


@dataclass(frozen=True)
class Plan:
    """What a probe does beside the model.

    Args:
        images: the probe images, with the blocks of this process.
        bank: the views.
        metrics: what is measured.
        default_set: whether these are what nobody asked for in particular; one that applies nowhere is then no news.
        reference: images that supply mean and between-image distance; None takes each block's own.
        batch_size: at most so many images in one forward pass; it splits a block, or merges views of it.
        seed: of the random stream that a forward pass finds, for models that draw in eval mode.
        progress: whether to show a bar.
        world: the other processes.
    """

    images: ProbeImages
    bank: AugmentationBank
    metrics: Sequence[ProbeMetric]
    default_set: bool = False
    reference: ProbeImages | None = None
    batch_size: int = 32
    seed: int = 0
    progress: bool = False
    world: World = field(default_factory=World)


def run_probe(subject: Subject, plan: Plan, *, epoch: int = 0, step: int = 0) -> ProbeResult:
    """Measure a model's layers under every view of a bank.

    Args:
        subject: the model under probe.
        plan: on which images, under which views, by which metrics.
        epoch: when the result is made, as it will say.
        step: likewise.

    Returns:
        The result, the same on every process; ``metadata["warnings"]`` holds what a caller should say aloud.

    Raises:
        ValueError: for images outside of the bank's range, a layer that was named exactly and gave no activation, an
            unknown embedding, or an augmentation that changes the size of images.
        RuntimeError: where another process has failed or sees different layers.
    """
    if plan.batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {plan.batch_size}")
    with undisturbed(subject.model, device=subject.device):
        return _Probe(subject, plan).run(epoch, step)


# A matrix that differs from the identity by no more moves no pixel; rotation by 0 degrees leaves 1e-5.
_STILL = 1e-4


class _Probe:
    def __init__(self, subject: Subject, plan: Plan) -> None:
        self.plan, self.device = plan, subject.device
        self.findings = Findings()
        self.measuring = Measuring(plan.metrics, self.findings, default_set=plan.default_set)
        # In how many blocks each view changed a pixel, had no matrix, moved pixels; where it did, nobody looks again.
        self.seen = [[0, 0, 0] for _ in plan.bank]
        self.calibrates = any(metric.calibrates for metric in plan.metrics)
        deal, world = plan.images.deal, plan.world
        self.counts = [
            count_passes(
                deal, len(plan.bank), plan.batch_size, rank=rank, world_size=world.size, calibrates=self.calibrates
            )
            for rank in range(world.size)
        ]
        self.passes = Passes(
            subject,
            self.findings,
            seed=plan.seed,
            batch_size=plan.batch_size,
            wants_scores=any(metric.scope == "output" for metric in plan.metrics),
            other_targets=plan.images.other_targets,
            total=self.counts[world.rank] if plan.progress else None,
        )

    def run(self, epoch: int, step: int) -> ProbeResult:
        started = time.perf_counter()
        try:
            self._work()
        except Exception as error:
            self.plan.world.fail(error)
            raise
        self.plan.world.meet("done")
        self._sum_over_processes()
        self.findings.facts["seconds"] = time.perf_counter() - started
        return self._result(epoch, step)

    def _work(self) -> None:
        for name in self.plan.bank.left_out:
            self.findings.leave_out(name, "this augmentation needs images of 3 channels")
        self._check(self.plan.images)
        if self.plan.reference is not None:
            self._check(self.plan.reference)
        with self.passes:
            clean = self._scout()
            for block in self.plan.images.blocks:
                placed = block.to(self.device)
                clean = clean if block.index == 0 else self._clean(placed, instead_of=clean)
                self._measure(placed, clean)
            self._keep_step()

    def _check(self, images: ProbeImages) -> None:
        blocks = {block.index: block for block in (images.scout, *images.blocks)}.values()
        entries = [(entry, block.ids) for block in blocks for entry in block.images]
        spoilt = {
            images.image_ids[ids[row]]
            for entry, ids in entries
            if not all_finite(entry)
            for row in (~entry.flatten(1).isfinite().all(1)).nonzero().flatten().tolist()
        }
        if spoilt:
            raise ValueError(
                f"images: NaN or infinite pixels in {len(spoilt)} of {images.num_images} images (images "
                f"{listed(sorted(spoilt))} of the source). Repair or leave out these images."
            )
        for entry, _ in entries:
            self.plan.bank.check(entry)

    def _scout(self) -> Clean:
        """What every process does first: learn the layers, agree on them, and see whether a pass repeats itself."""
        block = self.plan.images.scout.to(self.device)
        activations = self.passes.scout(block)
        sites = self.passes.sites(activations, block)
        self.plan.world.meet(f"{stable_seed(repr(sites))} for {len(sites)} layers", what="the layers that run")
        self.measuring.prepare(sites, self.plan.bank.views, self.plan.images.num_images, device=self.device)
        self.measuring.choose_precision(activations)
        self._see_labels(sites, block)
        if self.calibrates:
            self._calibrate(block, activations)
        if self.plan.reference is not None:
            self.measuring.centre_on(self._clean(block.to(self.device)) for block in self.plan.reference.blocks)
        clean = self.measuring.clean(activations)
        self.passes.wants_scores = OUTPUT in self.measuring.readouts
        self.findings.facts["clean_block_bytes"] = sum(entries[0].activation.nbytes for entries in clean.values())
        self.findings.noise(self._repeated(block, clean))
        return clean

    def _calibrate(self, block: Block, activations: dict[str, Tensor]) -> None:
        """Show some of the block's images to the metrics, mirrored, and with stripes where these tell something."""
        height, width = block.images[0].shape[-2:]
        few, fewer = block.first(CALIBRATED), block.first(STRIPED)
        flipped = self.passes.keep_clean(_changed(few, lambda images: images.flip(-1)))
        striped: dict[str, Tensor] = {}
        if len(fewer) >= FEWEST_STRIPES and self.measuring.asks_for_stripes((height, width)):
            self.passes.expect_more(len(slices(len(fewer), self.plan.batch_size)))
            striped = self.passes.keep_clean(_changed(fewer, with_stripes))
        shown = {name: activation[: len(few)] for name, activation in activations.items()}
        self.measuring.calibrate(shown, flipped, striped, (height, width))

    def _see_labels(self, sites: Sequence[Site], block: Block) -> None:
        """Say aloud that labels= is of no use, where nobody has asked for metrics that may need none."""
        images = self.plan.images
        # Targets have been of use: they say that the output is none of one class.
        if images.other_targets or not (images.labels_given and self.plan.default_set):
            return
        output = next((site for site in sites if site.kind == "output"), None)
        height, width = block.images[0].shape[-2:]
        why = ""
        if output is None:
            why = f"the output is left out, as {self.findings.left_out[OUTPUT]}"
        elif output.label_shape is not None:
            why = why_labels_do_not_fit(output.label_shape, scores_shape=output.shape, image_size=(height, width))
        if why:
            self.findings.labels_unused(why)

    def _repeated(self, block: Block, clean: Clean) -> dict[str, float]:
        moved = dict.fromkeys(clean, 0.0)

        def compare(name: str, activation: Tensor, rows: slice) -> None:
            if name in clean:
                distance = squared_distance(upcast(activation), clean[name][0].activation[rows])
                moved[name] += float(distance[distance.isfinite()].sum())

        self.passes.run_clean(block, compare, draw="again")
        apart = {name: float(2 * entries[0].deviation.nansum()) for name, entries in clean.items()}
        return {name: (moved[name] / apart[name]) ** 0.5 if apart[name] > 0 else 0.0 for name in clean}

    def _clean(self, block: Block, *, instead_of: Clean | None = None) -> Clean:
        """The clean activations of a block, in the memory of those of an earlier one that is done with."""
        old = {name: entries[0].activation for name, entries in (instead_of or {}).items()}
        return self.measuring.clean(self.passes.keep_clean(block, instead_of=old))

    def _measure(self, block: Block, clean: Clean) -> None:
        groups = view_groups(len(self.plan.bank), len(block), self.plan.batch_size)
        views = self.measuring.views(block, clean, self.plan.bank.views, at_once=len(groups[0]))
        units = [self.plan.bank.to_unit(entry) for entry in block.images]
        for group in groups:
            inputs = self._augmented(views, group, units)
            draw = self.plan.bank.views[group.start].label
            for rows in slices(len(block), self.plan.batch_size):
                segment = Segment(group, rows)
                is_whole = segment.num_images == len(block)
                cut = inputs if is_whole else block.rows(rows.start, rows.stop, inputs=inputs)
                sink = self.measuring.sink(views, segment)
                self.passes.run(block, cut, sink, draw=draw, num_rows=len(segment))
                self.measuring.write()
            if views.gathered.is_full:
                self.measuring.finish(views)
        self.measuring.finish(views)

    def _augmented(self, views: Views, group: range, units: Sequence[Tensor]) -> Any:
        """The inputs of a block under several views, behind each other."""
        inputs = []
        for index in group:
            view, block = views.views[index], views.block
            changed, without_matrix, moved = self.seen[index]
            augmented = self.plan.bank.draw(view, block.images, units, block=block.index, changes=changed > 0)
            for before, after in zip(block.images, augmented.images, strict=True):
                if before.shape != after.shape:
                    raise ValueError(
                        f"view {view.label!r} changes images of {tuple(before.shape)} to {tuple(after.shape)}; "
                        "activations can only be compared at one size: put a Resize back behind it"
                    )
            self.seen[index] = [
                changed + augmented.changed,
                without_matrix + (augmented.matrix is None),
                moved + (moved > 0 or _moves(augmented.matrix)),
            ]
            views.matrices[index], views.through[index] = augmented.matrix, augmented.through
            inputs.append(block.with_images(augmented.images))
        return join_rows(inputs)

    def _keep_step(self) -> None:
        """Run as many passes as the busiest process, where passes are collective."""
        if self.plan.world.lockstep:
            scout = self.plan.images.scout.to(self.device)
            for _ in range(max(self.counts) - self.counts[self.plan.world.rank]):
                self.passes.run(scout, join_rows([scout.inputs]), ignore, draw="idle", num_rows=len(scout))

    def _sum_over_processes(self) -> None:
        """Add up what all processes have written, in one collective."""
        images = self.plan.images
        tables = [table for metric in self.measuring.metrics.values() for table in (metric.table, metric.filled)]
        sums = self.plan.world.sum_together(
            [*tables, torch.tensor(self.seen), images.fingerprints],
            device=self.device,
            dtype=accumulation_dtype(self.device),
        )
        for table, total in zip(tables, sums, strict=False):
            table.copy_(total)
        self.seen = sums[-2].tolist()
        self.findings.facts |= {
            "num_images": images.num_images,
            "num_blocks": images.num_blocks,
            "image_ids": list(images.image_ids),
            "content_hash": ProbeImages.content_hash(sums[-1]),
            "content_hash_by_number": images.content_hash_by_number(sums[-1]),
            "notes": list(images.notes),
            "bank": self.plan.bank.describe(),
            "seed": self.plan.seed,
            "batch_size": self.plan.batch_size,
            "device": str(self.device),
            "activation_dtypes": self.passes.dtypes,
            "world_size": self.plan.world.size,
        }

    def _result(self, epoch: int, step: int) -> ProbeResult:
        self.measuring.note_ledger(self.plan.images.image_ids)
        seen = list(zip(self.plan.bank, self.seen, strict=True))
        self.findings.unchanged([view.label for view, (changed, _, _) in seen if not changed])
        no_matrix = [view.label for view, (_, without, _) in seen if without]
        self.findings.facts["views_without_matrix"] = no_matrix
        tables = self.measuring.tables()
        without = [name for name, table in tables.items() if table.influence is None]
        if without:
            self.findings.facts["metrics_without_influence"] = without
        return ProbeResult(
            layers=[name for name in self.measuring.readouts if name not in (INPUT, OUTPUT)],
            views=[
                ViewInfo(view.augmentation, view.level, view.severity, view.from_identity, moved > 0)
                for view, (_, _, moved) in seen
            ],
            tables=tables,
            epoch=epoch,
            step=step,
            metadata=self.findings.metadata(),
        )


def _changed(block: Block, change: Callable[[Tensor], Tensor]) -> Block:
    return replace(block, inputs=block.with_images([change(entry) for entry in block.images]))


def _moves(matrix: Tensor | None) -> bool:
    """Whether some image's pixels are moved."""
    return matrix is not None and not float((matrix - torch.eye(3)).abs().max()) <= _STILL
