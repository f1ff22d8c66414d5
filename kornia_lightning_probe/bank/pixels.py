"""What a pixel value means: the loader's normalisation, undone before an augmentation and redone after it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kornia_lightning_probe.bank.doubts.plausible import known_constants, why_implausible
from kornia_lightning_probe.image_layout import IMAGE, VIDEO, VOLUME, ImageLayout
from kornia_lightning_probe.wording import listed

_TOLERANCE = 1e-4


class PixelScale:
    """Maps what a loader gives to [0, 1] and back.

    A loader that normalises gives `x = (raw - mean) / std` with raw pixels in `value_range = (low, high)`, so

        unit = (x * std + mean - low) / (high - low)

    Args:
        mean: the loader's mean, one number or one for each channel, in units of the raw pixels; None is 0.
        std: the loader's standard deviation, likewise; None is 1.
        value_range: lowest and highest value that a raw pixel can take.
        layout: the axes of images.

    Raises:
        TypeError: for what is no number.
        ValueError: for a standard deviation that isn't positive or a range that isn't increasing.

    Example:
        >>> scale = PixelScale(mean=0.5, std=0.25)
        >>> scale.to_unit(torch.tensor([[[[-2.0, 2.0]]]]))
        tensor([[[[0., 1.]]]])
    """

    def __init__(
        self,
        *,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        value_range: tuple[float, float] = (0.0, 1.0),
        layout: ImageLayout = IMAGE,
    ) -> None:
        self.layout = layout
        self.mean = _per_channel("mean", mean, default=0.0)
        self.std = _per_channel("std", std, default=1.0)
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {list(self.std)}")
        self.value_range = _two_ends(value_range)
        self._normalised = mean is not None or std is not None
        self._identical = not self._normalised and self.value_range == (0.0, 1.0)

    def to_unit(self, images: Tensor) -> Tensor:
        """Undo the normalisation.

        Args:
            images: (B, ...), floating point, as the loader gives them.

        Returns:
            A new contiguous float32 tensor of the same shape, limited to [0, 1].
        """
        return self.undone(images).clamp(0.0, 1.0).contiguous()

    def undone(self, images: Tensor) -> Tensor:
        """As `to_unit`, without the limits."""
        unit = images.to(torch.float32)
        if self._identical:
            return unit
        std, offset, width = self._factors(unit)
        return (unit * std + offset) / width

    def from_unit(self, unit: Tensor, *, dtype: torch.dtype) -> Tensor:
        """Redo the normalisation.

        Args:
            unit: (B, ...), float32, where 0 and 1 are the ends of `value_range`.
            dtype: of the tensor that is returned.

        Returns:
            A contiguous tensor of the same shape.
        """
        if not self._identical:
            std, offset, width = self._factors(unit)
            unit = (unit * width - offset) / std
        return unit.to(dtype).contiguous()

    def check(self, images: Tensor, *, what: str = "images") -> None:
        """Raise where images can't be what `mean`, `std` and `value_range` say that they are.

        Args:
            images: (B, ...), floating point, as the loader gives them.
            what: how the message calls them.

        Raises:
            TypeError: for anything but a floating point tensor.
            ValueError: for a wrong number of dimensions or channels, for NaN or infinite pixels, and for values
                outside `value_range` (tolerance 1e-4 of the range, or one rounding step of the images' dtype).
        """
        self.check_layout(images, what=what)
        if images.numel() == 0:
            raise ValueError(f"{what}: no pixels in a tensor of shape {tuple(images.shape)}")
        values = images if images.dtype == torch.float64 else images.to(torch.float32)
        if not self._identical:
            mean, std = self._statistics(values)
            values = values * std + mean
        # Both are NaN where a pixel is.
        lowest, highest = map(float, torch.aminmax(values))
        if not (math.isfinite(lowest) and math.isfinite(highest)):
            is_finite = torch.isfinite(images).flatten(1).all(dim=1)
            rows = (~is_finite).nonzero().flatten().tolist()
            raise ValueError(
                f"{what}: NaN or infinite pixels in {len(rows)} of {len(images)} images (rows {listed(rows)}); "
                "repair or leave out these images"
            )
        self._check_range(images, what, lowest, highest)

    def why_implausible(self, images: Tensor) -> str:
        """Say what is implausible about images that `check` lets pass; an empty text where nothing is."""
        return why_implausible(
            images,
            self.layout,
            mean=self.mean,
            std=self.std,
            value_range=self.value_range,
            normalised=self._normalised,
        )

    def check_layout(self, images: Tensor, *, what: str = "images") -> None:
        """Raise where images aren't a floating point tensor with the axes of the layout; reads no pixel.

        Args:
            images: what should be images.
            what: how the message calls them.

        Raises:
            TypeError: for anything but a floating point tensor.
            ValueError: for a wrong number of dimensions or channels.
        """
        if not isinstance(images, Tensor):
            raise TypeError(f"{what} must be a tensor of shape {self.layout.shape}, got {type(images).__name__}")
        if not images.is_floating_point():
            raise TypeError(
                f"{what} must be floating point, got {images.dtype}; convert 8-bit images with `images.float() / 255` "
                "or `v2.ToDtype(torch.float32, scale=True)`"
            )
        if images.ndim != self.layout.num_axes:
            came = tuple(images.shape)
            raise ValueError(f"{what} must have the shape {self.layout.shape}, got {came}{self._axes_advice(images)}")
        channels = self.layout.channels(images)
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise ValueError(f"{what} have {channels} channels, but {name} has {len(values)} values")

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean = torch.tensor(self.mean, dtype=like.dtype, device=like.device)
        std = torch.tensor(self.std, dtype=like.dtype, device=like.device)
        shape = [1] * self.layout.num_axes
        shape[self.layout.channel_axis] = -1
        return mean.view(shape), std.view(shape)

    def _axes_advice(self, images: Tensor) -> str:
        if self.layout is IMAGE and images.ndim == VOLUME.num_axes:
            kinds = [f"layout={kind.name!r} takes {kind.shape}" for kind in (VOLUME, VIDEO)]
            return f"; a bank with {' and with '.join(kinds)}"
        if images.ndim == self.layout.num_axes - 1:
            return f"; add a batch dimension to a single {self.layout.name}: `images[None]`"
        return ""

    def _factors(self, like: Tensor) -> tuple[Tensor, Tensor, float]:
        """The standard deviation, the mean above the lowest value, and the width of the range."""
        mean, std = self._statistics(like)
        low, high = self.value_range
        return std, mean - low, high - low

    def _check_range(self, images: Tensor, what: str, lowest: float, highest: float) -> None:
        low, high = self.value_range
        relative = max(_TOLERANCE, torch.finfo(images.dtype).eps)
        tolerance = relative * (high - low)
        if lowest >= low - tolerance and highest <= high + tolerance:
            return
        undone = " after undoing mean and std" if self._normalised else ""
        raise ValueError(
            f"{what}: values from {lowest:.4g} to {highest:.4g}{undone}, outside value_range=({low:g}, {high:g}); "
            f"{self._advice(lowest, highest, images)}"
        )

    def _constants(self, images: Tensor) -> str:
        constants = known_constants(images, self.layout) if self.value_range == (0.0, 1.0) else None
        if constants is None:
            return ""
        line = f"AugmentationBank(..., mean={list(constants.mean)}, std={list(constants.std)})"
        return f"; these values are those of {constants.whose}: {line}"

    def _advice(self, lowest: float, highest: float, images: Tensor) -> str:
        low, high = self.value_range
        is_inside = float(images.min()) >= low and float(images.max()) <= high
        if self._normalised and is_inside:
            return "as they are given, they lie inside: if the loader doesn't normalise, leave mean and std out"
        if self._normalised:
            return "pass the mean=, std= and value_range= that the loader's normalisation really has"
        if lowest < 0 and max(-lowest, highest) < 16:
            return f"if the loader normalises, pass its mean= and std={self._constants(images)}"
        for top in (255, 4095, 65535):
            if lowest >= 0 and highest <= top:
                return f"pass value_range=(0, {top}), or scale the images to [0, 1]"
        return "pass value_range=(lowest, highest) of the raw images"


def _per_channel(name: str, values: float | Sequence[float] | None, *, default: float) -> tuple[float, ...]:
    if values is None:
        return (default,)
    try:
        numbers = torch.as_tensor(values, dtype=torch.float64).flatten().tolist()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be one number, or one for each channel, got {values!r}") from error
    if not numbers or not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"{name} must be one finite number, or one for each channel, got {values!r}")
    return tuple(numbers)


def _two_ends(value_range: tuple[float, float]) -> tuple[float, float]:
    try:
        ends = [float(end) for end in value_range]
    except (TypeError, ValueError) as error:
        raise TypeError(f"value_range must be two numbers (low, high), got {value_range!r}") from error
    is_range = len(ends) == 2 and all(map(math.isfinite, ends)) and ends[0] < ends[1]
    if not is_range:
        raise ValueError(f"value_range must be (low, high) with low < high, got {tuple(ends)}")
    return ends[0], ends[1]
