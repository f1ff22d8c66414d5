"""How one image's activation lies in space: which of its axes are the grid, which the channels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from math import isqrt
from typing import Literal

from torch import Tensor

from kornia_lightning_probe.grids import Size

# By so much more than a map's sides, as logarithms, its channels must differ from a side to be told from one. Unpadded
# convolutions take as much off both sides, and so change the ratio of two unequal ones.
_UNLIKE = 0.1


@dataclass(frozen=True)
class Layout:
    """The axes of one image's activation.

    Args:
        kind: "vector" (D), "map" (C, H, W), "channels last" (H, W, C), "tokens" (T, D), or "other": more axes, of which
            the first are the channels.
        size: height and width of the grid, or None where there is none.
        has_class_token: whether the first token belongs to no cell of the grid.

    Example:
        >>> layout_of((197, 768))
        Layout(kind='tokens', size=(14, 14), has_class_token=True)
        >>> layout_of((64, 64, 128), image_size=(256, 512)).kind, layout_of((64, 128, 96), image_size=(256, 512)).kind
        ('map', 'channels last')
    """

    kind: Literal["vector", "map", "channels last", "tokens", "other"]
    size: Size | None = None
    has_class_token: bool = False

    def as_map(self, activation: Tensor) -> Tensor:
        """The spatial part of activations (B, ...) that lie on a grid, as a (B, C, H, W) view."""
        if self.kind == "map":
            return activation
        if self.kind == "channels last":
            return activation.permute(0, 3, 1, 2)
        patches = activation[:, 1:] if self.has_class_token else activation
        return patches.transpose(1, 2).unflatten(2, self.size)  # type: ignore[no-untyped-call, no-any-return]


def layout_of(shape: tuple[int, ...], *, image_size: Size | None = None) -> Layout:
    """Read an activation's layout from its shape and from that of the images.

    Three axes are a (C, H, W) map, as torch has it, unless the first two have the images' ratio of sides and the last
    two clearly don't. A sequence lies on a grid where so many tokens make one that some stride leaves of the images;
    one token more is a class token.

    Args:
        shape: of one image's activation.
        image_size: height and width of the images; None takes square ones.

    Example:
        >>> layout_of((36, 8), image_size=(16, 36)).size, layout_of((33, 8), image_size=(64, 128))
        ((4, 9), Layout(kind='tokens', size=(4, 8), has_class_token=True))
    """
    image = image_size or (1, 1)
    if len(shape) == 3:
        last = _is_left_of(shape[:2], image) and not _is_like(shape[1:], image)
        return Layout("channels last", shape[:2]) if last else Layout("map", shape[1:])
    if len(shape) == 2:
        grid = _grid_of(shape[0], image)
        with_class = None if grid or shape[0] < 5 else _grid_of(shape[0] - 1, image)
        return Layout("tokens", grid or with_class, has_class_token=with_class is not None)
    return Layout("vector" if len(shape) < 2 else "other")


def _grid_of(cells: int, image: Size) -> Size | None:
    """The grid of so many cells that a stride can leave of the image; the one closest in shape where there are more."""
    pairs = {
        pair
        for divisor in range(1, isqrt(cells) + 1)
        if cells % divisor == 0
        for pair in ((divisor, cells // divisor), (cells // divisor, divisor))
    }
    return min((pair for pair in pairs if _is_left_of(pair, image)), key=lambda pair: _apart(pair, image), default=None)


def _is_left_of(grid: Size, image: Size) -> bool:
    """Whether one stride leaves this grid of the image, both sides rounded down or both rounded up."""
    if image[0] == image[1]:
        return grid[0] == grid[1]
    sides = list(zip(image, grid, strict=True))
    down = max(pixels / (cells + 1) for pixels, cells in sides) < min(pixels / cells for pixels, cells in sides)
    up = max(pixels / cells for pixels, cells in sides) < min(
        pixels / (cells - 1) if cells > 1 else math.inf for pixels, cells in sides
    )
    even = sides[0][0] * sides[1][1] == sides[1][0] * sides[0][1]
    return down or up or even


def _is_like(grid: Size, image: Size) -> bool:
    """Whether a grid may be one of such images, unpadded convolutions included."""
    return grid[0] == grid[1] if image[0] == image[1] else _apart(grid, image) <= _UNLIKE


def _apart(grid: Size, image: Size) -> float:
    """By how much the ratios of sides differ, as logarithms."""
    return abs(math.log(grid[0] * image[1] / (grid[1] * image[0])))
