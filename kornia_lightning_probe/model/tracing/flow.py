"""What a tensor is made of: whether the image reaches it, which layers lead to it, of which products it is a result.

A *product* is a matrix product or convolution with a weight. A tensor is made of products alone ("heads") if it is the
result of one, or a function without weights of such results; a bias or scale behind a product changes nothing. A sum
of a product and of something that led to it is a residual stream, and made of products no longer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

_PRODUCTS = """
mm addmm bmm baddbmm mv addmv matmul linear bilinear _trilinear _addmm_activation convolution _convolution conv1d conv2d
conv3d _conv_depthwise2d conv_depthwise3d mkldnn_convolution cudnn_convolution convolution_overrideable mkldnn_linear
_slow_conv2d_forward slow_conv3d _linear_pointwise _convolution_pointwise _weight_int8pack_mm _weight_int4pack_mm
"""
# With a weight, these are a bias, a scale, a mask or a choice.
_HARMLESS = """
add sub rsub mul div addcmul addcdiv where masked_fill copy maximum minimum clamp clamp_min clamp_max index index_select
gather
"""
# A product with what led to it is no residual stream: masks are products of queries and pixels.
_MULTIPLYING = "mul div mm bmm matmul where"

_IS_PRODUCT = frozenset(_PRODUCTS.split())
_IS_HARMLESS = frozenset(_HARMLESS.split())
_IS_MULTIPLYING = frozenset(_MULTIPLYING.split())


@dataclass(frozen=True)
class Flow:
    """What one tensor is made of.

    Args:
        reached: whether the image reaches it; None where that is unknown.
        is_weight: whether it is made of parameters, buffers and tensors from before alone.
        heads: the products that it is made of, as bits; 0 where it is made of something else too.
        products: all products that lead to it, as bits.
        layers: all activations that lead to it, as bits.
        value: a number that it shares with the tensors that hold the very same values.
    """

    reached: bool | None
    is_weight: bool = False
    heads: int = 0
    products: int = 0
    layers: int = 0
    value: int = 0

    @property
    def is_moving(self) -> bool:
        """Whether it may change with the image."""
        return self.reached is not False and not self.is_weight


class Flows:
    """Follows what tensors are made of from operator to operator.

    Attributes:
        fronts: for each product the activations, as bits, that lead to what was multiplied.
    """

    def __init__(self) -> None:
        self.fronts: list[int] = []
        self._before: list[int] = []
        self._values = 0

    def image(self) -> Flow:
        """An image."""
        return Flow(reached=True, value=self._new_value())

    def weight(self) -> Flow:
        """A parameter or buffer."""
        return Flow(reached=False, is_weight=True, value=self._new_value())

    def untracked(self) -> Flow:
        """A tensor that no operator was seen to make: one from before, or one that came by NumPy."""
        return Flow(reached=None, is_weight=True, value=self._new_value())

    def through(
        self, operator: str, flows: Sequence[Flow], *, same: Flow | None = None, is_packed: bool = False
    ) -> Flow:
        """The result of an operator.

        Args:
            operator: its name.
            flows: its operands'.
            same: the operand whose very values the result holds, as a view or a copy does.
            is_packed: whether it is a product with weights that are no tensor, as those of a quantised layer.
        """
        moving = [flow for flow in flows if flow.is_moving]
        value = self._new_value() if same is None else same.value
        layers = _union(flow.layers for flow in flows)
        if not moving:
            unknown = any(flow.reached is None for flow in flows)
            is_weight = any(flow.is_weight for flow in flows)
            return Flow(None if unknown else False, is_weight, layers=layers, value=value)
        reached = True if any(flow.reached for flow in moving) else None
        products = _union(flow.products for flow in moving)
        result = Flow(reached, products=products, layers=layers, value=value)
        weighted = any(flow.is_weight for flow in flows)
        is_product = is_packed or (weighted and operator in _IS_PRODUCT)
        if is_product and len(moving) == 1:
            return self._product(moving[0], result)
        if weighted and operator not in _IS_HARMLESS:
            return result
        heads = self._common_heads(moving, may_lead=operator in _IS_MULTIPLYING)
        return replace(result, heads=heads)

    def input(self) -> Flow:
        """An input of the model that is no image."""
        return Flow(reached=False, value=self._new_value())

    def joined(self, first: Flow, second: Flow) -> Flow:
        """A tensor into a part of which another was written."""
        if first == second:
            return first
        if not first.is_moving and not second.is_moving:
            return replace(first, reached=_either(first.reached, second.reached))
        return self.through("copy", [first, second])

    def entered(self, flow: Flow, activation: int) -> Flow:
        """A tensor that a layer put out as so many-th activation."""
        is_weight = flow.is_weight and flow.reached is False
        return replace(flow, is_weight=is_weight, layers=flow.layers | 1 << activation)

    def _product(self, moved: Flow, result: Flow) -> Flow:
        bit = 1 << len(self.fronts)
        self.fronts.append(moved.layers)
        self._before.append(moved.products)
        return replace(result, heads=bit, products=result.products | bit)

    def _common_heads(self, moving: Sequence[Flow], *, may_lead: bool) -> int:
        heads = _union(flow.heads for flow in moving)
        if any(not flow.heads for flow in moving):
            return 0
        if may_lead or all(flow.heads == heads for flow in moving):
            return heads
        # Where one product led to the other, this is a residual stream.
        leads = any(self._before[product] & heads for product in bits(heads))
        return 0 if leads else heads

    def _new_value(self) -> int:
        self._values += 1
        return self._values


def bits(mask: int) -> Iterator[int]:
    """The places of a number's bits, lowest first.

    Example:
        >>> list(bits(0b1010))
        [1, 3]
    """
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def _union(masks: Iterator[int]) -> int:
    union = 0
    for mask in masks:
        union |= mask
    return union


def _either(first: bool | None, second: bool | None) -> bool | None:
    if first or second:
        return True
    return False if first is False and second is False else None
