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

from dataclasses import replace
from fractions import Fraction
from math import floor

from kornia_lightning_probe.model.tracing.arrangement import Arrangement
from kornia_lightning_probe.model.tracing.operators.rules import Call, Rule, rule
from kornia_lightning_probe.model.tracing.runs import Framed, LostError, Run, is_bare, plain

# A factor such as 1 / 3 is given as a float: the fraction that was meant has a small denominator.
_LARGEST_DENOMINATOR = 4096


@rule("convolution _convolution mkldnn_convolution cudnn_convolution convolution_overrideable")
@rule("_slow_conv2d_forward slow_conv3d thnn_conv2d conv1d conv2d conv3d _conv_depthwise2d")
@rule("conv_depthwise3d _mkldnn_convolution_pointwise miopen_convolution")
def convolved(call: Call) -> Arrangement:
    """Channels are mixed, cells lie in the middle of what the kernel covers."""
    if call.place("weight") is not None:
        raise LostError("weights made of the image")
    result = call.source().with_plain(1, call.shape[1])
    dims = len(call.shape) - 2
    settings = zip(*(call.numbers(name, dims) for name in ("stride", "padding", "dilation")), strict=True)
    kernel = call.argument("weight").shape[2:]
    for axis, (stride, padding, dilation) in enumerate(settings):
        scale = Fraction(stride)
        shift = Fraction(dilation * (kernel[axis] - 1), 2) - padding
        if call.argument("transposed"):
            scale, shift = 1 / scale, -shift / scale
        result = result.resampled(2 + axis, call.shape[2 + axis], scale=scale, shift=shift)
    return result


@rule("max_pool1d max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices")
@rule("avg_pool1d avg_pool2d avg_pool3d mkldnn_max_pool2d quantized_max_pool2d")
def pooled(call: Call) -> Arrangement:
    """Cells lie in the middle of those that are taken together."""
    result = call.source()
    dims = _pooled_dims(call)
    sizes = _windows(call, dims)
    for axis, (kernel, stride, padding, dilation) in enumerate(sizes):
        index = len(call.shape) - dims + axis
        shift = Fraction(dilation * (kernel - 1), 2) - padding
        result = result.resampled(index, call.shape[index], scale=stride, shift=shift)
    return result


@rule("_adaptive_avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d mkldnn_adaptive_avg_pool2d")
@rule("adaptive_avg_pool1d adaptive_max_pool1d")
@rule("_adaptive_avg_pool3d adaptive_avg_pool3d adaptive_max_pool3d")
def pooled_to_size(call: Call) -> Arrangement:
    """Cells lie in the middle of an equal share; off it where shares are no whole cells."""
    result = call.source()
    dims = int(call.name[-2])
    for index in range(len(call.shape) - dims, len(call.shape)):
        count = call.shape[index]
        ratio = Fraction(result.shape[index], count)
        if count == 1:
            result = result.averaged(index)
            continue
        blur = Fraction(int(ratio.denominator != 1), 2)
        result = result.resampled(index, count, scale=ratio, shift=(ratio - 1) / 2, blur=blur)
    return result


@rule("upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d")
@rule("_upsample_bilinear2d_aa _upsample_bicubic2d_aa")
def interpolated(call: Call) -> Arrangement:
    """Cells lie evenly, at the corners' centres or within the corners."""
    result = call.source()
    for axis, ratio in enumerate(_ratios(call)):
        index = 2 + axis
        before, after = result.shape[index], call.shape[index]
        scale, shift = ratio, (ratio - 1) / 2
        if call.argument("align_corners"):
            scale, shift = Fraction(before - 1, max(after - 1, 1)), Fraction(0)
        result = result.resampled(index, after, scale=scale, shift=shift)
    return result


def _nearest(into: Fraction) -> Rule:
    """The rule of nearest resizing that takes cell floor((i + into) * ratio)."""

    def nearest(call: Call) -> Arrangement:
        result = call.source()
        for axis, ratio in enumerate(_ratios(call)):
            index = 2 + axis
            last = result.shape[index] - 1
            taken = [min(floor((cell + into) * ratio), last) for cell in range(call.shape[index])]
            off = [place - cell * ratio for cell, place in enumerate(taken)]
            shift, blur = (min(off) + max(off)) / 2, (max(off) - min(off)) / 2
            result = result.resampled(index, call.shape[index], scale=ratio, shift=shift, blur=blur)
        return result

    return nearest


rule("upsample_nearest1d upsample_nearest2d upsample_nearest3d")(_nearest(Fraction(0)))
rule("_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d")(_nearest(Fraction(1, 2)))


@rule("constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d")
@rule("replication_pad1d replication_pad2d replication_pad3d")
def padded(call: Call) -> Arrangement:
    """The first cell moves outwards; folded cells get a frame."""
    result = call.source()
    pads = call.argument("pad", "padding")
    for axis in range(len(pads) // 2):
        left, right = pads[2 * axis : 2 * axis + 2]
        index = len(call.shape) - 1 - axis
        if left or right:
            result = _padded(result, index, left, right)
    return result


def _padded(result: Arrangement, index: int, left: int, right: int) -> Arrangement:
    axis = result.axes[index]
    count = left + result.shape[index] + right
    if is_bare(axis):
        return result.with_axis(index, result.plain(count))
    if len(axis) == 1 and isinstance(axis[0], Run):
        return result.resampled(index, count, shift=-left)
    runs = tuple(atom for atom in axis if isinstance(atom, Run))
    if len(runs) < len(axis) or min(left, right) < 0:
        raise LostError("padding beside tokens")
    return result.with_axis(index, (Framed(count, left, runs),))


@rule("im2col")
def unrolled(call: Call) -> Arrangement:
    """Patches (B, C K K, L): each lies at its middle, its pixels are channels."""
    result = call.source()
    for axis, (kernel, stride, padding, dilation) in enumerate(_windows(call, 2)):
        span = dilation * (kernel - 1)
        count = (result.shape[2 + axis] + 2 * padding - span - 1) // stride + 1
        result = result.resampled(2 + axis, count, scale=stride, shift=Fraction(span, 2) - padding)
    flat = (*result.axes[2], *result.axes[3])
    return replace(result, axes=(result.axes[0], result.plain(call.shape[1]), flat))


@rule("col2im")
def rolled_up(call: Call) -> Arrangement:
    """Patches laid over one another again."""
    windows = _windows(call, 2)
    counts: list[int] = []
    for side, (kernel, stride, padding, dilation) in zip(call.shape[2:], windows, strict=True):
        span = dilation * (kernel - 1)
        counts.append((side + 2 * padding - span - 1) // stride + 1)
    patches = call.argument("self").shape[1]
    result = call.source().viewed((call.shape[0], patches, *counts)).with_plain(1, call.shape[1])
    for axis, (kernel, stride, padding, dilation) in enumerate(windows):
        shift = padding - Fraction(dilation * (kernel - 1), 2)
        result = result.resampled(2 + axis, call.shape[2 + axis], scale=Fraction(1, stride), shift=shift / stride)
    return result


@rule("unfold")
def windowed(call: Call) -> Arrangement:
    """Windows along an axis; what is in a window becomes a last axis."""
    source = call.source()
    index = call.argument("dimension") % len(source.axes)
    even, run = source.line(index)
    step, size = call.argument("step"), call.argument("size")
    result = even.resampled(index, call.shape[index], scale=step)
    inside = plain(size, source.dims) if run.is_bare else (Run(size, run.step),)
    return replace(result, axes=(*result.axes, inside if size > 1 else ()))


@rule("pixel_shuffle pixel_unshuffle native_channel_shuffle channel_shuffle")
def shuffled(call: Call) -> Arrangement:
    """Channels become finer cells, or cells channels."""
    result = call.source()
    ratio = Fraction(1)
    if call.name == "pixel_shuffle":
        ratio = Fraction(1, call.argument("upscale_factor"))
    elif call.name == "pixel_unshuffle":
        ratio = Fraction(call.argument("downscale_factor"))
    for index in (-2, -1):
        place = len(call.shape) + index
        result = result.resampled(place, call.shape[index], scale=ratio, shift=(ratio - 1) / 2)
    return result.with_plain(len(call.shape) - 3, call.shape[-3])


def _pooled_dims(call: Call) -> int:
    digits = [letter for letter in call.name if letter.isdigit()]
    return int(digits[0])


def _windows(call: Call, dims: int) -> list[tuple[int, int, int, int]]:
    """Kernel, stride, padding and dilation along each axis."""
    kernel = call.numbers("kernel_size", dims)
    # An empty stride is the kernel's size.
    stride = call.numbers("stride", dims) if call.argument("stride") else kernel
    padding = call.numbers("padding", dims)
    dilation = call.numbers("dilation", dims) if "dilation" in call.arguments else [1] * dims
    return list(zip(kernel, stride, padding, dilation, strict=True))


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
    names = ("scales_d", "scales_h", "scales_w")[-dims:]
    return [call.argument(name) for name in names]
