"""Where the cells of a feature grid lie in the image."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Phase = Literal["half-pixel", "corner", "unpadded"]
Size = tuple[int, int]


def grid_to_image(image_size: Size, grid_size: Size, *, phase: Phase = "half-pixel") -> Tensor:
    r"""The matrix G that takes a cell of a feature grid to the pixel at its centre.

    "half-pixel": :math:`x = s\,(x_f + 1/2) - 1/2` with s = image side / grid side, so that the cells tile the image;
    right for pooled, patchified and resized maps. "corner": :math:`x = s\,x_f`, right for chains of stride-2
    convolutions of odd size with symmetric padding, whose first cell lies on the first pixel; there s is the stride,
    see :func:`stride_of`. "unpadded": a grid of the stride of :func:`unpadded_stride` in the middle of the image, right
    for chains of convolutions without padding. All are the identity where the grid is as large as the image.

    Args:
        image_size: height and width in pixels.
        grid_size: height and width in cells.
        phase: where cells lie.

    Returns:
        (3, 3) float64.

    Example:
        >>> centre = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
        >>> grid_to_image((8, 8), (4, 4)) @ centre
        tensor([0.5000, 0.5000, 1.0000], dtype=torch.float64)
        >>> grid_to_image((8, 8), (4, 4), phase="corner") @ centre
        tensor([0., 0., 1.], dtype=torch.float64)
        >>> grid_to_image((8, 8), (6, 6), phase="unpadded") @ centre  # a 3 x 3 convolution
        tensor([1., 1., 1.], dtype=torch.float64)
    """
    matrix = torch.eye(3, dtype=torch.float64)
    for axis, (pixels, cells) in enumerate(zip(reversed(image_size), reversed(grid_size), strict=True)):
        strides = {"corner": stride_of, "unpadded": unpadded_stride}
        scale = strides[phase](pixels, cells) if phase in strides else pixels / cells
        matrix[axis, axis] = scale
        # The middle of the grid is that of the image; (scale - 1) / 2 where the cells tile it.
        matrix[axis, 2] = 0.0 if phase == "corner" else (pixels - 1 - scale * (cells - 1)) / 2
    return matrix


def stride_of(pixels: int, cells: int) -> float:
    """The stride of a chain of stride-2 convolutions that left so many cells of so many pixels.

    Each halves a side and rounds up, so 9 pixels become 5 and then 3 cells at a stride of 4, not 9 / 3.

    Args:
        pixels: side of the image.
        cells: side of the grid.

    Returns:
        The power of two with ceil(pixels / stride) = cells, the largest where there are several; pixels / cells where
        there is none.

    Example:
        >>> stride_of(9, 3), stride_of(224, 7), stride_of(12, 4)
        (4.0, 32.0, 3.0)
    """
    strides = [2.0**power for power in range(pixels.bit_length()) if -(-pixels // 2**power) == cells]
    return strides[-1] if strides else pixels / cells


def unpadded_stride(pixels: int, cells: int) -> float:
    """The stride of unpadded convolutions and poolings of stride 1 and 2 that left so many cells of so many pixels.

    Returns:
        The largest power of two that fits: such layers leave less of the image than a stride alone.

    Example:
        >>> unpadded_stride(32, 28), unpadded_stride(32, 14), unpadded_stride(32, 5)
        (1.0, 2.0, 4.0)
    """
    return 2.0 ** math.floor(math.log2(pixels / cells))
