"""The cells of an activation: where they lie in the image, and how they are brought into the order of a map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from kornia_lightning_probe.functional.grids import Grid


def _as_it_is(activation: Tensor) -> Tensor:
    return activation


@dataclass(frozen=True)
class Cells:
    """The cells of an activation. Two are equal where theirs lie alike, in whatever order.

    Args:
        grid: where they lie.
        as_map: brings the activations of images, (B, ...), into (B, C, rows, columns), row by row, without what belongs
            to no cell, such as a class token; by default they are so already.

    Example:
        >>> import torch
        >>> tokens = Cells(Grid.tiling((8, 8), (2, 2)), lambda x: x.transpose(1, 2).unflatten(2, (2, 2)))
        >>> tuple(tokens.as_map(torch.zeros(5, 4, 7)).shape)
        (5, 7, 2, 2)
    """

    grid: Grid
    as_map: Callable[[Tensor], Tensor] = field(default=_as_it_is, compare=False, repr=False)
