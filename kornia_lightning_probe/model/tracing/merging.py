"""Several tensors in one: where the elements of a sum, a product or a concatenation lie. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from math import prod

from kornia_lightning_probe.model.tracing.arrangement import Arrangement
from kornia_lightning_probe.model.tracing.runs import (
    Axis,
    Framed,
    LostError,
    Run,
    Vector,
    added,
    is_bare,
    joined,
    nowhere,
    scaled,
    size_of,
    walked,
)


def merged(operands: Iterable[Arrangement], shape: Sequence[int], *, tiles: int = 1) -> Arrangement:
    """Where the elements of an operator's result lie that takes its operands element by element.

    Operands may be broadcast. One that walks along fewer axes (a mean over windows, a gate) gives way to one that walks
    along more. Where operands lie apart, the result lies in the middle and has a spread that reaches them all.

    Args:
        operands: the arrangements of those that lie anywhere.
        shape: the result's.
        tiles: the number of operands that are put behind one another as channels. If they lie so that together they
            tile a cell (space to depth), that is no spread.

    Raises:
        LostError: The operands walk differently.
    """
    full = [operand.broadcast(shape) for operand in operands]
    if not full:
        raise LostError("no operand with cells")
    if len(full) == 1 and full[0].shape == tuple(shape):
        return full[0]
    columns = zip(*(operand.axes for operand in full), strict=True)
    axes = [_common_axis(column, full[0].plain(count)) for column, count in zip(columns, shape, strict=True)]
    result = replace(full[0], axes=tuple(axes))
    walks = result.walks()
    leading = [operand for operand in full if operand.walks() == walks]
    if not leading and result.has_cells:
        return _along_each(full, result)
    return _between(leading or full, result, tiles)


def concatenated(
    operands: Sequence[Arrangement | None], sizes: Sequence[int], index: int, shape: Sequence[int]
) -> Arrangement:
    """Where the elements of tensors lie that are put behind one another along an axis.

    Args:
        operands: their arrangements, None for one that lies nowhere (class tokens, zeros).
        sizes: their lengths along the axis.
        index: the axis.
        shape: the result's.

    Raises:
        LostError: Cells of several operands are put behind one another and do not go on where those before them end.
    """
    known = [operand for operand in operands if operand is not None]
    on_axis = [place for place, operand in enumerate(operands) if operand and not is_bare(operand.axes[index])]
    if not on_axis:
        return _stacked(known, len(operands), index, shape)
    if len(on_axis) == 1:
        before = sum(sizes[: on_axis[0]])
        return _framed(operands[on_axis[0]], before, index, shape)
    if len(known) < len(operands) or len(on_axis) < len(operands):
        raise LostError("cells of several tensors beside tokens")
    return _continued(known, sizes, index)


def _common_axis(axes: Sequence[Axis], bare: Axis) -> Axis:
    """The axis of a result: that of the operands which walk along it, the mean of their steps where they differ."""
    walking = [axis for axis in axes if not is_bare(axis)]
    if not walking:
        return bare
    first = walking[0]
    if size_of(first) != size_of(bare):
        raise LostError("operands of other sizes")
    if all(axis == first for axis in walking):
        return first
    return _mean_axis(walking)


def _mean_axis(axes: Sequence[Axis]) -> Axis:
    runs = [[atom for atom in axis if isinstance(atom, Run)] for axis in axes]
    counts = {tuple(atom.count for atom in axis) for axis in axes}
    if len(counts) > 1 or len(runs[0]) < len(axes[0]):
        raise LostError("operands of other layouts")
    mean: list[Run] = []
    for peers in zip(*runs, strict=True):
        if len({tuple(map(bool, run.step)) for run in peers}) > 1:
            raise LostError("operands of other layouts")
        total = peers[0].step
        for run in peers[1:]:
            total = added(total, run.step)
        mean.append(Run(peers[0].count, scaled(total, Fraction(1, len(peers)))))
    return tuple(mean)


def _along_each(operands: Sequence[Arrangement], result: Arrangement) -> Arrangement:
    """Rows of one operand and columns of another: each coordinate is that of the operands which walk along it."""
    at, spread, roll = list(result.at), list(result.spread), list(result.roll)
    for coordinate in range(result.dims):
        along = [operand for operand in operands if operand.walks_along(coordinate)]
        wanted = [walk[coordinate] for walk in result.walks()]
        if any([walk[coordinate] for walk in operand.walks()] != wanted for operand in along):
            raise LostError("operands of other layouts")
        merged_along = _between(along or operands, result, 1)
        at[coordinate] = merged_along.at[coordinate]
        spread[coordinate] = merged_along.spread[coordinate]
        roll[coordinate] = merged_along.roll[coordinate]
    return replace(result, at=tuple(at), spread=tuple(spread), roll=tuple(roll))


def _between(operands: Sequence[Arrangement], result: Arrangement, tiles: int) -> Arrangement:
    if len({operand.roll for operand in operands}) > 1:
        raise LostError("one operand is rolled")
    places = [sorted({operand.at[coordinate] for operand in operands}) for coordinate in range(result.dims)]
    middle = tuple((place[0] + place[-1]) / 2 for place in places)
    result = replace(result, at=middle, roll=operands[0].roll)
    if prod(len(place) for place in places) == tiles and _tile(places, result):
        widths = zip(*(operand.spread for operand in operands), strict=True)
        return replace(result, spread=tuple(max(width) for width in widths))
    reaches = [_reach(operand, result) for operand in operands]
    return replace(result, spread=tuple(max(reach) for reach in zip(*reaches, strict=True)))


def _reach(operand: Arrangement, result: Arrangement) -> Vector:
    """How far an operand's elements, with their spread, lie off those of the result at most, a coordinate."""
    reach: list[Fraction] = []
    for coordinate in range(result.dims):
        low = high = operand.at[coordinate] - result.at[coordinate]
        if operand.walks_along(coordinate):
            # The gap is affine in the cell's index: its extremes lie at ends of the runs.
            for drift in _drifts(operand, result, coordinate):
                low += min(drift, Fraction(0))
                high += max(drift, Fraction(0))
        reach.append(max(abs(low), abs(high)) + operand.spread[coordinate])
    return tuple(reach)


def _drifts(operand: Arrangement, result: Arrangement, coordinate: int) -> Iterator[Fraction]:
    """By how much an operand's runs have left those of the result at their ends."""
    for axis, common_axis in zip(operand.axes, result.axes, strict=True):
        if is_bare(axis):
            continue
        for own, common in zip(walked([axis]), walked([common_axis]), strict=True):
            yield (own.step[coordinate] - common.step[coordinate]) * (own.count - 1)


def _tile(places: Sequence[Sequence[Fraction]], result: Arrangement) -> bool:
    """Whether places fill a cell evenly along each coordinate, as those of pixels that became channels do."""
    for coordinate, place in enumerate(places):
        cell = max((abs(run.step[coordinate]) for run in walked(result.axes)), default=Fraction(0))
        gaps = {right - left for left, right in pairwise(place)}
        if gaps and gaps != {cell / len(place)}:
            return False
    return True


def _stacked(known: Sequence[Arrangement], tensors: int, index: int, shape: Sequence[int]) -> Arrangement:
    """Tensors behind one another on an axis of channels; single images or cells become a run."""
    if len(known) == tensors and tensors == shape[index]:
        way = _even_way([operand.at for operand in known])
        first = known[0]
        alike = all(replace(operand, at=first.at) == first for operand in known)
        apart = not any(first.walks_along(coordinate) for coordinate, step in enumerate(way or ()) if step)
        if way and alike and apart:
            return first.with_axis(index, joined([Run(tensors, way)]))
    return merged([operand.with_axis(index, operand.plain(shape[index])) for operand in known], shape, tiles=tensors)


def _even_way(places: Sequence[Vector]) -> Vector | None:
    """The step from each place to the next, None where they are not evenly spaced or all the same."""
    ways = {added(right, left, -1) for left, right in pairwise(places)}
    way = next(iter(ways)) if len(ways) == 1 else ()
    return way if any(way) else None


def _framed(operand: Arrangement | None, before: int, index: int, shape: Sequence[int]) -> Arrangement:
    if operand is None:
        raise LostError("nothing to frame")
    axis = operand.axes[index]
    runs = [atom for atom in axis if isinstance(atom, Run)]
    if isinstance(axis[0], Framed):
        before += axis[0].lead
        runs = [*axis[0].runs, *runs]
        if len(axis) > 1:
            raise LostError("tokens within folded tokens")
    return operand.with_axis(index, (Framed(shape[index], before, tuple(runs)),))


def _continued(operands: Sequence[Arrangement], sizes: Sequence[int], index: int) -> Arrangement:
    """Cells behind one another: where each operand begins one common way behind the one before it, that is a run."""
    first = operands[0]
    axis = first.axes[index]
    if any(replace(operand, at=first.at).with_axis(index, axis) != first for operand in operands):
        raise LostError("cells of different tensors behind one another")
    way = _even_way([operand.at for operand in operands])
    if way and all(operand.axes[index] == axis for operand in operands):
        return first.with_axis(index, joined([Run(len(operands), way), *axis]))
    inner = axis[1:]
    outer = axis[0]
    end = first.at
    for operand, size in zip(operands, sizes, strict=True):
        last = operand.axes[index][0]
        if isinstance(last, Framed) or last.step != getattr(outer, "step", None) or operand.at != end:
            raise LostError("cells that do not go on where those before them end")
        if operand.axes[index][1:] != inner or size % size_of(inner):
            raise LostError("cells that do not go on where those before them end")
        end = added(end, last.step, last.count)
    step = outer.step if isinstance(outer, Run) else nowhere(first.dims)
    return first.with_axis(index, joined([Run(sum(sizes) // size_of(inner), step), *inner]))
