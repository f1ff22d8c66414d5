"""Rules of operators that mix channels, tokens or cells: products, attention, reductions, norms; and what keeps places.

A matrix product's rows keep the places of the first factor's rows, its columns those of the second one's; where both
have cells (scores of queries and keys) those of the queries win. What is summed over lies in its middle.
"""

from __future__ import annotations

from collections.abc import Sequence

from kornia_lightning_probe.model.tracing.arrangement import Arrangement
from kornia_lightning_probe.model.tracing.merging import merged
from kornia_lightning_probe.model.tracing.operators.rules import RULES, Call, Found, rule
from kornia_lightning_probe.model.tracing.runs import LostError, is_bare

_KEEPING = """
native_layer_norm _fused_rms_norm rms_norm native_group_norm native_batch_norm _native_batch_norm_legit
_native_batch_norm_legit_no_training cudnn_batch_norm batch_norm _batch_norm_with_update _batch_norm_no_update
_batch_norm_impl_index _softmax _log_softmax _safe_softmax softmax log_softmax clone detach alias _to_copy contiguous
lift lift_fresh native_dropout dropout hardswish hardsigmoid mish log_sigmoid_forward
quantize_per_tensor quantize_per_tensor_dynamic quantize_per_channel dequantize
prelu _prelu_kernel rrelu_with_noise rrelu _conj resolve_conj resolve_neg bernoulli softplus _fused_dropout
_weight_norm renorm nan_to_num to _autocast_to_reduced_precision _autocast_to_full_precision
"""


def kept(call: Call) -> Arrangement:
    """Norms, activations and copies: the result lies where the operator's first tensor lies."""
    source = call.source()
    if source.shape != call.shape:
        raise LostError("a result of another shape")
    return source


RULES.update(dict.fromkeys(_KEEPING.split(), kept))


@rule("complex polar")
def of_two_parts(call: Call) -> Arrangement:
    """A complex number lies where its parts lie."""
    return merged(call.known(), call.shape)


@rule("view_as_real")
def parts_of_complex(call: Call) -> Arrangement:
    """The two parts of a complex number are channels on a last axis."""
    source = call.source()
    last = len(source.axes)
    return source.with_new_axis(last).with_axis(last, source.plain(2))


@rule("view_as_complex")
def complex_of_parts(call: Call) -> Arrangement:
    """A last axis of two channels becomes one number."""
    source = call.source()
    last = len(source.axes) - 1
    return source.averaged(last).without_axis(last)


@rule("copy _copy_from copy_to")
def written(call: Call) -> Found:
    """What is copied into a tensor replaces what was there."""
    place = call.place("src")
    return place and merged([place], call.shape)


@rule("fill zero normal uniform bernoulli_ exponential random trunc_normal")
def overwritten(call: Call) -> Found:
    """A tensor that is filled has nothing to do with the images any more."""
    del call
    return None


@rule("index_put _index_put_impl index_fill index_copy index_add")
@rule("scatter scatter_add scatter_reduce")
def set_apart(call: Call) -> Arrangement:
    """A constant written to some elements leaves the others where they are."""
    source = call.source()
    if len(list(call.known())) > 1:
        raise LostError("cells written by index")
    return source


@rule("mean sum nansum nanmean amax amin max min aminmax var std var_mean std_mean")
@rule("logsumexp linalg_vector_norm norm prod any all argmax argmin count_nonzero")
def reduced(call: Call) -> Arrangement:
    """An axis that is reduced vanishes; the result lies in its middle."""
    if call.argument("other") is not None:
        return merged(call.known(), call.shape)
    source = call.source()
    dims = _dims(call, len(source.axes))
    for index in dims:
        source = source.averaged(index)
    if len(call.shape) == len(source.axes):
        return source
    for index in sorted(dims, reverse=True):
        source = source.without_axis(index)
    return source


@rule("glu")
def gated(call: Call) -> Arrangement:
    """The two halves of an axis are multiplied: known where it holds no cells."""
    source, index = call.source(), call.axis("dim")
    if not is_bare(source.axes[index]):
        raise LostError("halves of the cells are multiplied")
    return source.with_axis(index, source.plain(call.shape[index]))


@rule("mm bmm addmm baddbmm matmul")
def multiplied(call: Call) -> Arrangement:
    """Rows of the first factor, columns of the second."""
    return _multiplied(call)


def _multiplied(call: Call) -> Arrangement:
    added_to = None
    first, second = call.place("mat1", "batch1"), call.place("mat2", "batch2", "other", "tensor2")
    if call.argument("mat1", "batch1") is None:
        first = call.place("self")
    else:
        added_to = call.place("self")
    result = _product(first, second, call.shape)
    if added_to is None:
        return result
    return merged([added_to, result], call.shape)


@rule("linear _linear_pointwise mkldnn_linear _addmm_activation")
def mapped(call: Call) -> Arrangement:
    """A linear map of the last axis."""
    if call.name == "_addmm_activation":
        return _multiplied(call)
    source = call.source()
    return source.with_plain(len(source.axes) - 1, call.shape[-1])


@rule("mv addmv")
def multiplied_by_vector(call: Call) -> Arrangement:
    """Rows of the matrix."""
    matrix = call.place("mat" if call.name == "addmv" else "self")
    if matrix is None:
        raise LostError("the image comes in as a weight")
    return matrix.averaged(1).without_axis(1)


@rule("_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention")
@rule("_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention")
@rule("_scaled_dot_product_fused_attention_overrideable _scaled_dot_product_attention_math")
@rule("scaled_dot_product_attention _native_multi_head_attention _transformer_encoder_layer_fwd")
def attended(call: Call) -> Arrangement:
    """Results lie where their queries lie; images are those of queries and keys."""
    operands: list[Arrangement] = []
    query = call.place("query", "src")
    if query is not None:
        operands.append(query.with_plain(len(query.axes) - 1, call.shape[-1]))
    for name in ("key", "value"):
        place = call.place(name)
        if place is not None:
            operands.append(_without_tokens(place, call.shape))
    return merged(operands, call.shape)


def _without_tokens(place: Arrangement, shape: Sequence[int]) -> Arrangement:
    """Keys and values are taken together over their tokens, and their channels are the result's."""
    last = len(place.axes) - 1
    return place.averaged(last - 1).with_plain(last, shape[-1])


def _product(first: Found, second: Found, shape: Sequence[int]) -> Arrangement:
    rows = first and _rows(first, shape)
    columns = second and _columns(second, shape)
    if rows is None or columns is None:
        found = rows or columns
        if found is None:
            raise LostError("a product of what has no cells")
        return found
    if is_bare(rows.axes[-2]) and rows.walks() == columns.walks():
        # Local weights that are made of the image move nothing: the result lies where the values lie.
        return columns
    if not is_bare(rows.axes[-2]):
        # Scores of queries and keys lie where the queries lie, so that a product with values does too.
        columns = columns.with_plain(len(columns.axes) - 1, shape[-1])
    return merged([rows, columns], shape)


def _rows(factor: Arrangement, shape: Sequence[int]) -> Arrangement:
    return factor.with_plain(len(factor.axes) - 1, shape[-1]).broadcast(shape)


def _columns(factor: Arrangement, shape: Sequence[int]) -> Arrangement:
    if len(factor.axes) < 2:
        raise LostError("a product with a vector")
    return factor.with_plain(len(factor.axes) - 2, shape[-2]).broadcast(shape)


def _dims(call: Call, count: int) -> list[int]:
    dims = call.argument("dim", "dims")
    if dims is None or dims == []:
        return list(range(count))
    several = dims if isinstance(dims, Sequence) else [dims]
    return [index % count for index in several]
