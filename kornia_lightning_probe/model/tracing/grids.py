"""Where the cells of an activation lie in the image, and how to bring them into a map's order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from kornia_lightning_probe.model.tracing.arrangement import Arrangement
from kornia_lightning_probe.model.tracing.rows import (
    ENTRY,
    IMAGE,
    Frame,
    Order,
    Part,
    along_rows,
    count_of,
    pairs_of,
    parts_of,
)
from kornia_lightning_probe.model.tracing.runs import Atom, Framed, LostError, Vector

#: Why a vector has no grid.
NO_CELLS = "no cells: a vector"


@dataclass(frozen=True)
class Grid:
    """Where the cells of an activation lie: cell i at `offset + stride * i` pixels, give or take `spread`.

    Two grids are equal if their cells lie alike, however they are arranged in their activations.

    Args:
        size: cells along each coordinate, (rows, columns) of a map.
        stride: pixels from one cell to the next.
        offset: the pixel of the first cell's centre, at integer centres.
        spread: how far branches that were added up lie off that; at most a quarter of the stride, but for outputs.
        axes: the tensor's axes that hold cells: (2, 3) of a map, (1,) of tokens.
        is_raster: whether cells come row by row; else :meth:`maps` brings them into order.

    Example:
        >>> grid = grid_of(Arrangement.of_image((2, 3, 5, 7), (2, 3)), None, 2)
        >>> grid.size, [float(stride) for stride in grid.stride], grid.axes
        ((5, 7), [1.0, 1.0], (2, 3))
    """

    size: tuple[int, ...]
    stride: Vector
    offset: Vector
    spread: Vector
    axes: tuple[int, ...] = field(compare=False)
    is_raster: bool = field(compare=False)
    entries: int = field(repr=False, compare=False)
    order: Order = field(repr=False, compare=False)
    order_of_rows: Order = field(repr=False, compare=False)

    def maps(self, activation: Tensor) -> tuple[Tensor, ...]:
        """The activation's cells as (N, C, *size), without class tokens, one for each entry as in `Rows.unfold`."""
        ordered = self.order(activation)
        if self.entries < 2:
            return (ordered,)
        return ordered.unbind(0)

    def map_of_rows(self, activation: Tensor) -> Tensor:
        """The cells as (N, C, *size) of what `Rows.unfold` gives, (N, ...), for one of its entries."""
        return self.order_of_rows(activation)

    def matrix(self) -> Tensor:
        """The matrix (3, 3) float64 that takes a cell (x, y, 1) of a map to its pixel (x, y, 1)."""
        # Coordinates are (down, right), points (x, y).
        strides = [float(stride) for stride in reversed(self.stride)]
        offsets = [float(offset) for offset in reversed(self.offset)]
        matrix = torch.diag(torch.tensor([*strides, 1.0], dtype=torch.float64))
        matrix[:-1, -1] = torch.tensor(offsets, dtype=torch.float64)
        return matrix


def grid_of(grid: Arrangement, rows: Arrangement | None, images: int, *, may_disagree: bool = False) -> Grid:
    """Reads where the cells are.

    Args:
        grid: where the activation's elements lie, in pixels.
        rows: where they lie in (entry, image); None takes the first axis for the images.
        images: how many images there are.
        may_disagree: whether branches that are added up may lie further apart than half a stride.

    Raises:
        LostError: There are no cells (`NO_CELLS`), or they lie on no grid; the text says why.
    """
    if not grid.has_cells:
        raise LostError(NO_CELLS)
    if any(grid.roll):
        raise LostError("its cells are rolled")
    rows = rows or Arrangement.of_image(grid.shape, (-1, 0))
    parts = parts_of(rows, grid, images)
    lines = [_line(parts, coordinate) for coordinate in range(grid.dims)]
    if not may_disagree:
        _refuse_misaligned(lines, grid.spread)
    at_cells = [index for line in lines for index in line.parts]
    at_entries, at_images = along_rows(parts, ENTRY), along_rows(parts, IMAGE)
    if not at_images:
        raise LostError("no axis of images")
    leading = {*at_cells, *at_entries, *at_images}
    channels = [index for index in range(len(parts)) if index not in leading]
    size = tuple(line.cells for line in lines)
    shape = (-1, count_of(parts, channels), *size)
    entries = count_of(parts, at_entries)
    if at_entries:
        shape = (entries, *shape)
    dimensions = _dimensions(grid, rows)
    order = _order(dimensions, (*at_entries, *at_images, *channels, *at_cells), shape)
    order_of_rows = _order(
        _of_one_entry(dimensions, at_entries, at_images), (*at_images, *channels, *at_cells), shape[-len(size) - 2 :]
    )
    return Grid(
        size=size,
        stride=tuple(line.stride for line in lines),
        offset=_offset(parts, channels, grid),
        spread=grid.spread,
        axes=tuple(sorted({parts[index].axis for index in at_cells})),
        is_raster=at_cells == sorted(at_cells),
        entries=entries,
        order=order,
        order_of_rows=order_of_rows,
    )


class _Line(NamedTuple):
    """The parts that walk along one coordinate, coarsest first, how many cells these are, and how far apart."""

    parts: list[int]
    cells: int
    stride: Fraction


def _line(parts: Sequence[Part], coordinate: int) -> _Line:
    found = _walking(parts, coordinate)
    if not found:
        raise LostError("its cells lie along one coordinate only")
    cells = 1
    stride = parts[found[-1]].way[coordinate]
    for index in reversed(found):
        way = parts[index].way
        if way.count(Fraction(0)) < len(way) - 1:
            raise LostError("its cells lie askew")
        if way[coordinate] != stride * cells:
            raise LostError("its cells lie on no even grid")
        cells *= parts[index].count
    return _Line(found, cells, stride)


def _walking(parts: Sequence[Part], coordinate: int) -> list[int]:
    """The parts that walk along a coordinate, coarsest first; pixels that became channels of a cell are none."""
    with_channels = {part.axis for part in parts if part.is_channel}
    found = [index for index, part in enumerate(parts) if part.way[coordinate]]
    apart = [index for index in found if parts[index].axis not in with_channels]
    return sorted(apart or found, key=lambda index: -abs(parts[index].way[coordinate]))


def _offset(parts: Sequence[Part], channels: Sequence[int], grid: Arrangement) -> Vector:
    """The place of the first cell: the middle of the pixels that became its channels."""
    offset = list(grid.at)
    for index in channels:
        half = Fraction(parts[index].count - 1, 2)
        for coordinate, step in enumerate(parts[index].way):
            offset[coordinate] += step * half
    return tuple(offset)


def _refuse_misaligned(lines: Sequence[_Line], spread: Vector) -> None:
    for line, width in zip(lines, spread, strict=True):
        if 4 * width > abs(line.stride):
            raise LostError(f"branches disagree by up to {float(2 * width):.4g} px")


class _Dimension(NamedTuple):
    """A dimension of an activation that is viewed as its runs: how long it is, -1 of images, and which parts it holds.

    What lies within a frame is several parts, from `lead` on, as long as `runs`.
    """

    length: int
    parts: tuple[int, ...]
    runs: tuple[int, ...] = ()
    lead: int = 0


def _dimensions(grid: Arrangement, rows: Arrangement) -> list[_Dimension]:
    """The dimensions, in the order of the parts of `parts_of`."""
    found: list[_Dimension] = []
    images_left = True
    if not rows.walks_along(IMAGE):
        found.append(_Dimension(-1, (0,)))
        images_left = False
    number = len(found)
    for row_atoms, cell_atoms in zip(rows.axes, grid.axes, strict=True):
        for row, cell in pairs_of(row_atoms, cell_atoms):
            count, lead = row.count, 0
            runs: tuple[int, ...] = ()
            if isinstance(cell, Framed):
                runs, lead = tuple(run.count for run in cell.runs), cell.lead
            if images_left and _is_images(row):
                count, images_left = -1, False
            parts = tuple(range(number, number + max(1, len(runs))))
            found.append(_Dimension(count, parts, runs, lead))
            number += len(parts)
    return found


def _of_one_entry(
    dimensions: Sequence[_Dimension], at_entries: Sequence[int], at_images: Sequence[int]
) -> list[_Dimension]:
    """The dimensions of one entry's images, in the order in which `Rows.unfold` gives them: images first."""
    images = [dimension for part in at_images for dimension in dimensions if part in dimension.parts]
    leading = {*at_entries, *at_images}
    return images + [dimension for dimension in dimensions if leading.isdisjoint(dimension.parts)]


def _order(dimensions: Sequence[_Dimension], wanted: Sequence[int], shape: tuple[int, ...]) -> Order:
    """How to bring these dimensions into the order of the wanted parts, joined to a shape."""
    frames = [
        Frame(place, dimension.lead, prod(dimension.runs), dimension.runs)
        for place, dimension in enumerate(dimensions)
        if dimension.runs
    ]
    parts = [part for dimension in dimensions for part in dimension.parts]
    permutation = tuple(parts.index(part) for part in wanted)
    return Order(tuple(dimension.length for dimension in dimensions), tuple(reversed(frames)), permutation, shape)


def _is_images(row: Atom) -> bool:
    return not isinstance(row, Framed) and row.step[IMAGE] != 0
