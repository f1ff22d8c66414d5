"""The one loop over images and views, and the only place that runs the model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from tqdm.auto import tqdm

from kornia_lightning_probe.bank import AugmentationBank, View
from kornia_lightning_probe.batches import image_entries, map_tensors
from kornia_lightning_probe.findings import Findings
from kornia_lightning_probe.functional import accumulation_dtype, squared_distance, upcast
from kornia_lightning_probe.images import Block, ProbeImages
from kornia_lightning_probe.metrics import About, Centre, CleanBlock, Ledger, ProbeMetric, Scratch, Site
from kornia_lightning_probe.randomness import reseed, stable_seed
from kornia_lightning_probe.recorder import ActivationRecorder
from kornia_lightning_probe.result import MetricTable, ProbeResult, ViewInfo
from kornia_lightning_probe.undisturbed import undisturbed

INPUT = "input"
OUTPUT = "output"


@dataclass(frozen=True)
class World:
    """What the engine may know of other processes.

    Args:
        rank: this process.
        size: how many there are.
        add: sums a tensor over all processes and returns the sum.
        gather: returns every process's text, in order of rank.
        lockstep: whether a forward pass is itself collective, so that all processes must run equally many.
    """

    rank: int = 0
    size: int = 1
    add: Callable[[Tensor], Tensor] = lambda tensor: tensor
    gather: Callable[[str], Sequence[str]] = lambda text: [text]
    lockstep: bool = False


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


@dataclass(frozen=True)
class _Segment:
    """The rows of a forward pass that are one block's rows under one view; no view for the clean images."""

    rows: slice
    view: int = -1
    matrix: Tensor | None = None

    def __len__(self) -> int:
        return self.rows.stop - self.rows.start  # type: ignore[no-any-return]  # slices are untyped


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
        RuntimeError: where processes see different layers.
    """
    if plan.batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {plan.batch_size}")
    with undisturbed(subject.model, device=subject.device):
        return _Probe(subject, plan).run(epoch, step)


class _Probe:
    def __init__(self, subject: Subject, plan: Plan) -> None:
        self.subject, self.plan = subject, plan
        self.recorder = ActivationRecorder(subject.layers, receive=self._receive)
        self.findings = Findings()
        self.scratch = Scratch()
        self.centres: dict[str, Centre] = {}
        self.sites: dict[str, Site] = {}
        self.ledger = Ledger()
        self.metrics: dict[str, ProbeMetric] = {}
        self.measured: dict[str, list[ProbeMetric]] = {}
        self.changed = torch.zeros(len(plan.bank))
        self.dtypes: set[str] = set()
        self._sink: _Sink = _ignore
        self._expected = 0
        self._last: tuple[str, Tensor] | None = None

    def run(self, epoch: int, step: int) -> ProbeResult:
        started = time.perf_counter()
        self._check_images()
        with self.recorder, self._bar() as self.bar:
            scouted = self._scout()
            self._prepare()
            for block in self.plan.images.blocks:
                placed = self._placed(block)
                self._views(placed, scouted if block.index == 0 else self._clean(placed))
                scouted = scouted if block.index == 0 else {}
            self._keep_step()
        fingerprints = self._sum_over_processes()
        self.findings.facts |= self._facts(fingerprints) | {"seconds": time.perf_counter() - started}
        return self._result(epoch, step)

    def _check_images(self) -> None:
        for images in filter(None, (self.plan.images, self.plan.reference)):
            for block in {block.index: block for block in (images.scout, *images.blocks)}.values():
                for entry in block.images:
                    self.plan.bank.check(entry)

    # The scout: which layers fire, in which order, with which shapes; and how far two equal passes lie apart.

    def _scout(self) -> dict[str, CleanBlock]:
        block = self._placed(self.plan.images.scout)
        activations = self._clean_activations(block)
        fired = [name for name in activations if name != INPUT]
        for name, reason in self.recorder.left_out.items():
            self.findings.leave_out(name, reason)
        self.findings.layers_fired(fired, chosen=self.subject.layers, exact=self.subject.exact)
        self.sites = self._find_sites(activations)
        self._agree()
        if self.plan.reference is not None:
            self._centre_on(self.plan.reference)
        clean = self._centred(activations)
        self.findings.facts["clean_block_bytes"] = sum(entry.activation.nbytes for entry in clean.values())
        self.findings.noise(self._repeated(block, clean))
        return clean

    def _find_sites(self, activations: dict[str, Tensor]) -> dict[str, Site]:
        layers = [name for name in activations if name != INPUT]
        last_is_output = self._last is not None and len(layers) > 1
        embedding = self.subject.embedding or layers[-2 if last_is_output else -1]
        if embedding not in layers:
            raise ValueError(f"embedding={embedding!r} is none of the layers that gave an activation: {layers}")
        return {
            name: Site(name, index, tuple(activation.shape[1:]), "layer" if index else "input", name == embedding)
            for index, (name, activation) in enumerate(activations.items())
        }

    def _agree(self) -> None:
        mine = stable_seed(*((site.name, site.shape) for site in self.sites.values()))
        texts = self.plan.world.gather(str(mine))
        if len(set(texts)) > 1:
            raise RuntimeError(
                f"rank {self.plan.world.rank} sees the layers {list(self.sites)}, another rank sees others or other "
                f"shapes (hash by rank: {list(texts)}): the model must run the same layers on every process"
            )

    def _repeated(self, block: Block, clean: dict[str, CleanBlock]) -> dict[str, float]:
        moved = dict.fromkeys(clean, 0.0)

        def compare(name: str, activation: Tensor) -> None:
            if name in clean:
                moved[name] += float(squared_distance(upcast(activation), clean[name].activation[rows]).nansum())

        for rows in _slices(len(block), self.plan.batch_size):
            self._pass(block, block.rows(rows.start, rows.stop), compare, draw="again", expected=rows.stop - rows.start)
        apart = {name: float(2 * entry.deviation.nansum()) for name, entry in clean.items()}
        return {name: (moved[name] / apart[name]) ** 0.5 if apart[name] > 0 else 0.0 for name in clean}

    def _centre_on(self, reference: ProbeImages) -> None:
        blocks = [self._centred(self._clean_activations(self._placed(block))) for block in reference.blocks]
        for name in self.sites:
            entries = [block[name] for block in blocks if name in block]
            total = torch.stack([entry.activation.double().sum(0) for entry in entries]).sum(0)
            mean = total / sum(int(entry.valid.sum()) for entry in entries)
            deviation = torch.cat([entry.deviation for entry in entries]).nanmean()
            self.centres[name] = Centre(mean.unsqueeze(0).to(entries[0].activation.dtype), deviation)

    def _prepare(self) -> None:
        self.measured = {name: [] for name in self.sites}
        for metric in (*self.plan.metrics, self.ledger):
            names = [name for name, site in self.sites.items() if metric.applies_to(site)]
            if not names:
                self.findings.leave_out(metric.name, f"this metric applies to none of {list(self.sites)}")
                continue
            views, count = self.plan.bank.views, self.plan.images.num_images
            self.metrics[metric.name] = metric.prepare(views, names, count, device=self.subject.device)
            for name in names:
                self.measured[name].append(self.metrics[metric.name])

    # Clean activations of a block.

    def _clean(self, block: Block) -> dict[str, CleanBlock]:
        return self._centred(self._clean_activations(block))

    def _centred(self, activations: dict[str, Tensor]) -> dict[str, CleanBlock]:
        return {
            name: CleanBlock(activation, centre=self.centres.get(name), owned=True)
            for name, activation in activations.items()
        }

    def _clean_activations(self, block: Block) -> dict[str, Tensor]:
        parts: dict[str, list[Tensor]] = {}

        def keep(name: str, activation: Tensor) -> None:
            wide = upcast(activation)
            parts.setdefault(name, []).append(wide.clone() if wide is activation else wide)
            self._last = (name, activation)
            self.dtypes.add(str(activation.dtype).removeprefix("torch."))

        for rows in _slices(len(block), self.plan.batch_size):
            self._last = None
            inputs = block.rows(rows.start, rows.stop)
            output = self._pass(block, inputs, keep, draw="clean", expected=rows.stop - rows.start)
            if self._last is not None and not _is_output(self._last[1], output):
                self._last = None
        return {name: torch.cat(part) if len(part) > 1 else part[0] for name, part in parts.items()}

    # Augmented passes over a block.

    def _views(self, block: Block, clean: dict[str, CleanBlock]) -> None:
        segments: list[_Segment] = []

        def measure(name: str, activation: Tensor) -> None:
            start = 0
            for segment in segments:
                augmented = upcast(activation[start : start + len(segment)])
                start += len(segment)
                about = self._about(name, augmented, block=block, clean=clean[name], segment=segment)
                for metric in self.measured[name]:
                    metric.update(about.clean, augmented, about)

        for inputs, segments in self._augmented(block):
            draw = self.plan.bank.views[segments[0].view].label
            self._pass(block, inputs, measure, draw=draw, expected=sum(len(segment) for segment in segments))

    def _about(self, name: str, augmented: Tensor, *, block: Block, clean: CleanBlock, segment: _Segment) -> About:
        rows, first = segment.rows, block.ids.start
        height, width = block.images[0].shape[-2:]
        return About(
            augmented=augmented,
            block=clean,
            rows=rows,
            ids=(first + rows.start, first + rows.stop),
            site=self.sites[name],
            view_index=segment.view,
            view=self.plan.bank.views[segment.view],
            labels=None if block.labels is None else block.labels[rows],
            matrix=segment.matrix,
            image_size=(height, width),
            scratch=self.scratch,
        )

    def _augmented(self, block: Block) -> Iterator[tuple[Any, list[_Segment]]]:
        views = self.plan.bank.views
        merged = max(1, self.plan.batch_size // len(block))
        for first in range(0, len(views), merged):
            group = range(first, min(first + merged, len(views)))
            inputs, matrices = zip(*(self._augment(views[view], block, view) for view in group), strict=True)
            joined = inputs[0] if len(group) == 1 else tree_map(_concatenated, *inputs)
            for rows in _slices(len(block), self.plan.batch_size):
                segments = [
                    _Segment(rows, view, None if matrix is None else matrix[rows])
                    for view, matrix in zip(group, matrices, strict=True)
                ]
                split = len(block) > self.plan.batch_size
                yield (block.rows(rows.start, rows.stop, inputs=joined) if split else joined), segments

    def _augment(self, view: View, block: Block, index: int) -> tuple[Any, Tensor | None]:
        augmented = self.plan.bank.augment(view, block.images, block=block.index)
        for before, after in zip(block.images, augmented.images, strict=True):
            if before.shape != after.shape:
                raise ValueError(
                    f"view {view.label!r} changes images of {tuple(before.shape)} to {tuple(after.shape)}: activations "
                    "can only be compared at one size; put a Resize back to the image's size behind it"
                )
        self.changed[index] += augmented.changed
        return block.with_images(augmented.images), augmented.matrix

    # One forward pass.

    def _pass(self, block: Block, inputs: Any, sink: _Sink, *, draw: str, expected: int) -> Any:
        self._sink, self._expected = sink, expected
        self.recorder.reset()
        reseed(stable_seed(self.plan.seed, "forward", block.index, draw), device=self.subject.device)
        self._receive(INPUT, _pixels(inputs, block.image_keys))
        output = self.subject.forward(inputs)
        self._sink = _ignore
        self.bar.update()
        return output

    def _receive(self, name: str, activation: Tensor) -> None:
        if activation.shape[0] != self._expected:
            self.findings.leave_out(
                name, f"its first axis has {activation.shape[0]} entries where {self._expected} images went in"
            )
        elif self.sites and name not in self.sites:
            self.findings.leave_out(name, "it ran on some images only, and not on the first block")
        else:
            with torch.autocast(activation.device.type, enabled=False):
                self._sink(name, activation)

    def _keep_step(self) -> None:
        """Run as many passes as the busiest process, where passes are collective."""
        world, scout = self.plan.world, self._placed(self.plan.images.scout)
        if world.lockstep:
            counts = [self._passes(rank) for rank in range(world.size)]
            for _ in range(max(counts) - counts[world.rank]):
                rows = _slices(len(scout), self.plan.batch_size)[0]
                self._pass(scout, scout.rows(rows.start, rows.stop), _ignore, draw="idle", expected=rows.stop)

    def _passes(self, rank: int) -> int:
        """How many forward passes a process runs, the scout's included."""
        deal, views, size = self.plan.images.deal, len(self.plan.bank), self.plan.batch_size
        passes = 2 * len(_slices(len(deal[0]), size)) - (len(_slices(len(deal[0]), size)) if rank == 0 else 0)
        for ids in deal[rank :: self.plan.world.size]:
            passes += len(_slices(len(ids), size)) - (-views // max(1, size // len(ids))) * len(_slices(len(ids), size))
        return passes

    def _placed(self, block: Block) -> Block:
        return block.to(self.subject.device)

    def _bar(self) -> Any:
        total = self._passes(self.plan.world.rank) if self.plan.progress else None
        return tqdm(total=total, desc="probe", unit="pass", disable=not self.plan.progress, leave=False)

    # The end: sums over processes, estimates, notes.

    def _sum_over_processes(self) -> Tensor:
        """Add the tables of all processes in one collective; returns the images' fingerprints."""
        wide = accumulation_dtype(self.subject.device)
        tables = [table for metric in self.metrics.values() for table in (metric.table, metric.filled)]
        extras = [self.changed, self.plan.images.fingerprints]
        if self.plan.world.size > 1:
            everything = [*tables, *(extra.to(self.subject.device, wide) for extra in extras)]
            total = self.plan.world.add(torch.cat([tensor.flatten() for tensor in everything]))
            pieces = total.split([tensor.numel() for tensor in everything])
            for table, piece in zip(tables, pieces, strict=False):
                table.copy_(piece.view(table.shape))
            extras = [piece.cpu() for piece in pieces[len(tables) :]]
        self.changed = extras[0]
        return extras[1]

    def _facts(self, fingerprints: Tensor) -> dict[str, Any]:
        images, subject = self.plan.images, self.subject
        if images.notes:
            self.findings.facts["notes"] = list(images.notes)
        return {
            "num_images": images.num_images,
            "num_blocks": images.num_blocks,
            "image_ids": list(images.image_ids),
            "content_hash": ProbeImages.content_hash(fingerprints),
            "bank": self.plan.bank.describe(),
            "seed": self.plan.seed,
            "embedding": next(site.name for site in self.sites.values() if site.is_embedding),
            "shapes": {site.name: list(site.shape) for site in self.sites.values()},
            "device": str(subject.device),
            "activation_dtypes": sorted(self.dtypes),
            "world_size": self.plan.world.size,
            "batch_size": self.plan.batch_size,
        }

    def _result(self, epoch: int, step: int) -> ProbeResult:
        ledger = self.metrics.pop(self.ledger.name)
        names = list(self.sites)
        if isinstance(ledger, Ledger):
            self.findings.non_finite(ledger.non_finite().cpu(), names, self.plan.images.image_ids)
            self.findings.dead([names[column] for column in ledger.dead().nonzero().flatten().tolist()])
        labels = [view.label for view in self.plan.bank]
        self.findings.unchanged([labels[view] for view in (self.changed == 0).nonzero().flatten().tolist()])
        views = [ViewInfo(view.augmentation, view.level, view.severity) for view in self.plan.bank]
        return ProbeResult(
            layers=[name for name in names if name != INPUT],
            views=views,
            tables={name: _table(metric) for name, metric in self.metrics.items()},
            epoch=epoch,
            step=step,
            metadata=self.findings.metadata(),
        )


def _table(metric: ProbeMetric) -> MetricTable:
    value, std_error, num_images = metric.estimates()
    return MetricTable(metric.layers, value, std_error, num_images, (metric.filled > 0).any(-1))


def _ignore(_name: str, _activation: Tensor) -> None:
    return None


def _slices(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


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
