"""The one loop over images and views, and the only place that runs the model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from tqdm.auto import tqdm

from kornia_lightning_probe.bank import AugmentationBank
from kornia_lightning_probe.batches import image_entries
from kornia_lightning_probe.findings import Findings
from kornia_lightning_probe.functional import accumulation_dtype, squared_distance, upcast
from kornia_lightning_probe.images import Block, ProbeImages
from kornia_lightning_probe.measuring import Clean, Measuring, Views
from kornia_lightning_probe.metrics import ProbeMetric, Site
from kornia_lightning_probe.outputs import as_logits, find_scores, why_no_scores
from kornia_lightning_probe.randomness import reseed, stable_seed
from kornia_lightning_probe.recorder import ActivationRecorder
from kornia_lightning_probe.result import ProbeResult, ViewInfo
from kornia_lightning_probe.schedule import Segment, count_passes, slices, view_groups
from kornia_lightning_probe.undisturbed import undisturbed
from kornia_lightning_probe.world import World

INPUT = "input"
OUTPUT = "output"


@dataclass(frozen=True)
class Subject:
    """The model under probe, and how it is called.

    Args:
        model: the module whose flags, buffers and hooks are put back.
        forward: takes inputs on ``device`` and returns the model's output.
        layers: the chosen modules by name.
        device: where the model is.
        exact: those of the layers that were named exactly, and so must fire.
        embedding: the layer called the embedding; None is the last layer that isn't the output itself.
    """

    model: nn.Module
    forward: Callable[[Any], Any]
    layers: dict[str, nn.Module]
    device: torch.device
    exact: frozenset[str] = frozenset()
    embedding: str | None = None


@dataclass(frozen=True)
class Plan:
    """What a probe does beside the model.

    Args:
        images: the probe images, with the blocks of this process.
        bank: the views.
        metrics: what is measured.
        reference: images that supply mean and between-image distance; None takes each block's own.
        batch_size: at most so many images in one forward pass; it splits a block, or merges views of it.
        seed: of the random stream that a forward pass finds, for models that draw in eval mode.
        progress: whether to show a bar.
        world: the other processes.
    """

    images: ProbeImages
    bank: AugmentationBank
    metrics: Sequence[ProbeMetric]
    reference: ProbeImages | None = None
    batch_size: int = 32
    seed: int = 0
    progress: bool = False
    world: World = field(default_factory=World)


_Sink = Callable[[str, Tensor], None]


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


class _Probe:
    def __init__(self, subject: Subject, plan: Plan) -> None:
        self.subject, self.plan = subject, plan
        self.findings = Findings()
        self.measuring = Measuring(plan.metrics, self.findings)
        self.recorder = ActivationRecorder(subject.layers, receive=self._receive)
        self.changed = torch.zeros(len(plan.bank))
        self.dtypes: set[str] = set()
        deal, world = plan.images.deal, plan.world
        self.passes = [
            count_passes(deal, len(plan.bank), plan.batch_size, rank=rank, world_size=world.size)
            for rank in range(world.size)
        ]
        self._sink: _Sink = _ignore
        self._expected = 0
        self._last: Tensor | None = None
        self._wants_scores = any(metric.scope == "output" for metric in plan.metrics)

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
        for images in filter(None, (self.plan.images, self.plan.reference)):
            for block in {block.index: block for block in (images.scout, *images.blocks)}.values():
                for entry in block.images:
                    self.plan.bank.check(entry)
        total = self.passes[self.plan.world.rank]
        bar = tqdm(total=total, desc="probe", unit="pass", disable=not self.plan.progress, leave=False)
        with self.recorder, bar as self.bar:
            scouted = self._scout()
            for block in self.plan.images.blocks:
                placed = block.to(self.subject.device)
                self._measure(placed, scouted if block.index == 0 else self.measuring.clean(self._clean_pass(placed)))
                scouted = {}
            self._keep_step()

    # The scout: which layers fire, in which order, with which shapes; and how far two equal passes lie apart.

    def _scout(self) -> Clean:
        block = self.plan.images.scout.to(self.subject.device)
        activations = self._clean_pass(block)
        for name, reason in self.recorder.left_out.items():
            self.findings.leave_out(name, reason)
        fired = [name for name in activations if name not in (INPUT, OUTPUT)]
        self.findings.layers_fired(fired, chosen=self.subject.layers, exact=self.subject.exact)
        sites = self._sites(activations)
        self.plan.world.meet(f"{stable_seed(repr(sites))} for {len(sites)} layers", what="the layers that run")
        views, count = self.plan.bank.views, self.plan.images.num_images
        self.measuring.prepare(sites, views, count, device=self.subject.device)
        self._wants_scores = OUTPUT in self.measuring.readouts
        if self.plan.reference is not None:
            blocks = [block.to(self.subject.device) for block in self.plan.reference.blocks]
            self.measuring.centre_on([self.measuring.clean(self._clean_pass(block)) for block in blocks])
        clean = self.measuring.clean(activations)
        self.findings.facts["clean_block_bytes"] = sum(entries[0].activation.nbytes for entries in clean.values())
        self.findings.noise(self._repeated(block, clean))
        return clean

    def _sites(self, activations: dict[str, Tensor]) -> list[Site]:
        layers = [name for name in activations if name not in (INPUT, OUTPUT)]
        ends_in_output = self._last is not None and len(layers) > 1
        embedding = self.subject.embedding or layers[-2 if ends_in_output else -1]
        if embedding not in layers:
            raise ValueError(f"embedding={embedding!r} is none of the layers that gave an activation: {layers}")
        self.findings.facts["embedding"] = embedding
        self.findings.facts["shapes"] = {name: list(activation.shape[1:]) for name, activation in activations.items()}
        labels = self.plan.images.scout.labels
        kinds: dict[str, Literal["input", "layer", "output"]] = {INPUT: "input", OUTPUT: "output"}
        return [
            Site(
                name,
                index,
                tuple(activation.shape[1:]),
                kinds.get(name, "layer"),
                is_embedding=name == embedding,
                label_shape=None if labels is None else tuple(labels.shape[1:]),
            )
            for index, (name, activation) in enumerate(activations.items())
        ]

    def _repeated(self, block: Block, clean: Clean) -> dict[str, float]:
        moved = dict.fromkeys(clean, 0.0)

        def compare(name: str, activation: Tensor) -> None:
            before = clean[name][0].activation[rows]
            moved[name] += float(squared_distance(upcast(activation), before).nansum())

        for rows in slices(len(block), self.plan.batch_size):
            self._pass(block, block.rows(rows.start, rows.stop), compare, draw="again", expected=rows.stop - rows.start)
        apart = {name: float(2 * entries[0].deviation.nansum()) for name, entries in clean.items()}
        return {name: (moved[name] / apart[name]) ** 0.5 if apart[name] > 0 else 0.0 for name in clean}

    # Passes over a block's clean images, and over its views.

    def _clean_pass(self, block: Block) -> dict[str, Tensor]:
        parts: dict[str, list[Tensor]] = {}

        def keep(name: str, activation: Tensor) -> None:
            wide = upcast(activation)
            parts.setdefault(name, []).append(wide.clone() if wide is activation else wide)
            self.dtypes.add(str(activation.dtype).removeprefix("torch."))
            # Held until the pass is over, so that its memory is not another tensor's meanwhile.
            self._last = self._last if name == OUTPUT else activation

        for rows in slices(len(block), self.plan.batch_size):
            inputs = block.rows(rows.start, rows.stop)
            output = self._pass(block, inputs, keep, draw="clean", expected=rows.stop - rows.start)
            self._last = self._last if self._last is not None and _is_output(self._last, output) else None
        return {name: torch.cat(part) if len(part) > 1 else part[0] for name, part in parts.items()}

    def _measure(self, block: Block, clean: Clean) -> None:
        views = Views(block, clean, self.plan.bank.views)
        for group in view_groups(len(self.plan.bank), len(block), self.plan.batch_size):
            inputs = self._augmented(views, group)
            draw = self.plan.bank.views[group.start].label
            for rows in slices(len(block), self.plan.batch_size):
                segments = [Segment(view, rows) for view in group]
                cut = block.rows(rows.start, rows.stop, inputs=inputs) if len(segments[0]) < len(block) else inputs
                sink = partial(self.measuring.measure, views, segments)
                self._pass(block, cut, sink, draw=draw, expected=len(group) * len(segments[0]))
                self.measuring.write()

    def _augmented(self, views: Views, group: range) -> Any:
        """The inputs of a block under several views, behind each other."""
        inputs = []
        for index in group:
            view, block = views.views[index], views.block
            augmented = self.plan.bank.augment(view, block.images, block=block.index)
            for before, after in zip(block.images, augmented.images, strict=True):
                if before.shape != after.shape:
                    raise ValueError(
                        f"view {view.label!r} changes images of {tuple(before.shape)} to {tuple(after.shape)}; "
                        "activations can only be compared at one size: put a Resize back behind it"
                    )
            self.changed[index] += augmented.changed
            views.matrices[index] = augmented.matrix
            inputs.append(block.with_images(augmented.images))
        return tree_map(_concatenated, *inputs) if len(inputs) > 1 else inputs[0]

    # One forward pass.

    def _pass(self, block: Block, inputs: Any, sink: _Sink, *, draw: str, expected: int) -> Any:
        self._sink, self._expected = sink, expected
        self.recorder.reset()
        reseed(stable_seed(self.plan.seed, "forward", block.index, draw), device=self.subject.device)
        self._receive(INPUT, _pixels(inputs, block.image_keys))
        output = self.subject.forward(inputs)
        if self._wants_scores:
            self._receive_scores(output, block)
        self._sink = _ignore
        self.bar.update()
        return output

    def _receive(self, name: str, activation: Tensor) -> None:
        if activation.shape[0] != self._expected:
            self.findings.leave_out(
                name, f"its first axis has {activation.shape[0]} entries where {self._expected} images went in"
            )
        elif self.measuring.readouts and name not in self.measuring.readouts:
            self.findings.leave_out(name, "it ran on some images only, and not on the first block")
        elif torch.is_autocast_enabled(activation.device.type):
            with torch.autocast(activation.device.type, enabled=False):
                self._sink(name, activation)
        else:
            self._sink(name, activation)

    def _receive_scores(self, output: Any, block: Block) -> None:
        scores = find_scores(output)
        if not self.measuring.readouts:
            reason = why_no_scores(
                scores,
                image_shape=tuple(block.images[0].shape[1:]),
                labels=block.labels,
                other_targets=self.plan.images.other_targets,
            )
            self._wants_scores = not reason
            if reason:
                self.findings.leave_out(OUTPUT, reason)
        if self._wants_scores and scores is not None:
            self._receive(OUTPUT, as_logits(scores.detach()))

    def _keep_step(self) -> None:
        """Run as many passes as the busiest process, where passes are collective."""
        if self.plan.world.lockstep:
            scout = self.plan.images.scout.to(self.subject.device)
            for _ in range(max(self.passes) - self.passes[self.plan.world.rank]):
                self._pass(scout, scout.inputs, _ignore, draw="idle", expected=len(scout))

    # The end: sums over processes, estimates, notes.

    def _sum_over_processes(self) -> None:
        """Add up what all processes have written, in one collective."""
        images, device = self.plan.images, self.subject.device
        tables = [table for metric in self.measuring.metrics.values() for table in (metric.table, metric.filled)]
        sums = self.plan.world.sum_together(
            [*tables, self.changed, images.fingerprints], device=device, dtype=accumulation_dtype(device)
        )
        for table, total in zip(tables, sums, strict=False):
            table.copy_(total)
        self.changed = sums[-2].cpu()
        self.findings.facts |= {
            "num_images": images.num_images,
            "num_blocks": images.num_blocks,
            "image_ids": list(images.image_ids),
            "content_hash": ProbeImages.content_hash(sums[-1]),
            "notes": list(images.notes),
            "bank": self.plan.bank.describe(),
            "seed": self.plan.seed,
            "batch_size": self.plan.batch_size,
            "device": str(device),
            "activation_dtypes": sorted(self.dtypes),
            "world_size": self.plan.world.size,
        }

    def _result(self, epoch: int, step: int) -> ProbeResult:
        self.measuring.note_ledger(self.plan.images.image_ids)
        labels = [view.label for view in self.plan.bank]
        self.findings.unchanged([labels[view] for view in (self.changed == 0).nonzero().flatten().tolist()])
        tables = self.measuring.tables()
        return ProbeResult(
            layers=[name for name in self.measuring.readouts if name not in (INPUT, OUTPUT)],
            views=[ViewInfo(view.augmentation, view.level, view.severity) for view in self.plan.bank],
            tables=tables,
            epoch=epoch,
            step=step,
            metadata=self.findings.metadata(),
        )


def _ignore(_name: str, _activation: Tensor) -> None:
    return None


def _pixels(inputs: Any, keys: tuple[str | int, ...]) -> Tensor:
    entries = image_entries(inputs, keys)
    return entries[0] if len(entries) == 1 else torch.cat([entry.flatten(1) for entry in entries], 1)


def _concatenated(*entries: Any) -> Any:
    return torch.cat(entries) if isinstance(entries[0], Tensor) else entries[0]


def _is_output(activation: Tensor, output: Any) -> bool:
    return any(
        isinstance(leaf, Tensor) and leaf.data_ptr() == activation.data_ptr() and leaf.shape == activation.shape
        for leaf in tree_leaves(output)
    )
