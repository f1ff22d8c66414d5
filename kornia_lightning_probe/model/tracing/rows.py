"""Where the images are in an activation, and how to bring them to the front."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod

from torch import Tensor

from kornia_lightning_probe.model.tracing.arrangement import Arrangement
from kornia_lightning_probe.model.tracing.runs import Atom, Axis, Framed, LostError, Vector, nowhere, refined, size_of

ENTRY, IMAGE = 0, 1
"""The coordinates of rows."""


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
    rows: Vector
    way: Vector = ()

    @property
    def is_channel(self) -> bool:
        """Whether it stays with one image and in one place."""
        return not any(self.rows) and not any(self.way)


@dataclass(frozen=True)
class Frame:
    """Cells within a dimension of a view: `count` from `first` on, to be viewed as `runs`."""

    dimension: int
    first: int
    count: int
    runs: tuple[int, ...]

    def taken_off(self, tensor: Tensor) -> Tensor:
        """The cells alone, their runs as dimensions."""
        cells = tensor.narrow(self.dimension, self.first, self.count)
        before, after = cells.shape[: self.dimension], cells.shape[self.dimension + 1 :]
        return cells.reshape(*before, *self.runs, *after)


@dataclass(frozen=True)
class Order:
    """How to bring an activation into order: view it as its runs, leave out what frames them, permute, join.

    Args:
        view: the runs' counts, -1 for the images.
        frames: what lies within frames, last dimension first.
        permutation: of the runs.
        shape: in the end, -1 for the images.
    """

    view: tuple[int, ...]
    frames: tuple[Frame, ...]
    permutation: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        in_order = self.permutation == tuple(range(len(self.view)))
        return in_order and self.view == self.shape and not self.frames

    def __call__(self, activation: Tensor) -> Tensor:
        """The activation in order; a view of it where that is possible."""
        if self.is_idle and activation.ndim == len(self.shape):
            return activation
        ordered = activation.reshape(self.view)
        for frame in self.frames:
            ordered = frame.taken_off(ordered)
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

        >>> import torch
        >>> rows = rows_of(Arrangement.of_image((9, 4, 8), (-1, 1)), 4)
        >>> rows.axis, [tuple(part.shape) for part in rows.unfold(torch.zeros(9, 4, 8))]
        (1, [(4, 9, 8)])
    """

    axis: int | None
    images: int
    entries: tuple[int, ...]
    order: Order = field(repr=False)

    @property
    def is_folded(self) -> bool:
        """Whether its rows are images times something else: windows, inner blocks, slices or frames."""
        return self.axis is None

    def unfold(self, activation: Tensor) -> tuple[Tensor, ...]:
        """The activation, of any number of images, as (N, ...): one for each of `entries`, or one of all."""
        ordered = self.order(activation)
        if len(self.entries) < 2:
            return (ordered,)
        return ordered.unbind(0)


def rows_of(rows: Arrangement, images: int) -> Rows:
    """Reads where the images are.

    Args:
        rows: where the activation's elements lie, in (entry, image).
        images: how many images there are.

    Raises:
        LostError: Images are mixed, rolled, or some are missing.
    """
    parts = parts_of(rows, None, images)
    at_entries, at_images = along_rows(parts, ENTRY), along_rows(parts, IMAGE)
    _require_images(parts, at_images, images)
    if rows.spread[IMAGE] or rows.at[IMAGE] or any(rows.roll):
        raise LostError("images are mixed with one another")
    entries = _entries(rows, parts, at_entries)
    leading = [*at_entries, *at_images]
    rest = [index for index in range(len(parts)) if index not in leading]
    pure = {parts[index].axis for index in leading} - {parts[index].axis for index in rest}
    counts = [_left_on_axis(parts, rest, axis) for axis in range(len(rows.axes)) if axis not in pure]
    view = [part.count for part in parts]
    view[at_images[0]] = -1
    lead = [len(entries), -1] if at_entries else [-1]
    order = Order(tuple(view), (), (*leading, *rest), (*lead, *counts))
    axis = None
    if len(leading) == len(pure) == 1:
        axis = pure.pop()
    return Rows(axis, images, entries, order)


def parts_of(rows: Arrangement, grid: Arrangement | None, images: int) -> list[Part]:
    """All runs of an activation's axes, outermost first, what lies within frames by itself.

    Args:
        rows: where its elements lie, in (entry, image).
        grid: where they lie in pixels, None where that does not matter.
        images: how many images there are.

    Raises:
        LostError: Images and cells are interwoven.
    """
    parts: list[Part] = []
    if images == 1 and rows.shape[:1] == (1,):
        # A single image is no run; it is the first axis where that holds one element.
        way = nowhere(grid.dims) if grid else ()
        parts.append(Part(1, 0, (Fraction(0), Fraction(1)), way))
    for axis, atoms in enumerate(rows.axes):
        if grid is None:
            parts.extend(_row(axis, atom) for atom in atoms)
            continue
        for row, cell in pairs_of(atoms, grid.axes[axis]):
            parts.extend(_cells(axis, row, cell))
    return parts


def pairs_of(rows: Axis, cells: Axis) -> list[tuple[Atom, Atom]]:
    """An axis's parts of equal length, as rows and as cells."""
    if size_of(rows) != size_of(cells):
        raise LostError("rows and cells are of different sizes")
    return refined(rows, cells)


def along_rows(parts: Sequence[Part], coordinate: int) -> list[int]:
    """The parts that walk along entries, or images, in the order of these."""
    found = [index for index, part in enumerate(parts) if part.rows[coordinate]]
    return sorted(found, key=lambda index: -abs(parts[index].rows[coordinate]))


def count_of(parts: Sequence[Part], indices: Iterable[int]) -> int:
    """How many elements some parts have together."""
    return prod(parts[index].count for index in indices)


def _row(axis: int, atom: Atom) -> Part:
    if isinstance(atom, Framed):
        raise LostError("images beside other rows")
    return Part(atom.count, axis, atom.step)


def _cells(axis: int, row: Atom, cell: Atom) -> list[Part]:
    if isinstance(row, Framed):
        raise LostError("images beside other rows")
    if not isinstance(cell, Framed):
        return [Part(row.count, axis, row.step, cell.step)]
    if any(row.step):
        raise LostError("rows and cells are interwoven")
    return [Part(run.count, axis, row.step, run.step) for run in cell.runs]


def _require_images(parts: Sequence[Part], at_images: Sequence[int], images: int) -> None:
    if not at_images or count_of(parts, at_images) != images:
        raise LostError("no axis holds all images")
    step = Fraction(images)
    for index in at_images:
        step /= parts[index].count
        if parts[index].rows[ENTRY] or parts[index].rows[IMAGE] != step:
            raise LostError("images in no order")


def _entries(rows: Arrangement, parts: Sequence[Part], at_entries: Sequence[int]) -> tuple[int, ...]:
    """The entries that follow one another, one where there is one, none where some were taken together."""
    if rows.spread[ENTRY] or rows.at[ENTRY].denominator != 1:
        return ()
    if len(at_entries) > 1:
        raise LostError("entries are interwoven")
    first = int(rows.at[ENTRY])
    if not at_entries:
        return (first,)
    part = parts[at_entries[0]]
    step = int(part.rows[ENTRY])
    return tuple(first + step * index for index in range(part.count))


def _left_on_axis(parts: Sequence[Part], rest: Sequence[int], axis: int) -> int:
    return count_of(parts, [index for index in rest if parts[index].axis == axis])
