"""Where the elements of a tensor lie after others were written into parts of it. Arithmetic of strides and runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from torch import Tensor

from kornia_lightning_probe.model.tracing.arrangement import Arrangement
from kornia_lightning_probe.model.tracing.merging import concatenated, merged
from kornia_lightning_probe.model.tracing.operators.rules import Places, Unknown
from kornia_lightning_probe.model.tracing.runs import Axis, Framed, LostError, Run, added, is_bare, size_of


@dataclass(frozen=True)
class Geometry:
    """How a tensor looks at its memory."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    @classmethod
    def of(cls, tensor: Tensor) -> Geometry:
        """The geometry of a strided tensor."""
        return cls(tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()))


@dataclass(frozen=True)
class Write:
    """A part of a tensor, and where the elements lie that were written into it."""

    geometry: Geometry
    place: Arrangement


def written_into(own: Places, writes: Sequence[Write], whole: Geometry) -> Places:
    """Where a tensor's elements lie after some writes into it.

    Args:
        own: where they lay before; None where that was nowhere (zeros).
        writes: all of them, first to last.
        whole: the tensor's geometry.
    """
    if isinstance(own, Unknown) or not writes:
        return own
    try:
        spread_out = [_spread_out(write, whole) for write in writes]
        if own is None:
            return _assembled(spread_out, whole)
    except LostError as lost:
        return Unknown(f"written into a part of it: {lost}")
    if all(each.place == own for each in spread_out):
        return own
    return Unknown("written into a part of it: it held other cells")


@dataclass(frozen=True)
class _Whole:
    """What was written, as if it filled the tensor; `index` is where along `axis`, if it was a single slice."""

    place: Arrangement
    axis: int | None = None
    index: int = 0


def _assembled(parts: Sequence[_Whole], whole: Geometry) -> Arrangement:
    first = parts[0]
    if all(part.place == first.place for part in parts):
        return first.place
    axes = {part.axis for part in parts}
    axis = axes.pop()
    if not axes and axis is not None:
        in_order = sorted(parts, key=lambda part: part.index)
        if [part.index for part in in_order] == list(range(whole.shape[axis])):
            slices = [part.place.with_axis(axis, ()) for part in in_order]
            return concatenated(slices, [1] * len(slices), axis, whole.shape)
    return merged([part.place for part in parts], whole.shape)


def _spread_out(write: Write, whole: Geometry) -> _Whole:
    """Carries the places of a part on over the whole tensor, as padding would."""
    part = write.geometry
    if part == whole:
        return _Whole(write.place)
    if len(part.shape) != len(whole.shape) and prod(part.shape) == prod(whole.shape):
        return _Whole(write.place.viewed(whole.shape))
    place = replace(write.place, axes=())
    slices: list[tuple[int, int]] = []
    for axis, block in enumerate(_blocks(part, whole)):
        count = whole.shape[axis]
        grown = place.plain(count)
        if block.source is None:
            slices.append((axis, block.start))
        else:
            place, grown = _grown(place, write.place.axes[block.source], block, count)
        place = replace(place, axes=(*place.axes, grown))
    slices = [(axis, start) for axis, start in slices if whole.shape[axis] > 1]
    if len(slices) == 1:
        return _Whole(place, *slices[0])
    return _Whole(place)


def _grown(place: Arrangement, axis: Axis, block: _Block, count: int) -> tuple[Arrangement, Axis]:
    """An axis of a part within `count` elements, and the places with their first element moved accordingly."""
    if is_bare(axis):
        return place, place.plain(count)
    if block.step != 1:
        raise LostError("every few of its cells")
    if size_of(axis) == count:
        return place, axis
    runs = tuple(atom for atom in axis if isinstance(atom, Run))
    if len(runs) < len(axis):
        raise LostError("tokens beside other tokens")
    if len(runs) > 1:
        return place, (Framed(count, block.start, runs),)
    moved = replace(place, at=added(place.at, runs[0].step, -block.start))
    return moved, (Run(count, runs[0].step),)


@dataclass(frozen=True)
class _Block:
    """Which of a part's axes runs along an axis of the whole (None: it is one slice), from where, in which steps."""

    source: int | None = None
    start: int = 0
    step: int = 1


def _blocks(part: Geometry, whole: Geometry) -> list[_Block]:
    """For each axis of the whole how a part lies in it."""
    blocks = [_Block()] * len(whole.shape)
    left = part.offset - whole.offset
    coarsest_first = sorted(range(len(whole.shape)), key=lambda index: -whole.strides[index])
    for axis in coarsest_first:
        if whole.shape[axis] > 1:
            stride = whole.strides[axis]
            start, left = divmod(left, max(stride, 1))
            blocks[axis] = _block(part, stride, whole.shape[axis], start)
    taken = sorted(block.source for block in blocks if block.source is not None)
    needed = [axis for axis, count in enumerate(part.shape) if count > 1]
    if left or taken != needed:
        raise LostError("a part that is no block of it")
    return blocks


def _block(part: Geometry, stride: int, count: int, start: int) -> _Block:
    for axis, own in enumerate(part.strides):
        if part.shape[axis] < 2 or not stride <= own < stride * count:
            continue
        if own % stride:
            raise LostError("a part that is no block of it")
        return _Block(axis, start, own // stride)
    return _Block(None, start)
