"""The engine's second loop: pooled clean features of all probe images, by image number; it knows no Lightning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from kornia_lightning_probe.engine.notes import Findings
from kornia_lightning_probe.engine.passes import Passes, Subject, ignore
from kornia_lightning_probe.engine.processes import World
from kornia_lightning_probe.engine.segments import slices
from kornia_lightning_probe.functional.distances import accumulation_dtype
from kornia_lightning_probe.images.probe_images import Block, ProbeImages
from kornia_lightning_probe.metrics import Site, readouts_of
from kornia_lightning_probe.model.undisturbed import undisturbed
from kornia_lightning_probe.randomness import stable_seed
from kornia_lightning_probe.results.drift import CleanFeatures

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

    @cached_property
    def clean(self) -> CleanFeatures:
        """The features alone, as they are compared with those of other probes."""
        facts = self.findings.facts
        return CleanFeatures(self.tables, self.layers, self.embedding, facts["content_hash"], facts["readout"])

    def note(self) -> None:
        """Note what is not finite and what is dead."""
        self.findings.non_finite(self.clean.missing.unsqueeze(0), list(self.tables), self.findings.facts["image_ids"])
        self.findings.dead(self.clean.dead)


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
        self.findings = Findings()
        self.rows: dict[str, list[_Row]] = {}
        self.tables: dict[str, Tensor] = {}
        self.filled: dict[str, Tensor] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}

    def run(self, *, progress: bool) -> Features:
        counts = [self._count(rank) for rank in range(self.world.size)]
        own = counts[self.world.rank]
        self.passes = Passes(
            self.subject,
            self.findings,
            seed=self.seed,
            batch_size=self.batch_size,
            total=own if progress else None,
        )
        try:
            with self.passes:
                self._work(idle=max(counts) - own if self.world.lockstep else 0)
        except Exception as error:
            self.world.fail(error)
            raise
        self.world.meet("done")
        return self._summed()

    def _work(self, *, idle: int) -> None:
        scout = self.images.scout.to(self.subject.device)
        self._open_tables(self.passes.sites(self.passes.scout(scout), scout))
        for block in self.images.blocks:
            placed = block.to(self.subject.device)
            self.passes.run_clean(placed, partial(self._write, placed))
        for _ in range(idle):
            self.passes.run(scout, scout.rows(0, 1), ignore, draw="idle", num_rows=1)

    def _count(self, rank: int) -> int:
        """How many passes a process runs: the scout's, and those over its blocks."""
        deal = self.images.deal
        blocks = [deal[0], *deal[rank :: self.world.size]]
        return sum(len(slices(len(block), self.batch_size)) for block in blocks) + (1 if len(deal[0]) > 2 else 0)

    def _write(self, block: Block, name: str, activation: Tensor, rows: slice) -> None:
        if name not in self.rows:
            return
        if self.shapes[name] != tuple(activation.shape[1:]):
            raise ValueError(
                f"layer {name!r} gave activations of shape {self.shapes[name]} and of {tuple(activation.shape[1:])}; "
                "features of all images can only be compared at one size: give the probe images of one size"
            )
        ids = slice(block.ids.start + rows.start, block.ids.start + rows.stop)
        for row in self.rows[name]:
            self.tables[row.name][ids] = _in_pieces(row.take, activation, self.tables[row.name].dtype)
        self.filled[name][ids] = 1

    def _open_tables(self, sites: list[Site]) -> None:
        device, number = self.subject.device, self.images.num_images
        for site in sites:
            if site.kind == "layer":
                self.shapes[site.name] = site.shape
                self.rows[site.name] = self._rows_of(site)
                for row in self.rows[site.name]:
                    self.tables[row.name] = torch.zeros(
                        number, row.width, dtype=accumulation_dtype(device), device=device
                    )
                self.filled[site.name] = torch.zeros(number, dtype=accumulation_dtype(device), device=device)
        widths = [(row.name, row.width) for rows in self.rows.values() for row in rows]
        self.world.meet(f"{stable_seed(repr(widths))} for {len(widths)} layers", what="the layers that run")
        if "pooled_for_their_size" in self.findings.facts:
            names = ", ".join(self.findings.facts["pooled_for_their_size"])
            self.findings.warn(
                f"these layers were pooled although flatten=True, since the features of {number} images would take "
                f"more than {MOST_FLATTENED_BYTES >> 20} MiB in each: {names}"
            )

    def _rows_of(self, site: Site) -> list[_Row]:
        width = torch.Size(site.shape).numel()
        if self.flatten and 8 * width * self.images.num_images <= MOST_FLATTENED_BYTES:
            return [_Row(site.name, _flattened, width)]
        if self.flatten:
            self.findings.facts.setdefault("pooled_for_their_size", []).append(site.name)
        pooled = [readout for readout in readouts_of(site) if readout.site.representation == "pooled"]
        return [_Row(r.site.name, _flattening(r.take), torch.Size(r.site.shape).numel()) for r in pooled]

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
        features = Features(tables, tuple(self.rows), embedding, self.findings)
        features.note()
        return features

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
            "activation_dtypes": self.passes.dtypes,
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
