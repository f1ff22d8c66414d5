"""Where the elements of one tensor lie, and what happens to that when axes are moved, cut, resampled or reduced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from kornia_lightning_probe.model.tracing.runs import (
    Axis,
    Framed,
    LostError,
    Run,
    Vector,
    added,
    coordinates_of,
    is_bare,
    joined,
    nowhere,
    plain,
    regrouped,
    scaled,
    size_of,
    walked,
)


@dataclass(frozen=True)
class Arrangement:
    """Where the elements of a tensor lie, in coordinates of the image, or of (entry, image).

    A map (B, C, H, W) is ((B), (C), (H cells down), (W cells right)), tokens are ((B), (H, W), (C)); windows, unrolled
    tokens and patches are other arrangements of the same runs.

    Args:
        axes: for each axis of the tensor its runs.
        at: where the first element lies.
        spread: how far elements may lie off the place that they are said to lie at, on either side.
        roll: by how many cells they are rolled along each coordinate at present.
    """

    axes: tuple[Axis, ...]
    at: Vector
    spread: Vector
    roll: tuple[int, ...]

    @classmethod
    def of_image(cls, shape: Sequence[int], walks: Sequence[int], at: Vector | None = None) -> Arrangement:
        """A tensor that walks one step a cell along each coordinate.

        Args:
            shape: the tensor's.
            walks: for each coordinate the axis that walks along it, -1 for none.
            at: where its first element lies; None is the origin.
        """
        dims = len(walks)
        axes = [plain(count, dims) for count in shape]
        for coordinate, axis in enumerate(walks):
            step = tuple(Fraction(int(index == coordinate)) for index in range(dims))
            if axis >= 0:
                axes[axis] = joined([Run(shape[axis], step)])
        zero = nowhere(dims)
        return cls(tuple(axes), at or zero, zero, (0,) * dims)

    @property
    def dims(self) -> int:
        """The number of coordinates."""
        return len(self.at)

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's."""
        return tuple(size_of(axis) for axis in self.axes)

    @property
    def has_cells(self) -> bool:
        """Whether its elements lie in more than one place."""
        return not all(is_bare(axis) for axis in self.axes)

    def walks(self) -> tuple[tuple[bool, ...], ...]:
        """For each axis: along which coordinates it walks."""
        return tuple(coordinates_of(axis, self.dims) for axis in self.axes)

    def walks_along(self, coordinate: int) -> bool:
        """Whether any axis walks along a coordinate."""
        return any(run.step[coordinate] for run in walked(self.axes))

    def axes_along(self, coordinate: int) -> list[int]:
        """The axes that walk along a coordinate."""
        return [index for index, walk in enumerate(self.walks()) if walk[coordinate]]

    def plain(self, count: int) -> Axis:
        """An axis of so many elements in one place."""
        return plain(count, self.dims)

    def with_axis(self, index: int, axis: Axis) -> Arrangement:
        """The same with another axis in place of one."""
        return replace(self, axes=(*self.axes[:index], axis, *self.axes[index + 1 :]))

    def with_plain(self, index: int, count: int) -> Arrangement:
        """The same with an axis of so many elements in one place, as a map over channels leaves it."""
        return self.averaged(index).with_axis(index, self.plain(count))

    def without_axis(self, index: int) -> Arrangement:
        """The same without an axis of one element."""
        return replace(self, axes=self.axes[:index] + self.axes[index + 1 :])

    def with_new_axis(self, index: int) -> Arrangement:
        """The same with an axis of one element in front of one."""
        return replace(self, axes=(*self.axes[:index], (), *self.axes[index:]))

    def permuted(self, order: Sequence[int]) -> Arrangement:
        """The same with its axes in another order."""
        return replace(self, axes=tuple(self.axes[index] for index in order))

    def viewed(self, shape: Sequence[int]) -> Arrangement:
        """The same elements in another shape."""
        return replace(self, axes=regrouped(self.axes, shape))

    def line(self, index: int) -> tuple[Arrangement, Run]:
        """One axis as one run. Of cells and parts of a cell behind them, the parts lie evenly in the cell.

        Raises:
            LostError: The axis is no line.
        """
        axis = self.axes[index]
        if not axis:
            return self, Run(1, nowhere(self.dims))
        cell = axis[0]
        if isinstance(cell, Framed):
            raise LostError("cells beside tokens")
        if len(axis) == 1:
            return self, cell
        part = axis[1]
        if len(axis) > 2 or isinstance(part, Framed) or cell.is_bare or not part.is_bare:
            raise LostError("an axis that is no line of cells")
        fine = scaled(cell.step, Fraction(1, part.count))
        # The middle of the parts is where the cell was.
        first = added(self.at, fine, -Fraction(part.count - 1, 2))
        return replace(self, at=first), Run(cell.count * part.count, fine)

    def resampled(
        self,
        index: int,
        count: int,
        *,
        scale: Fraction | int = 1,
        shift: Fraction | int = 0,
        blur: Fraction | int = 0,
    ) -> Arrangement:
        """An axis whose element i is at place `scale * i + shift` among those that it had.

        Args:
            index: the axis.
            count: how many elements it has then.
            scale: elements from one to the next.
            shift: where the first one lies among the old ones.
            blur: how far an element may lie off, in old elements.
        """
        axis = self.axes[index]
        if scale == 1 and shift == 0 and count == size_of(axis):
            return self
        if is_bare(axis):
            return self.with_axis(index, self.plain(count))
        even, run = self.line(index)
        even._refuse_rolled(run)
        lengths = tuple(abs(way) for way in run.step)
        moved = replace(even, at=added(even.at, run.step, shift), spread=added(even.spread, lengths, blur))
        return moved.with_axis(index, joined([Run(count, scaled(run.step, scale))]))

    def cut(self, index: int, start: int, count: int, step: int = 1) -> Arrangement:
        """Every `step`th of an axis's elements from `start` on, `count` of them."""
        axis = self.axes[index]
        if is_bare(axis):
            return self.with_axis(index, self.plain(count))
        if start == 0 and step == 1 and count == size_of(axis):
            return self
        if isinstance(axis[0], Framed):
            return self._cut_frame(index, start, count, step)
        inside = size_of(axis[1:])
        if len(axis) > 1 and step == 1 and start % inside == 0 and count % inside == 0:
            return self._cut_whole(index, start // inside, count // inside)
        if len(axis) > 1:
            raise LostError("a part of folded cells")
        return self.resampled(index, count, scale=step, shift=start)

    def averaged(self, index: int) -> Arrangement:
        """An axis's elements taken together: it is of one element then, that lies in their middle."""
        axis = self.axes[index]
        if is_bare(axis):
            return self.with_axis(index, ())
        at = self.at
        for run in walked([axis]):
            at = added(at, run.step, Fraction(run.count - 1, 2))
        alone = replace(self.with_axis(index, ()), at=at)
        roll = [cells if alone.walks_along(coordinate) else 0 for coordinate, cells in enumerate(self.roll)]
        return replace(alone, roll=tuple(roll))

    def rolled(self, index: int, cells: int) -> Arrangement:
        """An axis rolled by some cells; a roll must be undone before anything but views and products is done to it."""
        axis = self.axes[index]
        if is_bare(axis):
            return self
        if len(axis) > 1 or isinstance(axis[0], Framed):
            raise LostError("a roll of folded cells")
        along = [coordinate for coordinate, way in enumerate(axis[0].step) if way]
        if len(along) > 1:
            raise LostError("a roll along two coordinates")
        roll = list(self.roll)
        roll[along[0]] = (roll[along[0]] + cells) % axis[0].count
        return replace(self, roll=tuple(roll))

    def broadcast(self, shape: Sequence[int]) -> Arrangement:
        """The same with further axes in front, so that it has as many as `shape`."""
        missing = len(shape) - len(self.axes)
        return replace(self, axes=((),) * missing + self.axes)

    def _refuse_rolled(self, run: Run) -> None:
        for way, roll in zip(run.step, self.roll, strict=True):
            if way and roll:
                raise LostError("a part of rolled cells")

    def _cut_whole(self, index: int, start: int, count: int) -> Arrangement:
        first, *inner = self.axes[index]
        if isinstance(first, Framed):
            raise LostError("a part of framed cells")
        self._refuse_rolled(first)
        moved = replace(self, at=added(self.at, first.step, start))
        return moved.with_axis(index, joined([Run(count, first.step), *inner]))

    def _cut_frame(self, index: int, start: int, count: int, step: int) -> Arrangement:
        frame, *inner = self.axes[index]
        if inner or step != 1 or not isinstance(frame, Framed):
            raise LostError("a part of the tokens")
        first, cells = frame.lead, size_of(frame.runs)
        stop = start + count
        if stop <= first or start >= first + cells:
            # Class tokens alone: they belong to no cell, and lie in the middle of them all.
            return self.averaged(index).with_axis(index, self.plain(count))
        if start > first or stop < first + cells:
            raise LostError("a part of the tokens")
        if count == cells:
            return self.with_axis(index, frame.runs)
        return self.with_axis(index, (Framed(count, first - start, frame.runs),))
