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
    first = full[0]
    if len(full) == 1 and first.shape == tuple(shape):
        return first
    axes: list[Axis] = []
    for index, count in enumerate(shape):
        column = [operand.axes[index] for operand in full]
        axes.append(_common_axis(column, first.plain(count)))
    result = replace(first, axes=tuple(axes))
    walks = result.walks()
    leading = [operand for operand in full if operand.walks() == walks]
    if result.has_cells and not leading:
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
    with_cells: list[Arrangement] = []
    before = start = 0
    for operand, size in zip(operands, sizes, strict=True):
        if operand is not None and not is_bare(operand.axes[index]):
            with_cells.append(operand)
            start = before
        before += size
    if not with_cells:
        return _stacked(known, len(operands), index, shape)
    if len(with_cells) == 1:
        return _framed(with_cells[0], start, index, shape)
    if len(with_cells) < len(operands):
        raise LostError("cells of several tensors beside tokens")
    return _continued(with_cells, index)


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
    layouts = {tuple(map(_layout, axis)) for axis in axes}
    if len(layouts) > 1:
        raise LostError("operands of other layouts")
    share = Fraction(1, len(axes))
    mean: list[Run] = []
    for atoms in zip(*axes, strict=True):
        runs = [atom for atom in atoms if isinstance(atom, Run)]
        if len(runs) < len(atoms):
            raise LostError("tokens of other grids")
        step = scaled(runs[0].step, share)
        for run in runs[1:]:
            step = added(step, run.step, share)
        mean.append(Run(runs[0].count, step))
    return tuple(mean)


def _layout(atom: Run | Framed) -> tuple[int, tuple[bool, ...]]:
    """How many elements, and along which coordinates."""
    if isinstance(atom, Framed):
        return atom.count, ()
    return atom.count, tuple(map(bool, atom.step))


def _along_each(operands: Sequence[Arrangement], result: Arrangement) -> Arrangement:
    """Rows of one operand and columns of another: each coordinate is that of the operands which walk along it."""
    at: list[Fraction] = []
    spread: list[Fraction] = []
    roll: list[int] = []
    for coordinate in range(result.dims):
        along = [operand for operand in operands if operand.walks_along(coordinate)]
        wanted = result.axes_along(coordinate)
        if any(operand.axes_along(coordinate) != wanted for operand in along):
            raise LostError("operands of other layouts")
        between = _between(along or operands, result, 1)
        at.append(between.at[coordinate])
        spread.append(between.spread[coordinate])
        roll.append(between.roll[coordinate])
    return replace(result, at=tuple(at), spread=tuple(spread), roll=tuple(roll))


def _between(operands: Sequence[Arrangement], result: Arrangement, tiles: int) -> Arrangement:
    """A result in the middle of its operands."""
    first = operands[0]
    if any(operand.roll != first.roll for operand in operands):
        raise LostError("one operand is rolled")
    lowest = [added(operand.at, operand.spread, -1) for operand in operands]
    highest = [added(operand.at, operand.spread) for operand in operands]
    middle: list[Fraction] = []
    for lows, highs in zip(zip(*lowest, strict=True), zip(*highest, strict=True), strict=True):
        middle.append((min(lows) + max(highs)) / 2)
    result = replace(result, at=tuple(middle), roll=first.roll)
    if _tile([operand.at for operand in operands], result, tiles):
        reaches = [operand.spread for operand in operands]
    else:
        reaches = [_reach(operand, result) for operand in operands]
    return replace(result, spread=tuple(map(max, zip(*reaches, strict=True))))


def _reach(operand: Arrangement, result: Arrangement) -> Vector:
    """How far an operand's elements, with their spread, lie off those of the result at most, a coordinate."""
    reach: list[Fraction] = []
    for coordinate, spread in enumerate(operand.spread):
        low = high = operand.at[coordinate] - result.at[coordinate]
        if operand.walks_along(coordinate):
            # The gap is affine in the cell's index: its extremes lie at ends of the runs.
            for drift in _drifts(operand, result, coordinate):
                low += min(drift, Fraction(0))
                high += max(drift, Fraction(0))
        gap = max(abs(low), abs(high))
        reach.append(gap + spread)
    return tuple(reach)


def _drifts(operand: Arrangement, result: Arrangement, coordinate: int) -> Iterator[Fraction]:
    """By how much an operand's runs have left those of the result at their ends."""
    for axis, common_axis in zip(operand.axes, result.axes, strict=True):
        if is_bare(axis):
            continue
        for own, common in zip(walked([axis]), walked([common_axis]), strict=True):
            gap = own.step[coordinate] - common.step[coordinate]
            yield gap * (own.count - 1)


def _tile(places: Sequence[Vector], result: Arrangement, tiles: int) -> bool:
    """Whether places fill a cell evenly along each coordinate, as those of pixels that became channels do."""
    along = [sorted(set(column)) for column in zip(*places, strict=True)]
    if tiles == 1 or prod(map(len, along)) != tiles:
        return False
    for coordinate, place in enumerate(along):
        steps = [abs(run.step[coordinate]) for run in walked(result.axes)]
        cell = max(steps, default=Fraction(0))
        share = cell / len(place)
        if any(right - left != share for left, right in pairwise(place)):
            return False
    return True


def _stacked(known: Sequence[Arrangement], tensors: int, index: int, shape: Sequence[int]) -> Arrangement:
    """Tensors behind one another on an axis of channels; single images or cells become a run."""
    if not known:
        raise LostError("no operand with cells")
    first = known[0]
    if len(known) == tensors == shape[index]:
        way = _even_way([operand.at for operand in known])
        if way and _differ_in_place_only(known) and not _walks_along_any(first, way):
            return first.with_axis(index, joined([Run(tensors, way)]))
    channels = first.plain(shape[index])
    return merged([operand.with_axis(index, channels) for operand in known], shape, tiles=tensors)


def _even_way(places: Sequence[Vector]) -> Vector | None:
    """The step from each place to the next, None where they are not evenly spaced or all the same."""
    ways = {added(right, left, -1) for left, right in pairwise(places)}
    if len(ways) != 1:
        return None
    way = ways.pop()
    return way if any(way) else None


def _differ_in_place_only(operands: Sequence[Arrangement]) -> bool:
    first = operands[0]
    return all(replace(operand, at=first.at) == first for operand in operands)


def _walks_along_any(operand: Arrangement, way: Vector) -> bool:
    """Whether a tensor walks along a coordinate along which a way leads."""
    along = [coordinate for coordinate, step in enumerate(way) if step]
    return any(operand.walks_along(coordinate) for coordinate in along)


def _framed(operand: Arrangement, before: int, index: int, shape: Sequence[int]) -> Arrangement:
    axis = operand.axes[index]
    first = axis[0]
    if isinstance(first, Framed):
        before += first.lead
        axis = (*first.runs, *axis[1:])
    runs = tuple(atom for atom in axis if isinstance(atom, Run))
    if len(runs) < len(axis) or (isinstance(first, Framed) and axis != first.runs):
        raise LostError("tokens within folded tokens")
    return operand.with_axis(index, (Framed(shape[index], before, runs),))


def _continued(operands: Sequence[Arrangement], index: int) -> Arrangement:
    """Cells behind one another: where each operand begins one common way behind the one before it, that is a run."""
    first = operands[0]
    axis = first.axes[index]
    on_one_axis = [operand.with_axis(index, axis) for operand in operands]
    if not _differ_in_place_only(on_one_axis):
        raise LostError("cells of different tensors behind one another")
    way = _even_way([operand.at for operand in operands])
    if way and on_one_axis == list(operands):
        return first.with_axis(index, joined([Run(len(operands), way), *axis]))
    outer, *inner = axis
    end, count = first.at, 0
    for operand in operands:
        part, *rest = operand.axes[index]
        if isinstance(part, Framed) or isinstance(outer, Framed):
            raise LostError("tokens behind one another")
        if part.step != outer.step or rest != inner or operand.at != end:
            raise LostError("cells that do not go on where those before them end")
        end = added(end, part.step, part.count)
        count += part.count
    steps = [run.step for run in walked([axis])]
    return first.with_axis(index, joined([Run(count, steps[0]), *inner]))
