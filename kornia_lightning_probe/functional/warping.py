"""Pure kernels that carry an image's geometric transform to a feature grid and apply it to maps.

A matrix maps source to destination as Kornia's `transform_matrix` does, from where something was to where it is now,
with (x, y) and integers at the centres of pixels or cells. Sampling asks where something comes from, so it inverts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
from torch import Tensor

from kornia_lightning_probe.functional.distances import accumulation_dtype, squared_difference
from kornia_lightning_probe.functional.grids import Size

#: What rounding in a float32 matrix may do to a coordinate, in pixels or cells.
TOLERANCE = 1e-3

# A coordinate that is outside of any grid, in grid_sample's unit.
_FAR = 4.0


def carried_to_grid(matrix: Tensor, to_image: Tensor) -> Tensor:
    r"""A pixel matrix as it acts on a feature grid, :math:`M_f = G^{-1} M G`.

    Args:
        matrix: M, (B, 3, 3), source to destination in pixels.
        to_image: G of :meth:`~kornia_lightning_probe.functional.grids.Grid.to_image`, (3, 3).

    Returns:
        (B, 3, 3) float64, source to destination in cells.

    Example:
        >>> shift = torch.eye(3)[None]
        >>> shift[0, 0, 2] = 4.0  # pixels to the right, which are 2 cells of 2 pixels
        >>> from kornia_lightning_probe.functional.grids import Grid
        >>> float(carried_to_grid(shift, Grid.tiling((8, 8), (4, 4)).to_image())[0, 0, 2])
        2.0
    """
    carried: Tensor = torch.linalg.inv_ex(to_image).inverse @ matrix.double() @ to_image
    return carried


def transform_cells(
    matrix: Tensor, size: Size, *, onto: Size | None = None, device: torch.device | None = None
) -> Tensor:
    """Where a matrix sends each cell of a grid, in the unit of `grid_sample`: -1 and 1 are the outermost cells.

    Args:
        matrix: (B, 3, 3), from cells to cells.
        size: height and width of the grid.
        onto: those of the grid that they are sent to; default: the same.
        device: of the result; default: the matrix's.

    Returns:
        (B, H, W, 2) float32, (x, y). Far outside where the point lies at infinity or behind the camera (w <= 0), or the
        matrix isn't finite.

    Example:
        >>> flip = torch.tensor([[[-1.0, 0.0, 2.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]])
        >>> transform_cells(flip, (2, 3))[0, 0]  # the upper row, -1 0 1, mirrored
        tensor([[ 1., -1.],
                [ 0., -1.],
                [-1., -1.]])
    """
    height, width = size
    down, across = _spans(size if onto is None else onto)
    scaled = torch.tensor([[2 / across, 0, -1], [0, 2 / down, -1], [0, 0, 1]]).to(matrix) @ matrix
    scaled = torch.where(scaled.isfinite().all(-1).all(-1)[:, None, None], scaled, _far_away(scaled))
    is_affine = bool((scaled[:, 2] == scaled.new_tensor([0.0, 0.0, 1.0])).all())
    # Without waiting for the device, which has other work.
    scaled = scaled.to(torch.float32).to(device or matrix.device, non_blocking=True)
    y = torch.arange(float(height), device=scaled.device).repeat_interleave(width)
    x = torch.arange(float(width), device=scaled.device).repeat(height)
    points = scaled[:, : 2 if is_affine else 3] @ torch.stack([x, y, torch.ones_like(x)])
    if not is_affine:
        depth = points[:, 2:]
        points = torch.where(depth > 0, points[:, :2] / depth, _FAR)
    return points.view(-1, 2, height, width).permute(0, 2, 3, 1)


def _far_away(matrix: Tensor) -> Tensor:
    return matrix.new_tensor([[0.0, 0.0, _FAR], [0.0, 0.0, _FAR], [0.0, 0.0, 1.0]])


def inside(points: Tensor, size: Size) -> Tensor:
    """Which points lie between the centres of a grid's outermost cells, where all that interpolation asks for is known.

    Args:
        points: (..., 2) of :func:`transform_cells`.
        size: height and width of the grid.

    Returns:
        (...) bool.

    Example:
        >>> inside(torch.tensor([[-1.0, 0.5], [1.1, 0.5]]), (3, 3))
        tensor([ True, False])
    """
    down, across = _spans(size)
    x, y = points.abs().unbind(-1)
    return (x <= 1 + 2 * TOLERANCE / across) & (y <= 1 + 2 * TOLERANCE / down)


def _spans(size: Size) -> tuple[float, float]:
    """From the first cell to the last; a single one, which would be no unit, is taken to be as wide as rounding."""
    height, width = size
    return max(height - 1, TOLERANCE), max(width - 1, TOLERANCE)


def eroded(mask: Tensor) -> Tensor:
    """The cells whose eight neighbours are in the mask too; what lies outside of the grid isn't.

    Args:
        mask: (B, H, W) bool.

    Returns:
        (B, H, W) bool.

    Example:
        >>> eroded(torch.ones(1, 3, 4, dtype=torch.bool)).int()
        tensor([[[0, 0, 0, 0],
                 [0, 1, 1, 0],
                 [0, 0, 0, 0]]], dtype=torch.int32)
    """
    rows = mask[:, :-2] & mask[:, 1:-1] & mask[:, 2:]
    inner = rows[..., :-2] & rows[..., 1:-1] & rows[..., 2:]
    return F.pad(inner, (1, 1, 1, 1))


def sample(maps: Tensor, points: Tensor) -> Tensor:
    """Read maps at points between their cells, bilinearly; outside, the nearest cell at the border.

    Args:
        maps: (B, C, H, W) float32 or float64.
        points: (B, H', W', 2) of :func:`transform_cells`.

    Returns:
        (B, C, H', W') in the maps' dtype.

    Example:
        >>> sample(torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]]), torch.zeros(1, 1, 1, 2)).item()  # the centre
        1.5
    """
    return F.grid_sample(maps, points.to(maps.dtype), mode="bilinear", padding_mode="border", align_corners=True)


def lie_on_cells(matrix: Tensor, size: Size) -> bool:
    """Whether a matrix sends every cell of a grid onto a cell, as flips and moves by whole cells do.

    Args:
        matrix: (B, 3, 3) from cells to cells; those that aren't finite send all cells far away.
        size: height and width of the grid.

    Example:
        >>> shift = torch.eye(3)[None]
        >>> shift[0, 0, 2] = 2.0
        >>> lie_on_cells(shift, (4, 4)), lie_on_cells(0.5 * shift, (4, 4))
        (True, False)
    """
    known = matrix[matrix.isfinite().all(-1).all(-1)]
    off = (known - known.round()).abs()
    # How far this carries the last cell off, and whether the lower row does nothing.
    farthest = (off[:, :2] * off.new_tensor([size[1], size[0], 1.0])).sum(-1)
    is_affine = known[:, 2] == known.new_tensor([0.0, 0.0, 1.0])
    return bool((farthest <= TOLERANCE).all() and is_affine.all())


def cells_at(points: Tensor, size: Size) -> Tensor:
    """The cells at which points lie, see :func:`lie_on_cells`.

    Args:
        points: (B, H, W, 2) of :func:`transform_cells`.
        size: height and width of the grid that is read.

    Returns:
        (B, H * W) int64, each cell's number row by row, of points outside the nearest one at the border.

    Example:
        >>> cells_at(torch.tensor([[[[1.0, -1.0], [0.0, -1.0], [-1.0, -1.0]]]]), (2, 3))
        tensor([[2, 1, 0]])
    """
    down, across = _spans(size)
    x, y = points.unbind(-1)
    column = ((x + 1) / 2 * across).round().clamp(0, across).long()
    row = ((y + 1) / 2 * down).round().clamp(0, down).long()
    return (row * size[1] + column).flatten(1)


def moves(matrix: Tensor, image_size: Size) -> Tensor:
    """Which matrices move a corner of the image by more than rounding.

    Args:
        matrix: (B, 3, 3), source to destination in pixels.
        image_size: height and width in pixels.

    Returns:
        (B,) bool; True for a matrix that isn't finite.

    Example:
        >>> moves(torch.eye(3).repeat(2, 1, 1) + torch.tensor([0.0, 1.0]).view(2, 1, 1), (8, 8))
        tensor([False,  True])
    """
    x, y = (float(side - 1) for side in reversed(image_size))
    corners = matrix.new_tensor([[0.0, x, 0.0, x], [0.0, 0.0, y, y], [1.0, 1.0, 1.0, 1.0]])
    moved = matrix @ corners
    still = (moved - corners * moved[:, 2:]).abs() <= TOLERANCE * moved[:, 2:]
    return ~still.flatten(1).all(1)


def masked_squared_distance(maps: Tensor, others: Tensor, mask: Tensor, *, buffer: Tensor) -> Tensor:
    """Squared distance of each pair of maps over the cells of a mask, summed over cells in float64.

    Args:
        maps: (B, C, H, W).
        others: (B, C, H, W), or (1, C, H, W).
        mask: (B, H, W) bool; a NaN outside of it still tells.
        buffer: of the shape and dtype of ``maps``; is overwritten.

    Returns:
        (B,) float64 (float32 on MPS), in [0, inf).

    Example:
        >>> maps, mask = torch.tensor([[[[3.0, 5.0]], [[4.0, 5.0]]]]), torch.tensor([[[True, False]]])
        >>> masked_squared_distance(maps, torch.zeros(1, 2, 1, 2), mask, buffer=torch.empty_like(maps))
        tensor([25.], dtype=torch.float64)
    """
    energy = squared_difference(maps, others, out=buffer).sum(1)
    return (energy * mask).flatten(1).sum(1, dtype=accumulation_dtype(maps.device))
