"""What is taken from an activation before it is compared: all of it, or its pooled features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import prod

import torch
from torch import Tensor

from kornia_lightning_probe.activations.about import Site
from kornia_lightning_probe.activations.layout import Layout
from kornia_lightning_probe.functional.distances import accumulation_dtype
from kornia_lightning_probe.metrics.base import ProbeMetric

# An activation of at most so many numbers for each image is kept for the views to come: looking at several views at
# once costs less than looking at each, up to a size at which what is kept no longer fits into a processor's cache.
SMALL = 1024


@dataclass(frozen=True)
class Readout:
    """A way to read one layer's activation, and the metrics that are fed with it.

    Args:
        site: the layer as these metrics know it.
        pick: from an activation (B, ...) to the part of it that is read, a view.
        whole: whether the part is kept, and metrics get whole blocks under several views at once, however forward
            passes were cut; so for small readouts, and for metrics that must see whole blocks.
        over: the axes of that part that are averaged over.
        cells: the number of entries along these axes.
        is_wide: whether sums are taken and kept in float64, see :meth:`loses`.
        distances: all that is kept of the activation, by the names that About has for it; so for metrics that need no
            more, at activations that are too large to be kept.
        metrics: the prepared metrics.
    """

    site: Site
    pick: Callable[[Tensor], Tensor]
    whole: bool
    over: tuple[int, ...] = ()
    cells: int = 1
    is_wide: bool = False
    distances: tuple[str, ...] = ()
    metrics: list[ProbeMetric] = field(default_factory=list)

    def take(self, activation: Tensor) -> Tensor:
        """What is compared, (B, ...); where ``whole``, in memory of its own, since it outlives the forward pass."""
        part = self.pick(activation)
        if self.over:
            wide = accumulation_dtype(part.device) if self.is_wide else part.dtype
            return part.sum(self.over, dtype=wide).div_(self.cells)
        return part.clone() if self.whole else part

    def loses(self, activation: Tensor) -> Tensor | None:
        """How much of what images differ by would be lost by averaging in float32; None where nothing is averaged.

        A mean over many cells hides a spread much smaller than that of single cells behind a mean that stays as large.

        Returns:
            A scalar, the rounding of the pooled features relative to their distance from the mean image; images that
            are not finite are left out.
        """
        if not self.over or activation.dtype == accumulation_dtype(activation.device):
            return None
        pooled = replace(self, is_wide=True).take(activation)
        known = pooled.isfinite().all(1, keepdim=True)
        pooled = torch.where(known, pooled, 0.0)
        apart = torch.linalg.vector_norm(torch.where(known, pooled - pooled.sum(0) / known.sum(), 0.0))
        lost: Tensor = torch.finfo(torch.float32).eps / 2 * torch.linalg.vector_norm(pooled) / apart
        return lost

    def put(self, activation: Tensor, out: Tensor) -> None:
        """Write what :meth:`take` gives into memory that is there already, up to :meth:`settle`.

        New memory that outlives a forward pass makes the pass itself slower, by 4 % where all layers are small: what
        it allocates afterwards lies elsewhere, and not in the processor's cache.
        """
        part = self.pick(activation)
        if self.over:
            torch.sum(part, self.over, dtype=out.dtype, out=out)
        else:
            out.copy_(part)

    def settle(self, rows: Tensor) -> None:
        """Make what :meth:`put` has written, under one view or many, into what :meth:`take` gives, in place."""
        if self.over:
            rows.div_(self.cells)


def readouts_of(site: Site) -> Iterator[Readout]:
    """All ways to read a site: its activation, and its pooled features.

    Pooled are the spatial mean of a map, the token mean of a sequence, and a vector as it is. A sequence with a class
    token (see :func:`~kornia_lightning_probe.activations.layout.layout_of`) gives two, ``name:cls`` and ``name:patch``.

    Example:
        >>> [(r.site.name, r.site.representation) for r in readouts_of(Site("block", 1, (197, 768)))]
        [('block', 'activation'), ('block:cls', 'pooled'), ('block:patch', 'pooled')]
    """
    yield Readout(site, _as_it_is, whole=False)
    if site.kind == "output":
        return
    for suffix, shape, pick, over in _pooled(site.shape, site.layout):
        pooled = replace(site, name=site.name + suffix, shape=shape, representation="pooled", source=site.shape)
        cells = prod(pick(torch.empty(1, *site.shape, device="meta")).shape) // max(1, prod(shape))
        yield Readout(pooled, pick, whole=True, over=over, cells=cells)


def split_by_views(readout: Readout) -> list[Readout]:
    """Apart those metrics of an activation that can be fed with several views at once, and the others."""
    if readout.whole:
        return [readout]
    is_small = prod(readout.site.shape) <= SMALL
    # By hand, since a torchmetrics.Metric answers == with another metric.
    kept: list[ProbeMetric] = []
    measured: list[ProbeMetric] = []
    alone: list[ProbeMetric] = []
    for metric in readout.metrics:
        is_kept = metric.whole_blocks or (is_small and metric.merges_views)
        (kept if is_kept else measured if metric.distances and not is_small else alone).append(metric)
    names = tuple(dict.fromkeys(name for metric in measured for name in metric.distances))
    parts = (
        replace(readout, whole=True, metrics=kept),
        replace(readout, distances=names, metrics=measured),
        replace(readout, metrics=alone),
    )
    return [part for part in parts if part.metrics]


def _pooled(
    shape: tuple[int, ...], layout: Layout
) -> list[tuple[str, tuple[int, ...], Callable[[Tensor], Tensor], tuple[int, ...]]]:
    """Of each pooled readout: the end of its name, its shape, the part of an activation, and the axes that it takes."""
    if not shape:
        return [("", (1,), _column, ())]
    if layout.has_class_token:
        return [(":cls", shape[1:], _class_token, ()), (":patch", shape[1:], _patches, (1,))]
    if layout.kind == "tokens":
        return [("", shape[1:], _as_it_is, (1,))]
    if layout.kind == "channels last":
        return [("", shape[2:], _as_it_is, (1, 2))]
    if layout.kind == "vector":
        return [("", shape, _as_it_is, ())]
    return [("", shape[:1], _as_it_is, tuple(range(2, len(shape) + 1)))]


def _as_it_is(activation: Tensor) -> Tensor:
    return activation


def _column(activation: Tensor) -> Tensor:
    return activation.unsqueeze(1)


def _class_token(activation: Tensor) -> Tensor:
    return activation[:, 0]


def _patches(activation: Tensor) -> Tensor:
    return activation[:, 1:]
