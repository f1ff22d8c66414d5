"""How pooled features move: what several metrics take from it, computed once, for all layers of one width together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from kornia_lightning_probe.activations.clean import CleanBlock


class Movement(NamedTuple):
    r"""The movement ``b - a`` of a block's pooled features under some views, all in float64 (float32 on MPS).

    Images that are not finite, with or without the view, are left out of every sum and mean.

    Args:
        squared_length: :math:`w_i = |b_i - a_i|^2`, (views, n); NaN where an image is not finite.
        shared: :math:`u_i`, the mean product with the movement of the block's other images, (views, n); NaN where there
            is no other.
        deviation: :math:`e_i` of the augmented features about their own mean, (views, n); NaN likewise.
        change: each channel's mean squared movement, (views, C).
    """

    squared_length: Tensor
    shared: Tensor
    deviation: Tensor
    change: Tensor


class Movements:
    """The movements of some layers of one width: the first that is asked for brings all.

    Torch takes as long to start an operation on features of one layer as to carry it out.

    Args:
        blocks: each layer's clean features, (n, C).
        augmented: each layer's features under the views, (views, n, C).
        rows: which of the blocks' rows the n are.

    Example:
        >>> clean = torch.tensor([[0.0], [2.0], [5.0]])
        >>> movement = Movements([CleanBlock(clean)], [(clean + 3).unsqueeze(0)])[0]
        >>> movement.squared_length.tolist(), movement.shared.tolist(), movement.change.tolist()
        ([[9.0, 9.0, 9.0]], [[9.0, 9.0, 9.0]], [[9.0]])
    """

    def __init__(self, blocks: Sequence[CleanBlock], augmented: Sequence[Tensor], *, rows: slice = slice(None)) -> None:
        self._blocks, self._augmented, self._rows = blocks, augmented, rows

    def __getitem__(self, layer: int) -> Movement:
        """The movement of one of the layers."""
        return self._all[layer]

    @cached_property
    def _all(self) -> list[Movement]:
        wide = self._blocks[0].squared_deviation.dtype
        # (layers, views, n, C), with one view for what is clean.
        clean, centred = (
            torch.stack([getattr(block, name) for block in self._blocks])[:, self._rows].flatten(2).unsqueeze(1)
            for name in ("activation", "centred")
        )
        valid = torch.stack([block.valid for block in self._blocks])[:, self._rows].unsqueeze(1)
        # Subtracted in the features' own precision, which is exact where it matters, and squared in the widest.
        moved = torch.stack(list(self._augmented)).flatten(3).sub_(clean).to(wide)
        squares = moved.square()
        squared_length = squares.sum(3)
        # A squared length is finite where all of its terms are, which were float32.
        finite = valid & squared_length.isfinite()
        count = finite.sum(2, keepdim=True)
        others = torch.where(count > 1, count - 1, torch.nan)
        # Looking costs less than masking on the CPU; on an accelerator it would be waited for.
        is_masked = moved.device.type != "cpu" or not bool(finite.all())
        if is_masked:
            for entries in (moved, squares):
                entries.masked_fill_(~finite.unsqueeze(3), 0.0)
            squared_length = torch.where(finite, squared_length, torch.nan)
        shared = ((moved * moved.sum(2, keepdim=True)).sum(3) - squared_length) / others
        change = squares.sum(2) / count
        centred = moved.add_(centred)
        if is_masked:
            centred.masked_fill_(~finite.unsqueeze(3), 0.0)
        centred.sub_(centred.sum(2, keepdim=True) / count.unsqueeze(3))
        deviation = centred.square_().sum(3) * (count / others)
        if is_masked:
            deviation = torch.where(finite, deviation, torch.nan)
        return [Movement(*layer) for layer in zip(squared_length, shared, deviation, change, strict=True)]
