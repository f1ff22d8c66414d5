"""Rules of operators that move, cut or join what a tensor holds, and compute nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from kornia_lightning_probe.model.tracing.arrangement import Arrangement
from kornia_lightning_probe.model.tracing.merging import concatenated
from kornia_lightning_probe.model.tracing.operators.rules import Call, Found, rule
from kornia_lightning_probe.model.tracing.runs import LostError, joined, size_of


@rule("view reshape _unsafe_view _reshape_alias reshape_as view_as flatten unflatten")
@rule("squeeze unsqueeze ravel _reshape_copy squeeze_copy unsqueeze_copy view_copy")
def viewed(call: Call) -> Arrangement:
    """A view deals the runs anew."""
    return call.source().viewed(call.shape)


@rule("permute permute_copy")
def permuted(call: Call) -> Arrangement:
    """Axes in another order."""
    return call.source().permuted(call.argument("dims"))


@rule("transpose t swapaxes transpose_copy t_copy")
def transposed(call: Call) -> Arrangement:
    """Two axes change places."""
    source = call.source()
    order = list(range(len(source.axes)))
    first, second = call.argument("dim0"), call.argument("dim1")
    if first is None:
        first, second = 0, len(order) - 1
    order[first], order[second] = order[second], order[first]
    return source.permuted(order)


@rule("expand repeat expand_copy")
def expanded(call: Call) -> Arrangement:
    """Copies of an element lie where it lies; copies of an axis are a run in front of it."""
    source = call.source().broadcast(call.shape)
    result = source
    for index, axis in enumerate(source.axes):
        copies = source.plain(call.shape[index] // size_of(axis))
        result = result.with_axis(index, joined([*copies, *axis]))
    return result


@rule("slice slice_copy")
def sliced(call: Call) -> Arrangement:
    """Every so many elements of an axis."""
    source, index = call.source(), call.axis("dim")
    start, end, step = (call.argument(name) for name in ("start", "end", "step"))
    first, _, step = slice(start, end, step).indices(source.shape[index])
    return source.cut(index, first, call.shape[index], step)


@rule("select select_copy")
def selected(call: Call) -> Arrangement:
    """One element of an axis."""
    source, index = call.source(), call.axis("dim")
    start = call.argument("index") % source.shape[index]
    return source.cut(index, start, 1).without_axis(index)


@rule("split split_with_sizes chunk split_copy split_with_sizes_copy")
def parts(call: Call) -> list[Found]:
    """Several parts of an axis."""
    source, index = call.source(), call.axis("dim")
    found: list[Found] = []
    start = 0
    for shape in call.shapes:
        found.append(source.cut(index, start, shape[index]))
        start += shape[index]
    return found


@rule("unbind unbind_copy")
def unbound(call: Call) -> list[Found]:
    """Each element of an axis by itself."""
    source, index = call.source(), call.axis("dim")
    cells = [source.cut(index, start, 1) for start in range(len(call.shapes))]
    return [cell.without_axis(index) for cell in cells]


@rule("cat stack _cat")
def put_together(call: Call) -> Arrangement:
    """Tensors behind one another along an axis, a new one in `stack`."""
    places, tensors = call.places["tensors"], call.argument("tensors")
    if not isinstance(places, list):
        raise LostError("no list of tensors")
    index = call.argument("dim") % len(call.shape)
    if tensors[0].ndim < len(call.shape):
        raised = [place and place.with_new_axis(index) for place in places]
        return concatenated(raised, [1] * len(raised), index, call.shape)
    filled: list[Found] = []
    sizes: list[int] = []
    for place, tensor in zip(places, tensors, strict=True):
        # torch ignores empty tensors of one axis, whatever the others' shape.
        if tensor.numel():
            filled.append(place)
            sizes.append(tensor.shape[index])
    return concatenated(filled, sizes, index, call.shape)


@rule("flip")
def flipped(call: Call) -> Arrangement:
    """An axis backwards."""
    source = call.source()
    for index in call.argument("dims"):
        count = call.shape[index]
        if len(source.axes[index]) > 1:
            raise LostError("folded cells backwards")
        source = source.resampled(index % len(call.shape), count, scale=-1, shift=count - 1)
    return source


@rule("roll")
def rolled(call: Call) -> Arrangement:
    """Axes rolled; it is pending until it is undone."""
    source = call.source()
    if not call.argument("dims"):
        raise LostError("everything is rolled")
    dims = call.numbers("dims", 1)
    for index, cells in zip(dims, call.numbers("shifts", len(dims)), strict=True):
        source = source.rolled(index % len(call.shape), cells)
    return source


@rule("index_select")
def picked(call: Call) -> Arrangement:
    """Elements of an axis by their numbers."""
    index = call.argument("dim") % len(call.shape)
    return _picked(call.source(), index, call.argument("index"), call.shape[index])


@rule("index")
def indexed(call: Call) -> Arrangement:
    """Elements by their numbers along one axis or several; cells only where the numbers are evenly spaced."""
    source, numbers = call.source(), call.argument("indices")
    dims = [index for index, picks in enumerate(numbers) if picks is not None]
    first, last = dims[0], dims[-1]
    if len(dims) <= last - first or any(numbers[index].ndim != 1 for index in dims):
        raise LostError("elements picked by index")
    with_cells = set(dims) - _bare_axes(source)
    if len(with_cells) > 1:
        raise LostError("cells picked by index")
    kept = with_cells.pop() if with_cells else first
    source = _picked(source, kept, numbers[kept], call.shape[first])
    for index in reversed(dims):
        if index != kept:
            source = source.averaged(index).without_axis(index)
    return source


@rule("gather take_along_dim topk sort kthvalue mode median")
def gathered(call: Call) -> Arrangement:
    """Elements chosen or ordered along one axis: known where that axis holds no cells."""
    source = call.source()
    if call.argument("dim") is None:
        raise LostError("elements chosen from everywhere")
    index = call.axis("dim")
    if index not in _bare_axes(source):
        raise LostError("cells chosen by their values")
    if len(call.shape) < len(source.axes):
        return source.with_axis(index, ()).without_axis(index)
    return source.with_axis(index, source.plain(call.shape[index]))


@rule("diagonal diagonal_copy")
def diagonal(call: Call) -> Arrangement:
    """The diagonal of two axes without cells."""
    source = call.source()
    dims = {call.axis("dim1"), call.axis("dim2")}
    if not dims <= _bare_axes(source):
        raise LostError("a diagonal of cells")
    axes = [axis for index, axis in enumerate(source.axes) if index not in dims]
    return replace(source, axes=(*axes, source.plain(call.shape[-1])))


def _bare_axes(source: Arrangement) -> set[int]:
    return {index for index, walk in enumerate(source.walks()) if not any(walk)}


def _picked(source: Arrangement, index: int, numbers: object, count: int) -> Arrangement:
    if index in _bare_axes(source):
        return source.with_axis(index, source.plain(count))
    if not isinstance(numbers, Tensor) or numbers.ndim != 1 or numbers.is_floating_point():
        raise LostError("cells picked by index")
    chosen = numbers.nonzero().flatten() if numbers.dtype == torch.bool else numbers
    places = [place % size_of(source.axes[index]) for place in chosen.tolist()]
    return source.cut(index, places[0], count, _step(places))


def _step(places: Sequence[int]) -> int:
    steps = {right - left for left, right in pairwise(places)}
    if len(steps) > 1:
        raise LostError("cells picked unevenly")
    return steps.pop() if steps else 1
