"""A view's transform as it acts on a feature grid: where cells come from, and which of them can tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import product

import torch
from torch import Tensor

from kornia_lightning_probe.functional.grids import Grid, Size
from kornia_lightning_probe.functional.warping import (
    TOLERANCE,
    carried_to_grid,
    cells_at,
    eroded,
    inside,
    lie_on_cells,
    moves,
    sample,
    transform_cells,
)


class GridWarp:
    """A view's transform as it acts on a feature grid: where cells come from, and which can tell.

    Nothing here depends on what a layer shows, so layers of one grid share it. What is not asked for is not computed.

    Args:
        matrix: (B, 3, 3), source to destination in pixels; it is worked out in float64, on the host.
        image_size: height and width in pixels.
        grid: where the cells lie, at least 3 along each axis.
        device: where maps are.
        through: of a chain, the matrices after each step but the last, (B, K, 3, 3): what has left the frame on the way
            does not come back.
        frames: height and width of the images after each of these steps; by default they stay as they are.

    Example:
        >>> shift = torch.eye(3)[None]
        >>> shift[0, 0, 2] = 2.0  # pixels, which are one cell
        >>> GridWarp(shift, (8, 8), Grid.tiling((8, 8), (4, 4))).mask.int()  # the first column comes from outside
        tensor([[[0, 0, 0, 0],
                 [0, 0, 1, 0],
                 [0, 0, 1, 0],
                 [0, 0, 0, 0]]], dtype=torch.int32)
    """

    def __init__(
        self,
        matrix: Tensor,
        image_size: Size,
        grid: Grid,
        *,
        device: torch.device | None = None,
        through: Tensor | None = None,
        frames: Sequence[Size] | None = None,
    ) -> None:
        height, width = grid.size
        self.size = (height, width)
        self._grid = grid
        self._device = matrix.device if device is None else device
        self._to_image = grid.to_image()
        host = matrix.detach().to("cpu", torch.float64)
        self._moved = moves(host, image_size)
        self._matrix = carried_to_grid(host, self._to_image)
        steps = () if through is None else through.detach().to("cpu", torch.float64).unbind(1)
        sizes = [image_size] * len(steps) if frames is None else frames
        self._way = list(zip(steps, sizes, strict=True))

    @cached_property
    def moves_any(self) -> bool:
        """Whether the view moves any of the images."""
        return bool(self._moved.any())

    @cached_property
    def sources(self) -> Tensor:
        """Where each cell's content was, (B, H, W, 2): T'f is `sample(f, sources)`."""
        return transform_cells(self._back, self.size, device=self._device)

    def carried(self, maps: Tensor, rows: slice = slice(None)) -> Tensor:
        """T'f: each cell shows what its source shows, interpolated where that lies between cells.

        Args:
            maps: (b, C, H, W), of some of the B images.
            rows: which these are.
        """
        return _read(maps, self.sources[rows], self._source_cells, rows)

    def carried_back(self, maps: Tensor, rows: slice = slice(None)) -> Tensor:
        """The way back: each cell of a carried map shows what its target shows, likewise."""
        return _read(maps, self.targets[rows], self._target_cells, rows)

    @cached_property
    def mask(self) -> Tensor:
        """Cells whose source lies inside, eroded by one; none for an image that stays put; (B, H, W) bool."""
        return eroded(self._has_source)

    @cached_property
    def kept(self) -> Tensor:
        """Cells whose pixels were in the frame after every step of the way, (B, H, W) bool.

        A cell's pixels are those within half a stride of its centre. What a step cuts off is lost there and then, in a
        frame of its own size, whatever comes back in its place: padding, or the far side of a resized image.
        """
        kept = torch.ones(len(self._matrix), *self.size, dtype=torch.bool, device=self._device)
        for step, frame in self._way:
            to_frame = step @ self._to_image @ self._back
            for corner in _corners_of_cells(self._grid):
                places = transform_cells(to_frame @ corner, self.size, onto=frame, device=self._device)
                kept &= inside(places, frame)
        return kept

    @cached_property
    def targets(self) -> Tensor:
        """Where each cell's content is now, (B, H, W, 2): the way back is `sample(T'f, targets)`."""
        return transform_cells(self._matrix, self.size, device=self._device)

    @cached_property
    def mask_back(self) -> Tensor:
        """Cells whose target lies inside and among cells that have a source, eroded by one; (B, H, W) bool."""
        share = sample(self._has_source.unsqueeze(1).float(), self.targets).squeeze(1)
        return eroded(inside(self.targets, self.size) & (share > 1 - 2 * TOLERANCE))

    @cached_property
    def _source_cells(self) -> Tensor | None:
        # Told on the host, so that nobody waits for the device.
        return cells_at(self.sources, self.size) if lie_on_cells(self._back, self.size) else None

    @cached_property
    def _target_cells(self) -> Tensor | None:
        return cells_at(self.targets, self.size) if lie_on_cells(self._matrix, self.size) else None

    @cached_property
    def _back(self) -> Tensor:
        # Not finite where the matrix is singular, which sends all cells far away.
        back: Tensor = torch.linalg.inv_ex(self._matrix).inverse
        return back

    @cached_property
    def _has_source(self) -> Tensor:
        moved = self._moved.to(self._device, non_blocking=True).view(-1, 1, 1)
        return inside(self.sources, self.size) & self.kept & moved


def _read(maps: Tensor, points: Tensor, cells: Tensor | None, rows: slice) -> Tensor:
    """Maps at points; exactly and without arithmetic where all of these lie on cells."""
    if cells is None:
        return sample(maps, points)
    there = cells[rows].unsqueeze(1).expand(-1, maps.shape[1], -1)
    return maps.flatten(2).gather(2, there).view(maps.shape)


def _corners_of_cells(grid: Grid) -> Iterator[Tensor]:
    """Matrices from a cell's centre to the pixels in its corners, in cells; the centre alone where it is one pixel."""
    halves = [max(0.0, 1 - 1 / abs(stride)) / 2 for stride in grid.stride]
    corners = product(*({-half, half} for half in halves))
    for down, right in corners:
        yield torch.tensor([[1.0, 0.0, right], [0.0, 1.0, down], [0.0, 0.0, 1.0]], dtype=torch.float64)
