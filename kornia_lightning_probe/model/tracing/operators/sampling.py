"""Rules of operators that look at neighbouring cells: convolution, pooling, resampling, padding, patches.

With d the distance of cells, o the place of the first one, K the kernel, s its stride, p the padding on the left, D the
dilation:

========================  =====================  ======================================================
convolution, pooling      d' = d s               o' = o + d (D (K - 1) / 2 - p), whatever the ceil_mode
transposed convolution    d' = d / s             o' = o + d (p - D (K - 1) / 2) / s
adaptive pooling          d' = d r, r = in/out   o' = o + d (r - 1) / 2, spread d / 2 unless r is whole
linear, cubic resizing    d' = d r               o' = o + d (r - 1) / 2
the same, align_corners   d' = d (in-1)/(out-1)  o' = o
nearest resizing          d' = d r               the middle of where its cells come from, with a spread
padding                   d' = d                 o' = o - d p
========================  =====================  ======================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from math import floor
from typing import NamedTuple

from kornia_lightning_probe.model.tracing.arrangement import Arrangement
from kornia_lightning_probe.model.tracing.operators.rules import Call, Rule, rule
from kornia_lightning_probe.model.tracing.runs import Framed, LostError, Run, is_bare, joined, scaled

# A factor such as 1 / 3 is given as a float: the fraction that was meant has a small denominator.
_LARGEST_DENOMINATOR = 4096


class Window(NamedTuple):
    """What an operator looks at along one axis."""

    kernel: int
    stride: int
    padding: int
    dilation: int

    @property
    def reach(self) -> int:
        """From its first cell to its last one."""
        return self.dilation * (self.kernel - 1)

    @property
    def shift(self) -> Fraction:
        """The middle of the first window."""
        return Fraction(self.reach, 2) - self.padding

    def count(self, side: int) -> int:
        """How many of them a side has."""
        room = side + 2 * self.padding - self.reach
        return (room - 1) // self.stride + 1


def windows(call: Call, kernel: list[int]) -> list[Window]:
    """The window of an operator along each of its axes."""
    dims = len(kernel)
    # An empty stride is the kernel's size.
    stride = call.numbers("stride", dims) or kernel
    padding = call.numbers("padding", dims)
    dilation = call.numbers("dilation", dims) or [1] * dims
    return [Window(*each) for each in zip(kernel, stride, padding, dilation, strict=True)]


@rule("convolution _convolution mkldnn_convolution cudnn_convolution convolution_overrideable conv1d conv2d conv3d")
@rule("_slow_conv2d_forward slow_conv3d thnn_conv2d _conv_depthwise2d conv_depthwise3d miopen_convolution")
def convolved(call: Call) -> Arrangement:
    """Channels are mixed, cells lie in the middle of what the kernel covers."""
    if call.place("weight") is not None:
        raise LostError("weights made of the image")
    result = call.source().with_plain(1, call.shape[1])
    kernel = list(call.argument("weight").shape[2:])
    transposed = call.argument("transposed")
    for index, window in enumerate(windows(call, kernel), start=2):
        count = call.shape[index]
        if transposed:
            result = _transposed(result, index, count, window)
        else:
            result = result.resampled(index, count, scale=window.stride, shift=window.shift)
    return result


def _transposed(result: Arrangement, index: int, count: int, window: Window) -> Arrangement:
    """Windows laid over one another: a fine cell lies in the middle of the coarse ones that reach it."""
    fine = Fraction(1, window.stride)
    return result.resampled(index, count, scale=fine, shift=-window.shift * fine)


@rule("max_pool1d max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices mkldnn_max_pool2d")
@rule("avg_pool1d avg_pool2d avg_pool3d quantized_max_pool2d")
def pooled(call: Call) -> Arrangement:
    """Cells lie in the middle of those that are taken together."""
    result = call.source()
    dims = _dims(call.name)
    kernel = call.numbers("kernel_size", dims)
    first = len(call.shape) - dims
    for index, window in enumerate(windows(call, kernel), start=first):
        result = result.resampled(index, call.shape[index], scale=window.stride, shift=window.shift)
    return result


@rule("adaptive_avg_pool1d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool2d adaptive_avg_pool3d")
@rule("adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d mkldnn_adaptive_avg_pool2d")
def pooled_to_size(call: Call) -> Arrangement:
    """Cells lie in the middle of an equal share; off it where shares are no whole cells."""
    result = call.source()
    first = len(call.shape) - _dims(call.name)
    for index, count in enumerate(call.shape[first:], start=first):
        if count == 1:
            result = result.averaged(index)
            continue
        ratio = Fraction(result.shape[index], count)
        blur = Fraction(0 if ratio.denominator == 1 else 1, 2)
        result = result.resampled(index, count, scale=ratio, shift=_centred(ratio), blur=blur)
    return result


@rule("upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d")
@rule("_upsample_bilinear2d_aa _upsample_bicubic2d_aa")
def interpolated(call: Call) -> Arrangement:
    """Cells lie evenly, at the corners' centres or within the corners."""
    result = call.source()
    for index, ratio in enumerate(_ratios(call), start=2):
        before, after = result.shape[index], call.shape[index]
        if call.argument("align_corners"):
            gaps = max(after - 1, 1)
            result = result.resampled(index, after, scale=Fraction(before - 1, gaps))
        else:
            result = result.resampled(index, after, scale=ratio, shift=_centred(ratio))
    return result


def _nearest(into: Fraction) -> Rule:
    """The rule of nearest resizing that takes cell floor((i + into) * ratio)."""

    def nearest(call: Call) -> Arrangement:
        result = call.source()
        for index, ratio in enumerate(_ratios(call), start=2):
            count = call.shape[index]
            off = list(_gaps(ratio, into, count, result.shape[index]))
            low, high = min(off), max(off)
            result = result.resampled(index, count, scale=ratio, shift=(low + high) / 2, blur=(high - low) / 2)
        return result

    return nearest


def _gaps(ratio: Fraction, into: Fraction, count: int, before: int) -> Iterator[Fraction]:
    """How far the cells that nearest resizing takes lie off an even grid."""
    for cell in range(count):
        taken = floor((cell + into) * ratio)
        yield min(taken, before - 1) - cell * ratio


rule("upsample_nearest1d upsample_nearest2d upsample_nearest3d")(_nearest(Fraction(0)))
rule("_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d")(_nearest(Fraction(1, 2)))


@rule("constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d")
@rule("replication_pad1d replication_pad2d replication_pad3d")
def padded(call: Call) -> Arrangement:
    """The first cell moves outwards; folded cells get a frame."""
    result = call.source()
    # Left and right of the last axis come first.
    pads = list(call.argument("pad", "padding"))
    index = len(call.shape)
    while pads:
        left, right, *pads = pads
        index -= 1
        if left or right:
            result = _padded(result, index, left, right)
    return result


def _padded(result: Arrangement, index: int, left: int, right: int) -> Arrangement:
    axis = result.axes[index]
    count = left + result.shape[index] + right
    if is_bare(axis):
        return result.with_axis(index, result.plain(count))
    runs = tuple(atom for atom in axis if isinstance(atom, Run))
    if len(axis) == len(runs) == 1:
        return result.resampled(index, count, shift=-left)
    if len(runs) < len(axis) or min(left, right) < 0:
        raise LostError("padding beside tokens")
    return result.with_axis(index, (Framed(count, left, runs),))


@rule("im2col")
def unrolled(call: Call) -> Arrangement:
    """Patches (B, C K K, L): the pixels of a patch are runs behind the channels, the patches runs on the last axis."""
    result = call.source()
    inside = [*result.axes[1]]
    kernel = call.numbers("kernel_size", 2)
    for index, window in enumerate(windows(call, kernel), start=2):
        result, run = result.line(index)
        inside.append(Run(window.kernel, scaled(run.step, window.dilation)))
        count = window.count(result.shape[index])
        result = result.resampled(index, count, scale=window.stride, shift=-window.padding)
    images, _, rows, columns = result.axes
    return replace(result, axes=(images, joined(inside), (*rows, *columns)))


@rule("col2im")
def rolled_up(call: Call) -> Arrangement:
    """Patches laid over one another again."""
    source = call.source()
    images, channels, *sides = call.shape
    patches = windows(call, call.numbers("kernel_size", 2))
    counts = [window.count(side) for window, side in zip(patches, sides, strict=True)]
    result = source.viewed((images, source.shape[1], *counts)).with_plain(1, channels)
    for index, window in enumerate(patches, start=2):
        result = _transposed(result, index, call.shape[index], window)
    return result


@rule("unfold")
def windowed(call: Call) -> Arrangement:
    """Windows along an axis; what is in a window becomes a last axis."""
    source = call.source()
    index = call.axis("dimension")
    even, run = source.line(index)
    size = call.argument("size")
    result = even.resampled(index, call.shape[index], scale=call.argument("step"))
    inside = source.plain(size)
    if size > 1 and not run.is_bare:
        inside = (Run(size, run.step),)
    return replace(result, axes=(*result.axes, inside))


@rule("pixel_shuffle pixel_unshuffle native_channel_shuffle channel_shuffle")
def shuffled(call: Call) -> Arrangement:
    """Channels become finer cells, or cells channels."""
    result = call.source()
    finer, coarser = call.argument("upscale_factor"), call.argument("downscale_factor")
    ratio = Fraction(coarser or 1, finer or 1)
    *_, channels, _, width = range(len(call.shape))
    for index in range(channels + 1, width + 1):
        result = result.resampled(index, call.shape[index], scale=ratio, shift=_centred(ratio))
    return result.with_plain(channels, call.shape[channels])


def _centred(ratio: Fraction) -> Fraction:
    """Where the first of cells that tile old ones lies among these, `ratio` old ones a cell."""
    return (ratio - 1) / 2


def _dims(name: str) -> int:
    """The number of axes in an operator's name, as in max_pool2d_with_indices."""
    return next(int(letter) for letter in name if letter.isdigit())


def _ratios(call: Call) -> list[Fraction]:
    """Old cells per new one along each axis: by the factor if one was given, else by the sizes."""
    before, after = call.source().shape[2:], call.shape[2:]
    factors = _factors(call, len(after))
    ratios: list[Fraction] = []
    for factor, old, new in zip(factors, before, after, strict=True):
        if factor:
            ratios.append(1 / Fraction(factor).limit_denominator(_LARGEST_DENOMINATOR))
        else:
            ratios.append(Fraction(old, new))
    return ratios


def _factors(call: Call, dims: int) -> list[float | None]:
    several = call.argument("scale_factors")
    if several:
        return list(several)
    if dims == 1:
        return [call.argument("scales")]
    names = ["scales_d", "scales_h", "scales_w"]
    return [call.argument(name) for name in names[-dims:]]
