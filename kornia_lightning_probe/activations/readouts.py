"""What is taken from an activation before it is compared: all of it, or its pooled features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

import torch
from torch import Tensor

from kornia_lightning_probe.activations.layout import Layout
from kornia_lightning_probe.activations.site import Site
from kornia_lightning_probe.functional.distances import accumulation_dtype

# By so many roundings do means differ that should be the same: of the sum, and of a cell where all share it.
_OF_SUMS, _SHARED = 8, 2


@dataclass(frozen=True)
class Readout:
    """A way to read one layer's activation.

    Args:
        site: the layer as its metrics know it.
        pick: from an activation (B, ...) to the part of it that is read, a view.
        over: the axes of that part that are averaged over.
        cells: the number of entries along these axes.
        is_wide: whether sums are taken and kept in float64, see :meth:`rounding`.
        is_nothing: whether the means hold rounding only, and are taken as 0, see :meth:`rounding`.
    """

    site: Site
    pick: Callable[[Tensor], Tensor]
    over: tuple[int, ...] = ()
    cells: int = 1
    is_wide: bool = False
    is_nothing: bool = False

    def take(self, activation: Tensor) -> Tensor:
        """What is compared, (B, ...); what is pooled is in memory of its own."""
        part = self.pick(activation)
        if self.site.representation == "activation":
            return part
        if not self.over:
            return part.clone()
        wide = accumulation_dtype(part.device) if self.is_wide else part.dtype
        total = part.sum(self.over, dtype=wide)
        return self.settle(total)

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

    def settle(self, rows: Tensor) -> Tensor:
        """Make what :meth:`put` has written, under one view or many, into what :meth:`take` gives, in place."""
        if self.is_nothing:
            return rows.zero_()
        return rows.div_(self.cells) if self.over else rows

    def rounding(self, activation: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
        """What rounding is beside that by which the means of images differ; None where nothing is averaged.

        A mean over many cells hides a spread much smaller than that of single cells behind a mean that stays as large,
        and loses it in float32. Where a normalisation over space makes the means of all images the same, what they
        still differ by is the rounding of the cells themselves: of their sum, or of what was subtracted from them all.

        Args:
            activation: the clean activations of a block, (n, ...), half precision as float32.
            dtype: in which the model has computed them.

        Returns:
            Two scalars: the rounding of the means relative to their distance from the mean image, and that of the
            cells. Images that are not finite are left out; of one image, infinite and 0.
        """
        if not self.over:
            return None
        pooled = replace(self, is_wide=True).take(activation)
        known = pooled.isfinite().all(1)
        if int(known.sum()) < 2:
            return pooled.new_tensor(torch.inf), pooled.new_tensor(0.0)
        cells = self.pick(activation)
        if not bool(known.all()):
            pooled, cells = pooled[known], cells[known]
        apart = torch.linalg.vector_norm(pooled - pooled.mean(0))
        length = torch.linalg.vector_norm(pooled)
        size = torch.linalg.vector_norm(cells, dtype=pooled.dtype) / self.cells**0.5
        summed, computed = torch.finfo(activation.dtype).eps, torch.finfo(dtype).eps
        # A mean of nothing but the rounding of what was subtracted, which half precision shares among all cells.
        is_nothing_else = length < 2 * _SHARED * computed * size
        rounded = torch.where(is_nothing_else, max(_OF_SUMS * summed, _SHARED * computed), _OF_SUMS * summed)
        return summed / 2 * length / apart, rounded * size / apart


def readouts_of(site: Site) -> Iterator[Readout]:
    """All ways to read a site: its activation, and its pooled features.

    Pooled are the spatial mean of a map, the token mean of a sequence, and a vector as it is. A sequence with a class
    token (see :func:`~kornia_lightning_probe.activations.layout.layout_of`) gives two, ``name:cls`` and ``name:patch``,
    and the mean over all of its tokens under its own name.

    Example:
        >>> [(r.site.name, r.site.representation) for r in readouts_of(Site("block", 1, (197, 768)))]
        [('block', 'activation'), ('block:cls', 'pooled'), ('block:patch', 'pooled'), ('block', 'mean')]
    """
    yield Readout(site, _as_it_is)
    if site.kind != "output":
        yield from _pooled(site, site.layout)


def _pooled(site: Site, layout: Layout) -> Iterator[Readout]:
    shape = site.shape
    if not shape:
        yield _readout(site, (1,), _column)
    elif layout.has_class_token:
        yield _readout(site, shape[1:], _class_token, part="cls")
        yield _readout(site, shape[1:], _patches, over=(1,), part="patch")
        every = _readout(site, shape[1:], _as_it_is, over=(1,))
        yield replace(every, site=replace(every.site, representation="mean"))
    elif layout.kind == "tokens":
        yield _readout(site, shape[1:], _as_it_is, over=(1,))
    elif layout.kind == "depth first":
        yield _readout(site, shape[1:2], _as_it_is, over=(1, *range(3, len(shape) + 1)))
    elif layout.kind == "channels last":
        yield _readout(site, shape[2:], _as_it_is, over=(1, 2))
    elif layout.kind == "vector":
        yield _readout(site, shape, _as_it_is)
    else:
        yield _readout(site, shape[:1], _as_it_is, over=tuple(range(2, len(shape) + 1)))


def _readout(
    site: Site,
    shape: tuple[int, ...],
    pick: Callable[[Tensor], Tensor],
    *,
    over: tuple[int, ...] = (),
    part: Literal["", "cls", "patch"] = "",
) -> Readout:
    name = f"{site.name}:{part}" if part else site.name
    pooled = replace(site, name=name, shape=shape, representation="pooled", source=site.shape, part=part)
    picked = pick(torch.empty(1, *site.shape, device="meta"))
    return Readout(pooled, pick, over, prod(picked.shape) // max(1, prod(shape)))


def _as_it_is(activation: Tensor) -> Tensor:
    return activation


def _column(activation: Tensor) -> Tensor:
    return activation.unsqueeze(1)


def _class_token(activation: Tensor) -> Tensor:
    return activation[:, 0]


def _patches(activation: Tensor) -> Tensor:
    return activation[:, 1:]
