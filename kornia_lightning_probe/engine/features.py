"""The visitor that gathers the pooled clean features of all probe images, by image number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from kornia_lightning_probe.activations.readouts import readouts_of
from kornia_lightning_probe.activations.site import Site
from kornia_lightning_probe.engine.loop import Route, run_loop
from kornia_lightning_probe.engine.memory import PassSize
from kornia_lightning_probe.engine.notes import Findings
from kornia_lightning_probe.engine.passes import Passes
from kornia_lightning_probe.engine.processes import World
from kornia_lightning_probe.engine.scout import Scouted
from kornia_lightning_probe.engine.sighting import FirstLooks
from kornia_lightning_probe.functional.distances import accumulation_dtype
from kornia_lightning_probe.images.blocks import Block
from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.model.subject import Subject
from kornia_lightning_probe.results.drift import CleanFeatures
from kornia_lightning_probe.wording import listed

MOST_FLATTENED_BYTES = 32 * 2**20
"""A layer whose flattened table (N, d) in float64 is larger than this is pooled all the same."""

_PIECE = 2**20


@dataclass(frozen=True)
class Features:
    """What was gathered of some clean images.

    Args:
        clean: one row of features for each image and layer; the embedding is its class token, where it has one.
        findings: what was left out and why, and what else is known.
    """

    clean: CleanFeatures
    findings: Findings


def collect_features(
    subject: Subject,
    images: ProbeImages,
    *,
    size: PassSize | None = None,
    seed: int = 0,
    flatten: bool = False,
    progress: bool = False,
    world: World | None = None,
    looks: FirstLooks | None = None,
) -> Features:
    """Run a model over clean images and gather the pooled features of every layer.

    The model runs in eval mode and is left as it was. Every row is written by the one process that owns the image;
    adding the zeros of all others is exact, so the tables do not depend on the number of processes.

    Args:
        subject: the model, its layers and how it is called.
        images: the images, with the blocks of this process.
        size: how many images go into one forward pass; None: up to 32.
        seed: of the random stream that a forward pass finds.
        flatten: take whole activations instead of the spatial or token mean, where a layer's table takes at most
            32 MiB (16384 features at N = 256); other layers are pooled and named in the findings.
        progress: whether to show a bar.
        world: the other processes; three collectives in all, and one more where images have labels.
        looks: what has been seen of the model, of these images, before; None looks anew.

    Returns:
        The features, the same on every process.

    Raises:
        ValueError: for an unknown embedding, or a layer that was named exactly and gave no activation.
        RuntimeError: where another process has failed or sees different layers.
    """
    findings = Findings()
    visitor = Gathering(images.num_images, findings, device=subject.device, flatten=flatten)
    route = Route(
        images,
        size=size or PassSize(),
        seed=seed,
        progress=progress,
        world=world or World(),
        looks=looks or FirstLooks(),
    )
    run_loop(subject, route, visitor, findings)
    return visitor.features()


@dataclass
class _Layer:
    """A layer's tables, and what is written into each."""

    filled: Tensor
    tables: dict[str, Tensor] = field(default_factory=dict)
    takes: dict[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)


class Gathering:
    """Keeps each image's features of every layer.

    Args:
        num_images: N.
        findings: where it is noted what is too large to be flattened.
        device: where tables live until they are summed.
        flatten: whether whole activations are taken, where they fit.
    """

    wants_scores = False

    def __init__(self, num_images: int, findings: Findings, *, device: torch.device, flatten: bool) -> None:
        self._num_images = num_images
        self._findings = findings
        self._device = device
        self._flatten = flatten
        self._layers: dict[str, _Layer] = {}

    def check(self) -> None:
        """Nothing: a bank has a range, clean images have none."""

    def opening_passes(self, num_images: int, size: int) -> int:  # noqa: ARG002 - for all visitors
        """None."""
        return 0

    def block_passes(self, num_images: int, size: int) -> int:  # noqa: ARG002 - for all visitors
        """None."""
        return 0

    def open(self, scouted: Scouted, passes: Passes) -> None:  # noqa: ARG002 - for all visitors
        """Make a table for each way in which a layer is read."""
        too_large: list[str] = []
        for site in scouted.sites:
            if site.kind == "layer":
                layer = self._layers[site.name] = _Layer(self._zeros())
                for name, take, width in self._ways(site, too_large):
                    layer.tables[name] = self._zeros(width)
                    layer.takes[name] = take
        if too_large:
            self._findings.facts["pooled_for_their_size"] = too_large
            self._findings.warn(
                f"these layers were pooled although flatten=True, since the features of {self._num_images} images "
                f"would take more than {MOST_FLATTENED_BYTES >> 20} MiB in each: "
                f"{listed(too_large, most=len(too_large))}"
            )
        self._findings.facts["readout"] = "flattened" if self._flatten else "pooled"

    def see(self, block: Block, clean: Mapping[str, Tensor], passes: Passes) -> None:  # noqa: ARG002 - for all visitors
        """Write the rows of a block."""
        ids = slice(block.ids.start, block.ids.stop)
        for name, layer in self._layers.items():
            if name in clean:
                for row, table in layer.tables.items():
                    table[ids] = _in_pieces(layer.takes[row], clean[name], table.dtype)
                layer.filled[ids] = 1

    def tables(self) -> list[Tensor]:
        """All tables, and which rows are filled."""
        return [table for layer in self._layers.values() for table in (*layer.tables.values(), layer.filled)]

    def drop(self, layers: Sequence[str]) -> None:
        """Leave out layers that can't be compared after all."""
        for layer in layers:
            self._layers.pop(layer, None)

    def let_go(self) -> None:
        """Free the tables."""
        self._layers = {}

    def features(self) -> Features:
        """What was gathered, once all processes have been summed."""
        tables: dict[str, Tensor] = {}
        for layer in self._layers.values():
            missing = layer.filled.cpu() == 0
            for name, table in layer.tables.items():
                tables[name] = table.to("cpu", torch.float64)
                tables[name][missing] = torch.nan
        facts = self._findings.facts
        embedding = next(iter(self._layers[facts["embedding"]].tables))
        clean = CleanFeatures(tables, tuple(self._layers), embedding, facts["content_hash"], facts["readout"])
        self._findings.non_finite(clean.missing.unsqueeze(0), list(tables), facts["image_ids"])
        self._findings.dead(clean.dead)
        return Features(clean, self._findings)

    def _ways(self, site: Site, too_large: list[str]) -> list[tuple[str, Callable[[Tensor], Tensor], int]]:
        """The name of a table, what is taken of an activation for it, and its width."""
        width = prod(site.shape)
        if self._flatten and 8 * width * self._num_images <= MOST_FLATTENED_BYTES:
            return [(site.name, _flattened, width)]
        if self._flatten:
            too_large.append(site.name)
        pooled = [readout for readout in readouts_of(site) if readout.site.representation == "pooled"]
        return [(readout.site.name, readout.take, prod(readout.site.shape)) for readout in pooled]

    def _zeros(self, *width: int) -> Tensor:
        return torch.zeros(self._num_images, *width, dtype=accumulation_dtype(self._device), device=self._device)


def _in_pieces(take: Callable[[Tensor], Tensor], activation: Tensor, wide: torch.dtype) -> Tensor:
    """Read an activation in the widest float, a few images at a time: a wide copy of all of it would be large."""
    rows = max(1, _PIECE // max(1, activation[0].numel()))
    taken = [take(part.to(wide)) for part in torch.split(activation, rows)]
    return torch.cat(taken).flatten(1)


def _flattened(activation: Tensor) -> Tensor:
    return activation.flatten(1)
