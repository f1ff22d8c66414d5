"""How one image's activation lies in space: which of its axes are the grid, which the channels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from kornia_lightning_probe.functional.grids import Size

# Layers without padding change the ratio of unequal sides by no more than this, as a logarithm.
_UNLIKE = 0.1


@dataclass(frozen=True)
class Layout:
    """The axes of one image's activation.

    Args:
        kind: "vector" (D), "map" (C, H, W), "channels last" (H, W, C), "tokens" (T, D), "depth first" (T, C, H, W) or
            (D, C, H, W), or "other": more axes, of which the first are the channels.
        size: height and width of the grid, or None where there is none.
        has_class_token: whether the first token belongs to no cell of the grid.

    Example:
        >>> layout_of((197, 768))
        Layout(kind='tokens', size=(14, 14), has_class_token=True)
        >>> layout_of((64, 64, 128), image_size=(256, 512)).kind, layout_of((64, 128, 96), image_size=(256, 512)).kind
        ('map', 'channels last')
    """

    kind: Literal["vector", "map", "channels last", "tokens", "depth first", "other"]
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


def layout_of(
    shape: tuple[int, ...], *, image_size: Size | None = None, depth: int | None = None, is_folded: bool = False
) -> Layout:
    """Read an activation's layout from its shape and from that of the images.

    Three axes are a (C, H, W) map, as torch has it, unless a stride leaves the first two of the images, and neither a
    stride nor layers without padding leave the last two. A sequence lies on a grid where so many square patches make
    up the images, or leave a rest of them at a border; one token more is a class token.

    Of volumes and video four axes are (C, D, H, W) or (C, T, H, W), as torch has it, unless the first of them has as
    many entries as there are slices or frames, and the second has more: these do not grow. Sequences lie on no grid
    there.

    Args:
        shape: of one image's activation.
        image_size: height and width of the images; None takes square ones.
        depth: of volumes and video, the number of slices or frames.
        is_folded: whether slices or frames were rows of the batch in the model, and are the first axis now.

    Example:
        >>> layout_of((36, 8), image_size=(16, 36)).size, layout_of((33, 8), image_size=(64, 128))
        ((4, 9), Layout(kind='tokens', size=(4, 8), has_class_token=True))
    """
    image = image_size or (1, 1)
    if depth is not None and len(shape) > 1:
        return _layout_in_depth(shape, image, depth, is_folded=is_folded)
    if len(shape) == 3:
        first, last = shape[:2], shape[1:]
        is_map = _is_left_by_stride(last, image) or _is_left_unpadded(last, image)
        if _is_left_by_stride(first, image) and not is_map:
            return Layout("channels last", first)
        return Layout("map", last)
    if len(shape) == 2:
        grid = _grid_of(shape[0], image)
        with_class = None if grid or shape[0] < 5 else _grid_of(shape[0] - 1, image)
        return Layout("tokens", grid or with_class, has_class_token=with_class is not None)
    return Layout("vector" if len(shape) < 2 else "other")


def _layout_in_depth(shape: tuple[int, ...], image: Size, depth: int, *, is_folded: bool) -> Layout:
    """The layout of an activation of a volume or a clip."""
    if len(shape) == 2:
        return Layout("tokens", has_class_token=not is_folded and _has_class_token(shape[0], depth, image))
    if len(shape) == 3:
        # A map of an image as a whole, or tokens of each slice or frame.
        return Layout("channels last", shape[:2]) if is_folded else Layout("map", shape[1:])
    grows = shape[0] == depth and shape[1] > depth
    return Layout("depth first" if is_folded or grows else "other")


def _has_class_token(tokens: int, depth: int, image: Size) -> bool:
    """Whether so many tokens are those of patches of a volume or clip and one more."""
    return tokens > 4 and _are_patches(tokens - 1, depth, image) and not _are_patches(tokens, depth, image)


def _are_patches(cells: int, depth: int, image: Size) -> bool:
    for stride in _strides(image):
        layers, rest = divmod(cells, (image[0] // stride) * (image[1] // stride))
        if rest == 0 and layers > 0 and depth % layers == 0:
            return True
    return False


def _grid_of(cells: int, image: Size) -> Size | None:
    """The grid of so many cells with the ratio of the image, or one that patches leave with a rest at the border."""
    height = math.isqrt(cells * image[0] // image[1])
    if height > 0 and cells % height == 0 and _has_ratio((height, cells // height), image):
        return height, cells // height
    if image[0] == image[1]:
        return None
    with_rest = ((image[0] // stride, image[1] // stride) for stride in _strides(image))
    return next((grid for grid in with_rest if grid[0] * grid[1] == cells), None)


def _is_left_by_stride(grid: Size, image: Size) -> bool:
    """Whether a stride leaves this grid of the image: one that divides both sides, or a power of two, rounded."""
    if _has_ratio(grid, image) or image[0] == image[1]:
        return _has_ratio(grid, image)
    return any(
        all(cells in (side // stride, -(-side // stride)) for cells, side in zip(grid, image, strict=True))
        for stride in _strides(image)
    )


def _is_left_unpadded(grid: Size, image: Size) -> bool:
    """Whether layers without padding, which take as much off both sides, leave this grid of the image."""
    if image[0] == image[1]:
        return grid[0] == grid[1]
    if min(grid) == 0 or abs(math.log(grid[0] * image[1] / (grid[1] * image[0]))) > _UNLIKE:
        return False
    lost = [(image[0] / stride - grid[0], image[1] / stride - grid[1]) for stride in _strides(image)]
    # By one more or less where a stride does not divide a side.
    return any(min(sides) >= 0 and abs(sides[0] - sides[1]) <= 1 for sides in lost)


def _has_ratio(grid: Size, image: Size) -> bool:
    return grid[0] * image[1] == grid[1] * image[0]


def _strides(image: Size) -> list[int]:
    return [2**power for power in range(min(image).bit_length())]
