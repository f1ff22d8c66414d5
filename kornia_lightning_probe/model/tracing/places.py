"""How the images and the cells of an activation are arranged in its axes, and how to bring them into order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod

import torch
from torch import Tensor

from kornia_lightning_probe.model.tracing.arrangement import Arrangement
from kornia_lightning_probe.model.tracing.runs import Atom, Framed, LostError, Run, nowhere, refined, size_of, walked

_ENTRY, _IMAGE = 0, 1


@dataclass(frozen=True)
class Part:
    """One run of an activation's axes.

    Args:
        count: of its elements.
        axis: the tensor's axis that it is a part of.
        rows: its step in (entry, image).
        way: its step in pixels.
    """

    count: int
    axis: int
    rows: tuple[Fraction, ...]
    way: tuple[Fraction, ...]

    @property
    def is_channel(self) -> bool:
        """Whether it stays with one image and in one place."""
        return not any(self.rows) and not any(self.way)


@dataclass(frozen=True)
class Order:
    """How to bring an activation into order: view it as its runs, leave out what frames them, permute, join.

    Args:
        view: the runs' counts, -1 for the images.
        frames: (dimension, first, cells, counts) of what lies within a frame, last dimension first.
        permutation: of the runs.
        shape: in the end, -1 for the images.
    """

    view: tuple[int, ...]
    frames: tuple[tuple[int, int, int, tuple[int, ...]], ...]
    permutation: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        moves = self.permutation != tuple(range(len(self.view)))
        return self.view == self.shape and not self.frames and not moves

    def __call__(self, activation: Tensor) -> Tensor:
        """The activation in order; a view of it where that is possible."""
        if self.is_idle and activation.ndim == len(self.shape):
            return activation
        ordered = activation.reshape(self.view)
        for dimension, first, cells, counts in self.frames:
            ordered = ordered.narrow(dimension, first, cells)
            ordered = ordered.reshape(*ordered.shape[:dimension], *counts, *ordered.shape[dimension + 1 :])
        return ordered.permute(self.permutation).reshape(self.shape)


@dataclass(frozen=True)
class Rows:
    """Where the images are in an activation.

    Args:
        axis: the axis along which they follow one another, 1 for sequence-first tokens; None where they are folded
            among others (windows, inner blocks, two images in one batch).
        images: how many there are.
        entries: which of the images' entries follow one another (left, right); one number where there is one entry,
            none where entries were taken together.

    Example:
        Tokens of four images, sequence first:

        >>> cells = Arrangement.of_image((9, 4, 8), (-1, 1))
        >>> rows = rows_of(cells, 4)
        >>> rows.axis, [tuple(part.shape) for part in rows.unfold(torch.zeros(9, 4, 8))]
        (1, [(4, 9, 8)])
    """

    axis: int | None
    images: int
    entries: tuple[int, ...]
    order: Order = field(repr=False)

    def unfold(self, activation: Tensor) -> tuple[Tensor, ...]:
        """The activation as (N, ...), one for each of `entries`, or one of all."""
        ordered = self.order(activation)
        if len(self.entries) < 2:
            return (ordered,)
        return ordered.unbind(0)


@dataclass(frozen=True)
class Grid:
    """Where the cells of an activation lie: cell i at `offset + stride * i` pixels, give or take `spread`.

    Args:
        size: cells along each coordinate, (rows, columns) of a map.
        stride: pixels from one cell to the next.
        offset: the pixel of the first cell's centre, at integer centres.
        spread: how far branches that were added up lie off that.
        axes: the tensor's axes that hold cells: (2, 3) of a map, (1,) of tokens.
        is_raster: whether cells come row by row; else :meth:`maps` brings them into order.

    Example:
        >>> grid = grid_of(Arrangement.of_image((2, 3, 5, 7), (2, 3)), None, 2)
        >>> grid.size, [float(stride) for stride in grid.stride], grid.axes
        ((5, 7), [1.0, 1.0], (2, 3))
    """

    size: tuple[int, ...]
    stride: tuple[Fraction, ...]
    offset: tuple[Fraction, ...]
    spread: tuple[Fraction, ...]
    axes: tuple[int, ...] = field(compare=False)
    is_raster: bool = field(compare=False)
    entries: int = field(repr=False, compare=False)
    order: Order = field(repr=False, compare=False)

    def maps(self, activation: Tensor) -> tuple[Tensor, ...]:
        """The activation's cells as (N, C, *size), without class tokens, one for each entry as in `Rows.unfold`."""
        ordered = self.order(activation)
        if self.entries < 2:
            return (ordered,)
        return ordered.unbind(0)

    def matrix(self) -> Tensor:
        """The matrix (3, 3) float64 that takes a cell (x, y, 1) of a map to its pixel (x, y, 1)."""
        columns = [float(stride) for stride in reversed(self.stride)]
        matrix = torch.diag(torch.tensor([*columns, 1.0], dtype=torch.float64))
        matrix[:-1, -1] = torch.tensor([float(offset) for offset in reversed(self.offset)], dtype=torch.float64)
        return matrix


def rows_of(rows: Arrangement, images: int) -> Rows:
    """Reads where the images are.

    Args:
        rows: where the activation's elements lie, in (entry, image).
        images: how many images there are.

    Raises:
        LostError: Images are mixed, rolled, or some are missing.
    """
    parts = _parts_of(rows, None, images)
    entries, images_at = _sorted(parts, _ENTRY), _sorted(parts, _IMAGE)
    _require_images(parts, images_at, images)
    if rows.spread[_IMAGE] or rows.at[_IMAGE] or any(rows.roll):
        raise LostError("images are mixed with one another")
    named = _entries(rows, parts, entries)
    taken = {*entries, *images_at}
    pure = _pure_axes(parts, taken)
    rest = [index for index in range(len(parts)) if index not in taken]
    counts = [prod(parts[index].count for index in rest if parts[index].axis == axis) for axis in _axes(rows, pure)]
    lead = (len(named), -1) if len(named) > 1 else (-1,)
    view = [part.count for part in parts]
    view[images_at[0]] = -1
    order = Order(tuple(view), (), (*entries, *images_at, *rest), (*lead, *counts))
    return Rows(_only_axis(parts, entries, images_at, pure), images, named, order)


def grid_of(grid: Arrangement, rows: Arrangement | None, images: int) -> Grid:
    """Reads where the cells are.

    Args:
        grid: where the activation's elements lie, in pixels.
        rows: where they lie in (entry, image); None takes the first axis for the images.
        images: how many images there are.

    Raises:
        LostError: There are no cells, or they lie on no grid; the text says why.
    """
    if not grid.has_cells:
        raise LostError("no cells: a vector")
    if any(grid.roll):
        raise LostError("its cells are rolled")
    rows = rows or Arrangement.of_image(grid.shape, (-1, 0))
    parts = _parts_of(rows, grid, images)
    mixed = _channel_axes(parts)
    walking = [_main(parts, coordinate, mixed) for coordinate in range(grid.dims)]
    if not all(walking):
        raise LostError("its cells lie along one coordinate only")
    cells = [index for several in walking for index in several]
    if len(set(cells)) < len(cells):
        raise LostError("its cells lie askew")
    places = [_line(parts, indices, coordinate) for coordinate, indices in enumerate(walking)]
    offset = _offset(parts, cells, grid)
    stride = tuple(step for _, step in places)
    _refuse_misaligned(stride, grid.spread)
    entries, images_at = _sorted(parts, _ENTRY), _sorted(parts, _IMAGE)
    if not images_at:
        raise LostError("no axis of images")
    taken = {*cells, *entries, *images_at}
    channels = [index for index in range(len(parts)) if index not in taken]
    size = tuple(count for count, _ in places)
    shape = (-1, _count(parts, channels), *size)
    if entries:
        shape = (_count(parts, entries), *shape)
    order = _order(grid, rows, (*entries, *images_at, *channels, *cells), shape)
    axes = tuple(sorted({parts[index].axis for index in cells}))
    return Grid(size, stride, offset, grid.spread, axes, cells == sorted(cells), _count(parts, entries), order)


def _parts_of(rows: Arrangement, grid: Arrangement | None, images: int) -> list[Part]:
    """All runs of the axes, outermost first, what lies within frames by itself."""
    parts: list[Part] = []
    if images == 1 and rows.shape[:1] == (1,):
        # A single image is no run; it is the first axis where that holds one element.
        parts.append(Part(1, 0, (Fraction(0), Fraction(1)), nowhere(grid.dims) if grid else ()))
    for axis, row_atoms in enumerate(rows.axes):
        cell_atoms = grid.axes[axis] if grid else row_atoms
        for row, cell in _pairs(row_atoms, cell_atoms):
            parts.extend(_parts(axis, row, cell if grid else None))
    return parts


def _pairs(first: Sequence[Atom], second: Sequence[Atom]) -> list[tuple[Atom, Atom]]:
    if size_of(tuple(first)) != size_of(tuple(second)):
        raise LostError("rows and cells are of different sizes")
    return refined(tuple(first), tuple(second))


def _parts(axis: int, row: Atom, cell: Atom | None) -> list[Part]:
    if isinstance(row, Framed):
        raise LostError("images beside other rows")
    if isinstance(cell, Framed):
        if any(row.step):
            raise LostError("rows and cells are interwoven")
        return [Part(run.count, axis, row.step, run.step) for run in cell.runs]
    return [Part(row.count, axis, row.step, cell.step if cell else ())]


def _sorted(parts: Sequence[Part], coordinate: int) -> list[int]:
    """The parts that walk along entries, or images, in the order of these."""
    found = [index for index, part in enumerate(parts) if part.rows[coordinate]]
    return sorted(found, key=lambda index: -abs(parts[index].rows[coordinate]))


def _require_images(parts: Sequence[Part], images_at: Sequence[int], images: int) -> None:
    if prod(parts[index].count for index in images_at) != images or not images_at:
        raise LostError("no axis holds all images")
    step = Fraction(images)
    for index in images_at:
        part = parts[index]
        step /= part.count
        if part.rows[_ENTRY] or part.rows[_IMAGE] != step:
            raise LostError("images in no order")


def _entries(rows: Arrangement, parts: Sequence[Part], entries: Sequence[int]) -> tuple[int, ...]:
    first = rows.at[_ENTRY]
    if rows.spread[_ENTRY] or first.denominator != 1:
        return ()
    if len(entries) > 1:
        raise LostError("entries are interwoven")
    for index in entries:
        part = parts[index]
        return tuple(int(first + step * part.rows[_ENTRY]) for step in range(part.count))
    return (int(first),)


def _pure_axes(parts: Sequence[Part], taken: set[int]) -> set[int]:
    """The axes that hold images or entries and nothing else."""
    inner = {part.axis for index, part in enumerate(parts) if index not in taken}
    return {parts[index].axis for index in taken} - inner


def _axes(rows: Arrangement, pure: set[int]) -> list[int]:
    return [axis for axis in range(len(rows.axes)) if axis not in pure]


def _only_axis(parts: Sequence[Part], entries: Sequence[int], images_at: Sequence[int], pure: set[int]) -> int | None:
    if entries or len(images_at) > 1 or len(pure) != 1:
        return None
    axis = next(iter(pure))
    return axis if all(parts[index].axis == axis for index in images_at) else None


def _channel_axes(parts: Sequence[Part]) -> set[int]:
    return {part.axis for part in parts if part.is_channel}


def _main(parts: Sequence[Part], coordinate: int, mixed: set[int]) -> list[int]:
    """The runs that walk along a coordinate, coarsest first; pixels that became channels of a cell are none."""
    found = [index for index, part in enumerate(parts) if part.way[coordinate]]
    pure = [index for index in found if parts[index].axis not in mixed]
    return sorted(pure or found, key=lambda index: -abs(parts[index].way[coordinate]))


def _line(parts: Sequence[Part], indices: Sequence[int], coordinate: int) -> tuple[int, Fraction]:
    """How many cells there are along a coordinate, and how far apart."""
    count, stride = 1, Fraction(0)
    for index in reversed(indices):
        part = parts[index]
        step = part.way[coordinate]
        if sum(1 for other in part.way if other) > 1:
            raise LostError("its cells lie askew")
        if stride and step != stride * count:
            raise LostError("its cells lie on no even grid")
        stride = stride or step
        count *= part.count
    return count, stride


def _offset(parts: Sequence[Part], cells: Sequence[int], grid: Arrangement) -> tuple[Fraction, ...]:
    """The place of the first cell: the middle of the pixels that became its channels."""
    offset = list(grid.at)
    for index, part in enumerate(parts):
        if index in cells:
            continue
        for coordinate, step in enumerate(part.way):
            offset[coordinate] += step * Fraction(part.count - 1, 2)
    return tuple(offset)


def _refuse_misaligned(stride: Sequence[Fraction], spread: Sequence[Fraction]) -> None:
    for step, width in zip(stride, spread, strict=True):
        if 4 * width > abs(step):
            raise LostError(f"branches disagree by up to {float(2 * width):.4g} px")


def _count(parts: Sequence[Part], indices: Sequence[int]) -> int:
    return prod(parts[index].count for index in indices)


def _order(grid: Arrangement, rows: Arrangement, permutation: tuple[int, ...], shape: tuple[int, ...]) -> Order:
    view: list[int] = []
    frames: list[tuple[int, int, int, tuple[int, ...]]] = []
    has_run = any(part.step[_IMAGE] for part in walked(rows.axes))
    if not has_run:
        view.append(-1)
    for row_atoms, cell_atoms in zip(rows.axes, grid.axes, strict=True):
        for row, cell in _pairs(row_atoms, cell_atoms):
            if isinstance(cell, Framed):
                counts = tuple(run.count for run in cell.runs)
                frames.append((len(view), cell.lead, size_of(cell.runs), counts))
            is_first = -1 not in view and isinstance(row, Run) and row.step[_IMAGE]
            view.append(-1 if is_first else row.count)
    return Order(tuple(view), tuple(reversed(frames)), permutation, shape)
