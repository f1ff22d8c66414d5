"""How pooled features move under some views: what several metrics take from it, computed once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kornia_lightning_probe.activations.clean import CleanBlock


@dataclass(frozen=True)
class Movement:
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

    @classmethod
    def of(cls, block: CleanBlock, augmented: Tensor) -> Movement:
        """Compute the movement of a block.

        Args:
            block: the clean features, (n, C).
            augmented: the features under the views, (views, n, C).

        Example:
            >>> clean = torch.tensor([[0.0], [2.0], [5.0]])
            >>> movement = Movement.of(CleanBlock(clean), (clean + 3).unsqueeze(0))
            >>> movement.squared_length.tolist(), movement.shared.tolist(), movement.change.tolist()
            ([[9.0, 9.0, 9.0]], [[9.0, 9.0, 9.0]], [[9.0]])
        """
        # Subtracted in the features' own precision, which is exact where it matters, and squared in the widest.
        moved = torch.sub(augmented.flatten(2), block.activation.flatten(1)).to(block.squared_deviation.dtype)
        squares = moved.square()
        squared_length = squares.sum(2)
        # A squared length is finite where all of its terms are, which were float32.
        finite = block.valid & squared_length.isfinite()
        count = finite.sum(1, keepdim=True)
        others = torch.where(count > 1, count - 1, torch.nan)
        # Looking costs less than masking on the CPU; on an accelerator it would be waited for.
        is_masked = moved.device.type != "cpu" or not bool(finite.all())
        if is_masked:
            moved = moved.masked_fill(~finite.unsqueeze(2), 0.0)
            squares = squares.masked_fill(~finite.unsqueeze(2), 0.0)
            squared_length = torch.where(finite, squared_length, torch.nan)
        product = (moved * moved.sum(1, keepdim=True)).sum(2)
        centred = moved.add_(block.centred)
        if is_masked:
            centred.masked_fill_(~finite.unsqueeze(2), 0.0)
        centred.sub_(centred.sum(1, keepdim=True) / count.unsqueeze(2))
        deviation = centred.square_().sum(2) * (count / others)
        return cls(
            squared_length=squared_length,
            shared=(product - squared_length) / others,
            deviation=torch.where(finite, deviation, torch.nan),
            change=squares.sum(1) / count,
        )
