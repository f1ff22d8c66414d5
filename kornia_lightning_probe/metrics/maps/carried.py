"""A layer's map carried along with a view that moves pixels, and what several metrics take from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from kornia_lightning_probe.activations.about import About
from kornia_lightning_probe.activations.cells import Cells
from kornia_lightning_probe.activations.clean import CleanBlock
from kornia_lightning_probe.functional.grid_warp import GridWarp
from kornia_lightning_probe.functional.memory import piece_of
from kornia_lightning_probe.functional.warping import masked_squared_distance


class CarriedMap:
    """One layer's maps under a view that moves pixels, and what several metrics take from them, each computed once.

    Args:
        about: at a site that is a map.
        cells: the site's.
        warp: the view's transform on the layer's grid.
        most: at most so many of the block's images are looked at, the first ones, which are as good as any since images
            are dealt into blocks by chance; values of the others are NaN. None: all.

    Attributes:
        clean: a, (b, C, H, W), of the b images that are looked at.
        augmented: b, likewise.
        warp: as given; T'a is `warp.carried(clean)`.
    """

    def __init__(self, about: About, cells: Cells, warp: GridWarp, *, most: int | None = None) -> None:
        self.warp = warp
        self._num_rows, start = len(about.clean), int(about.shown.rows.start)
        few = self._num_rows
        if most is not None:
            few = min(max(most - start, 0), few)
        self._rows = slice(start, start + few)
        self.clean = cells.as_map(about.clean)[:few]
        self.augmented = cells.as_map(about.augmented)[:few]
        # Not the record itself, which remembers this map: nothing would free the two but a garbage collection.
        self._block, self._shown, self._as_map = about.block, about.shown, cells.as_map
        self._last: tuple[slice, Tensor] | None = None
        self._most = most

    @cached_property
    def distance(self) -> Tensor:
        """``|mask * (b_i - T'a_i)|^2``, (B,), NaN for images that are not looked at, as all that follow."""
        return self._by_pieces(self.warp.mask, self._carried, self.augmented)

    @cached_property
    def distance_in_place(self) -> Tensor:
        """``|mask * (b_i - a_i)|^2``, (B,)."""
        return self._by_pieces(self.warp.mask, self.augmented.__getitem__, self.clean)

    @cached_property
    def distance_back(self) -> Tensor:
        """``|mask_back * (T'^-1 T'a_i - a_i)|^2``, (B,)."""
        back = self.warp.carried_back
        return self._by_pieces(self.warp.mask_back, lambda piece: back(self._carried(piece), piece), self.clean)

    @cached_property
    def deviation(self) -> Tensor:
        """``e_i`` over the cells of the mask, (B,); NaN where there are none."""
        return self._deviation_over(self.warp.mask)

    @cached_property
    def deviation_back(self) -> Tensor:
        """``e_i`` over the cells of the mask of the way back, (B,); NaN where there are none."""
        return self._deviation_over(self.warp.mask_back)

    def _carried(self, piece: slice) -> Tensor:
        """T'a of some images; the last answer is kept, and where a map is one piece that is all there is."""
        if self._last is None or self._last[0] != piece:
            self._last = piece, self.warp.carried(self.clean[piece], piece)
        return self._last[1]

    def _by_pieces(self, mask: Tensor, maps: Callable[[slice], Tensor], others: Tensor) -> Tensor:
        temporaries = self._shown.temporaries

        def distance(piece: slice) -> Tensor:
            other = others[piece]
            return masked_squared_distance(maps(piece), other, mask[piece], buffer=temporaries.like(other))

        # No second copy of the whole activation is held, and a piece is still in the cache when it is read again.
        step, count = max(1, len(piece_of(self.clean))), len(self.clean)
        pieces = [distance(slice(start, min(start + step, count))) for start in range(0, count, step)]
        return self._filled_up(torch.cat(pieces) if pieces else self.clean.new_empty(0))

    def _deviation_over(self, mask: Tensor) -> Tensor:
        block, rows, as_map = self._block, self._rows, self._as_map
        mask = mask[: len(self.clean)]
        energy, factor = block.remember(
            ("equivariance", "energy", self._most), lambda: _energy(block, as_map, self._most)
        )
        masked = (energy[rows] * mask).flatten(1).sum(1, dtype=factor.dtype)
        return self._filled_up(torch.where(mask.flatten(1).any(1), masked * factor[rows], torch.nan))

    def _filled_up(self, values: Tensor) -> Tensor:
        return functional.pad(values, (0, self._num_rows - len(values)), value=math.nan)


def _energy(block: CleanBlock, as_map: Callable[[Tensor], Tensor], most: int | None) -> tuple[Tensor, Tensor]:
    """Each cell's squared distance from the mean image over all channels, (m, H, W), and what makes e of its sum, (n,).

    The second is n/(n-1), or what a deviation known from reference images is to the image's own.
    """
    maps, mean = as_map(block.activation)[:most], as_map(block.mean)
    energy = torch.cat([(piece - mean).square_().sum(1) for piece in torch.split(maps, len(piece_of(maps)))])
    return energy, torch.where(block.squared_deviation == 0, 0.0, block.deviation / block.squared_deviation)
