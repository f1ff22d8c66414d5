"""The engine's second loop: pooled clean features of all probe images, by image number; it knows no Lightning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from tqdm.auto import tqdm

from kornia_lightning_probe.engine import Subject
from kornia_lightning_probe.findings import Findings
from kornia_lightning_probe.functional import accumulation_dtype
from kornia_lightning_probe.images import Block, ProbeImages
from kornia_lightning_probe.metrics import Site
from kornia_lightning_probe.metrics.readouts import readouts_of
from kornia_lightning_probe.randomness import reseed, stable_seed
from kornia_lightning_probe.recorder import ActivationRecorder
from kornia_lightning_probe.schedule import slices
from kornia_lightning_probe.undisturbed import undisturbed
from kornia_lightning_probe.world import World

MOST_FLATTENED_BYTES = 32 * 2**20
"""A layer whose flattened table (N, d) in float64 is larger than this is pooled all the same."""

_PIECE = 2**20


@dataclass(frozen=True)
class Features:
    """One row of features for each probe image and layer.

    Args:
        tables: by name, in order of execution, (N, d) float64 on the CPU; NaN where an image's activation is missing.
            A layer with a class token has two, ``name:cls`` and ``name:patch``.
        layers: the layers that fired, in order of execution.
        embedding: the name of the embedding's table; its class token, where it has one.
        findings: what was left out and why, and what else is known.
    """

    tables: dict[str, Tensor]
    layers: tuple[str, ...]
    embedding: str
    findings: Findings


def collect_features(
    subject: Subject,
    images: ProbeImages,
    *,
    batch_size: int = 32,
    seed: int = 0,
    flatten: bool = False,
    progress: bool = False,
    world: World | None = None,
) -> Features:
    """Run a model over clean images and gather the pooled features of every layer.

    The model runs in eval mode and is left as it was. Every row is written by the one process that owns the image;
    adding the zeros of all others is exact, so the tables do not depend on the number of processes.

    Args:
        subject: the model, its layers and how it is called.
        images: the images, with the blocks of this process.
        batch_size: at most so many images in one forward pass.
        seed: of the random stream that a forward pass finds.
        flatten: take whole activations instead of the spatial or token mean, where a layer's table takes at most
            32 MiB (16384 features at N = 256); other layers are pooled and named in the findings.
        progress: whether to show a bar.
        world: the other processes; three collectives in all.

    Returns:
        The features, the same on every process.

    Raises:
        ValueError: for a ``batch_size`` below 1, an unknown embedding, or a layer that was named exactly and gave no
            activation.
        RuntimeError: where another process has failed or sees different layers.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    collection = _Collection(subject, images, batch_size=batch_size, seed=seed, flatten=flatten, world=world or World())
    with undisturbed(subject.model, device=subject.device):
        return collection.run(progress=progress)


@dataclass(frozen=True)
class _Row:
    """A table, and what is written into it."""

    name: str
    take: Callable[[Tensor], Tensor]
    width: int


class _Collection:
    def __init__(
        self, subject: Subject, images: ProbeImages, *, batch_size: int, seed: int, flatten: bool, world: World
    ) -> None:
        self.subject, self.images, self.world = subject, images, world
        self.batch_size, self.seed, self.flatten = batch_size, seed, flatten
        self.recorder = ActivationRecorder(subject.layers, receive=self._receive)
        self.findings = Findings()
        self.rows: dict[str, list[_Row]] = {}
        self.tables: dict[str, Tensor] = {}
        self.filled: dict[str, Tensor] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: set[str] = set()
        self._ids = range(0)
        self._scouting, self._owned = True, False
        self._last: tuple[str, Tensor] | None = None
        self._output_layer: str | None = None

    def run(self, *, progress: bool) -> Features:
        try:
            with self.recorder:
                self._work(progress=progress)
        except Exception as error:
            self.world.fail(error)
            raise
        self.world.meet("done")
        return self._summed()

    def _work(self, *, progress: bool) -> None:
        counts = [self._count(rank) for rank in range(self.world.size)]
        own = counts[self.world.rank]
        with tqdm(total=own, desc="features", unit="pass", disable=not progress, leave=False) as self.bar:
            scout = self.images.scout.to(self.subject.device)
            self._owned = any(block.index == 0 for block in self.images.blocks)
            self._block(scout)
            self._agree()
            self._scouting, self._owned = False, True
            for block in self.images.blocks:
                if block.index:
                    self._block(block.to(self.subject.device))
            self._owned = False
            for _ in range(max(counts) - own if self.world.lockstep else 0):
                self._pass(scout, slice(0, min(self.batch_size, len(scout))))

    def _count(self, rank: int) -> int:
        """How many passes a process runs: the scout, and its other blocks."""
        mine = range(rank, self.images.num_blocks, self.world.size)
        blocks = [self.images.deal[index] for index in {0, *mine}]
        return sum(len(slices(len(block), self.batch_size)) for block in blocks)

    def _block(self, block: Block) -> None:
        for rows in slices(len(block), self.batch_size):
            self._pass(block, rows)

    def _pass(self, block: Block, rows: slice) -> None:
        self._ids = block.ids[rows]
        self._last = None
        self.recorder.reset()
        reseed(stable_seed(self.seed, "forward", block.index, "clean"), device=self.subject.device)
        output = self.subject.forward(block.rows(rows.start, rows.stop))
        self._output_layer = self._last[0] if self._last is not None and _is_in(self._last[1], output) else None
        self._last = None
        self.bar.update()

    def _receive(self, name: str, activation: Tensor) -> None:
        if activation.shape[0] != len(self._ids):
            self.findings.leave_out(
                name, f"its first axis has {activation.shape[0]} entries where {len(self._ids)} images went in"
            )
        elif name not in self.rows and not self._scouting:
            self.findings.leave_out(name, "it ran on some images only, and not on the first block")
        elif self.shapes.setdefault(name, tuple(activation.shape[1:])) != tuple(activation.shape[1:]):
            raise ValueError(
                f"layer {name!r} gave activations of shape {self.shapes[name]} and of {tuple(activation.shape[1:])}; "
                "features of all images can only be compared at one size: give the probe images of one size"
            )
        else:
            # Held until the pass is over, so that its memory is not another tensor's meanwhile.
            self._last = (name, activation)
            with torch.autocast(activation.device.type, enabled=False):
                self._write(name, activation)

    def _write(self, name: str, activation: Tensor) -> None:
        if name not in self.rows:
            self._open_tables(name)
        self.dtypes.add(str(activation.dtype).removeprefix("torch."))
        if not self._owned:
            return
        ids = slice(self._ids.start, self._ids.stop)
        for row in self.rows[name]:
            self.tables[row.name][ids] = _in_pieces(row.take, activation, self.tables[row.name].dtype)
        self.filled[name][ids] = 1

    def _open_tables(self, name: str) -> None:
        device, number = self.subject.device, self.images.num_images
        self.rows[name] = self._rows_of(Site(name, len(self.rows) + 1, self.shapes[name]))
        for row in self.rows[name]:
            self.tables[row.name] = torch.zeros(number, row.width, dtype=accumulation_dtype(device), device=device)
        self.filled[name] = torch.zeros(number, dtype=accumulation_dtype(device), device=device)

    def _rows_of(self, site: Site) -> list[_Row]:
        width = torch.Size(site.shape).numel()
        if self.flatten and 8 * width * self.images.num_images <= MOST_FLATTENED_BYTES:
            return [_Row(site.name, _flattened, width)]
        if self.flatten:
            self.findings.facts.setdefault("pooled_for_their_size", []).append(site.name)
        pooled = [readout for readout in readouts_of(site) if readout.site.representation == "pooled"]
        return [_Row(r.site.name, _flattening(r.take), torch.Size(r.site.shape).numel()) for r in pooled]

    def _agree(self) -> None:
        for name, reason in self.recorder.left_out.items():
            self.findings.leave_out(name, reason)
        fired = list(self.rows)
        self.findings.layers_fired(fired, chosen=self.subject.layers, exact=self.subject.exact)
        embedding = self.subject.embedding or fired[-2 if self._output_layer is not None and len(fired) > 1 else -1]
        if embedding not in fired:
            raise ValueError(f"embedding={embedding!r} is none of the layers that gave an activation: {fired}")
        self.findings.facts["embedding"] = embedding
        sites = [(row.name, row.width) for rows in self.rows.values() for row in rows]
        self.world.meet(f"{stable_seed(repr(sites))} for {len(sites)} layers", what="the layers that run")
        if "pooled_for_their_size" in self.findings.facts:
            names = ", ".join(self.findings.facts["pooled_for_their_size"])
            self.findings.warn(
                f"these layers were pooled although flatten=True, since the features of {self.images.num_images} "
                f"images would take more than {MOST_FLATTENED_BYTES >> 20} MiB in each: {names}"
            )

    def _summed(self) -> Features:
        images, device = self.images, self.subject.device
        tensors = [*self.tables.values(), *self.filled.values(), images.fingerprints]
        sums = iter(self.world.sum_together(tensors, device=device, dtype=accumulation_dtype(device)))
        tables = {name: next(sums).to("cpu", torch.float64) for name in self.tables}
        for name in self.filled:
            missing = next(sums).cpu() == 0
            for row in self.rows[name]:
                tables[row.name][missing] = torch.nan
        self.findings.facts |= self._facts(next(sums))
        embedding = self.rows[self.findings.facts["embedding"]][0].name
        return Features(tables, tuple(self.rows), embedding, self.findings)

    def _facts(self, fingerprints: Tensor) -> dict[str, Any]:
        return {
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "num_images": self.images.num_images,
            "num_blocks": self.images.num_blocks,
            "image_ids": list(self.images.image_ids),
            "readout": "flattened" if self.flatten else "pooled",
            "content_hash": ProbeImages.content_hash(fingerprints),
            "notes": list(self.images.notes),
            "seed": self.seed,
            "batch_size": self.batch_size,
            "device": str(self.subject.device),
            "activation_dtypes": sorted(self.dtypes),
            "world_size": self.world.size,
        }


def _in_pieces(take: Callable[[Tensor], Tensor], activation: Tensor, wide: torch.dtype) -> Tensor:
    """Read an activation in the widest float, a few images at a time: a wide copy of all of it would be large."""
    rows = max(1, _PIECE // max(1, activation[0].numel()))
    return torch.cat([take(part.to(wide)) for part in torch.split(activation, rows)])


def _flattened(activation: Tensor) -> Tensor:
    return activation.flatten(1)


def _flattening(take: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda activation: take(activation).reshape(len(activation), -1)


def _is_in(activation: Tensor, output: Any) -> bool:
    return any(
        isinstance(leaf, Tensor) and leaf.data_ptr() == activation.data_ptr() and leaf.shape == activation.shape
        for leaf in tree_leaves(output)
    )
