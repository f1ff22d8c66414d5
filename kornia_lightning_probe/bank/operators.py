"""Operators that the presets need and Kornia lacks, each a Kornia augmentation with its magnitude pinned."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import kornia.augmentation as K  # noqa: N812 - the name that Kornia's own documentation uses
import torch
from kornia.enhance import adjust_contrast_with_mean_subtraction
from kornia.filters import filter2d_separable, get_gaussian_kernel1d, motion_blur
from torch import Tensor


class SignedRotation(K.RandomRotation):  # type: ignore[misc] # Kornia's lazy import hides its type
    """Turns each image by the same angle, to the left or to the right.

    Args:
        degrees: the angle; black enters at the corners.
    """

    def __init__(self, degrees: float) -> None:
        super().__init__((degrees, degrees), p=1.0)

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> dict[str, Tensor]:
        """Draw a sign for each image."""
        params: dict[str, Tensor] = super().generate_parameters(batch_shape)
        params["degrees"] = params["degrees"] * _signs(batch_shape[0])
        return params


class PinnedPose(K.RandomAffine):  # type: ignore[misc] # Kornia's lazy import hides its type
    """Turns and moves every image alike.

    Args:
        degrees: the angle, to the left where it is positive, as SignedRotation's.
        right: by how much of the width it moves to the right.
        down: by how much of the height it moves down; black enters where nothing was.
    """

    def __init__(self, degrees: float, *, right: float = 0.0, down: float = 0.0) -> None:
        # RandomAffine turns the other way than RandomRotation.
        super().__init__((-degrees, -degrees), p=1.0)
        self.flags.update(right=right, down=down)

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> dict[str, Tensor]:
        """The same for each image, in pixels."""
        params: dict[str, Tensor] = super().generate_parameters(batch_shape)
        height, width = batch_shape[-2:]
        pixels = params["translations"].new_tensor([self.flags["right"] * width, self.flags["down"] * height])
        params["translations"] = pixels.expand(batch_shape[0], 2)
        return params


class SignedTranslation(K.RandomTranslate):  # type: ignore[misc] # Kornia's lazy import hides its type
    """Moves each image by the same distance along both axes, forwards or backwards on each.

    Args:
        fraction: of the width along x, of the height along y; black enters at the border.
    """

    def __init__(self, fraction: float) -> None:
        super().__init__((fraction, fraction), (fraction, fraction), p=1.0)

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> dict[str, Tensor]:
        """Draw a sign for each image and axis."""
        params: dict[str, Tensor] = super().generate_parameters(batch_shape)
        for name in ("translate_x", "translate_y"):
            params[name] = params[name] * _signs(batch_shape[0])
        return params


class SignedScale(K.RandomAffine):  # type: ignore[misc] # Kornia's lazy import hides its type
    """Enlarges or shrinks each image about its centre, by the factor 1 + change or 1 - change.

    Args:
        change: in (0, 1); black enters around an image that shrinks.
    """

    def __init__(self, change: float) -> None:
        super().__init__(0.0, scale=(1.0 + change, 1.0 + change), p=1.0)

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> dict[str, Tensor]:
        """Draw a sign for each image."""
        params: dict[str, Tensor] = super().generate_parameters(batch_shape)
        change = params["scale"] - 1.0
        params["scale"] = 1.0 + change * _signs(batch_shape[0]).unsqueeze(1)
        return params


class SignedShear(K.RandomShear):  # type: ignore[misc] # Kornia's lazy import hides its type
    """Shears each image along x by the same angle, to the left or to the right.

    Args:
        degrees: the angle between a vertical line and its image; black enters at the sides.
    """

    def __init__(self, degrees: float) -> None:
        super().__init__((degrees, degrees), p=1.0)

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> dict[str, Tensor]:
        """Draw a sign for each image."""
        params: dict[str, Tensor] = super().generate_parameters(batch_shape)
        params["shear_x"] = params["shear_x"] * _signs(batch_shape[0])
        return params


class _Pinned(K.IntensityAugmentationBase2D):
    """An operator that moves no pixel and whose magnitude is fixed when it is built."""

    change: Callable[..., Tensor]

    def __init__(self, **magnitude: float) -> None:
        super().__init__(p=1.0)
        self.flags = magnitude

    def apply_transform(
        self,
        input: Tensor,  # noqa: A002 - Kornia passes it by this name
        params: dict[str, Tensor],
        flags: dict[str, Any],
        transform: Tensor | None = None,  # noqa: ARG002 - Kornia passes the identity
    ) -> Tensor:
        """Hand Kornia's call on, magnitude and random draw by name; a container puts its data_keys into both."""
        named = dict(flags, **params)
        return self.change(input, **named)


class PinnedGaussianBlur(_Pinned):
    """Blurs with the discrete Gaussian, whose variance is sigma squared however small sigma is.

    A sampled Gaussian, Kornia's own, is the identity at sigma = 0.16 pixels, which is 0.5 % of 32.

    Args:
        sigma: in pixels, or where `relative`, as a fraction of the shorter side.
        relative: whether sigma is a fraction.

    Source:
        Lindeberg, Scale-space for discrete signals, IEEE TPAMI 12(3), 1990.
    """

    def __init__(self, sigma: float, *, relative: bool = False) -> None:
        super().__init__(sigma=sigma, relative=relative)

    def change(self, images: Tensor, *, sigma: float, relative: bool, **_: Any) -> Tensor:
        """Filter along both axes, mirroring at the border."""
        height, width = images.shape[-2:]
        pixels = sigma * min(height, width) if relative else sigma
        along_x = discrete_gaussian(pixels, most=width - 1).to(images)
        along_y = discrete_gaussian(pixels, most=height - 1).to(images)
        return filter2d_separable(images, along_x[None], along_y[None], "reflect")


class PinnedMotionBlur(_Pinned):
    """Smears each image along a line of the same length, in a direction drawn for each.

    Light is spread as far, by its variance, as by a line of that length: L^2/12 square pixels, of which k pixels in a
    row give (k^2 - 1)/12. Lengths between two odd kernels blend their results, so that length 0 is the identity and no
    length is rounded away. Of tilted lines interpolation adds up to .4 square pixels.

    Args:
        fraction: the length, as a fraction of the shorter side.
    """

    def __init__(self, fraction: float) -> None:
        super().__init__(fraction=fraction)

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> dict[str, Tensor]:
        """Draw an angle in [0, 180) degrees for each image."""
        return {"angle": 180.0 * torch.rand(batch_shape[0])}

    def change(self, images: Tensor, *, fraction: float, angle: Tensor, **_: Any) -> Tensor:
        """Filter with the two nearest odd kernels, mirroring at the border, and blend."""
        squared_length = (fraction * min(images.shape[-2:])) ** 2
        radius = math.floor((math.sqrt(1 + squared_length) - 1) / 2)
        # A kernel of 2 r + 1 pixels has the squared length 4 r (r + 1), the next one 8 (r + 1) more.
        missing = squared_length - 4 * radius * (radius + 1)
        angle = angle.to(images)
        short = _smear(images, radius, angle)
        long = _smear(images, radius + 1, angle)
        return torch.lerp(short, long, missing / (8 * (radius + 1)))


class ClampedGaussianNoise(K.RandomGaussianNoise):  # type: ignore[misc] # Kornia's lazy import hides its type
    """Adds Gaussian noise and limits the result to [0, 1], as a camera does; Kornia's own leaves the range.

    Args:
        sigma: standard deviation of the noise, where white is 1.
    """

    def __init__(self, sigma: float) -> None:
        super().__init__(0.0, sigma, p=1.0)

    def apply_transform(self, *args: Any, **kwargs: Any) -> Tensor:
        """Add and limit."""
        noisy: Tensor = super().apply_transform(*args, **kwargs)
        return noisy.clamp(0.0, 1.0)


class PinnedContrast(_Pinned):
    """Moves every pixel towards the image's mean grey, or away from it.

    Kornia's RandomContrast multiplies, which darkens; this is the contrast of PIL and torchvision, which takes colour
    away along with contrast. ImageNet-C's moves each channel towards its own mean instead, so that the cast of an image
    stays.

    Args:
        factor: 0 leaves the mean only, 1 is the identity.
        per_channel: whether each channel moves towards its own mean, as in ImageNet-C.
    """

    def __init__(self, factor: float, *, per_channel: bool = False) -> None:
        super().__init__(factor=factor, per_channel=per_channel)

    def change(self, images: Tensor, *, factor: float, per_channel: bool, **_: Any) -> Tensor:
        """Blend with the mean, limited to [0, 1]."""
        if not per_channel:
            return adjust_contrast_with_mean_subtraction(images, factor)
        means = images.mean((-2, -1), keepdim=True)
        return torch.lerp(means, images, factor).clamp(0.0, 1.0)


class PinnedValue(_Pinned):
    """Adds to V of hue, saturation and value, limited to [0, 1]; hue and saturation stay.

    V is the largest channel, and scaling all channels by V'/V changes neither hue nor saturation, so this needs no
    conversion and works for any number of channels.

    Args:
        offset: what is added to V.
    """

    def __init__(self, offset: float) -> None:
        super().__init__(offset=offset)

    def change(self, images: Tensor, *, offset: float, **_: Any) -> Tensor:
        """Scale each pixel's channels by V'/V; black becomes grey."""
        value = images.amax(dim=1, keepdim=True)
        target = (value + offset).clamp(0.0, 1.0)
        tiny = torch.finfo(images.dtype).tiny
        scaled = images * (target / value.clamp_min(tiny))
        return torch.where(value > 0, scaled, target)


class PinnedElastic(K.RandomElasticTransform):  # type: ignore[misc] # Kornia's lazy import hides its type
    """Warps each image by a smooth random field whose displacement has the same root mean square for every size.

    Args:
        displacement: root mean square along one axis, as a fraction of that axis; smaller near the border.
        smoothness: standard deviation of the Gaussian that smooths the field, as a fraction of the shorter side.
    """

    def __init__(self, displacement: float, *, smoothness: float = 0.08) -> None:
        super().__init__(padding_mode="reflection", p=1.0)
        self.flags.update(displacement=displacement, smoothness=smoothness)

    def apply_transform(
        self,
        input: Tensor,  # noqa: A002 - Kornia passes it by this name
        params: dict[str, Tensor],
        flags: dict[str, Any],
        transform: Tensor | None = None,
    ) -> Tensor:
        """Choose Kornia's kernel and strength for the size at hand, and warp."""
        sigma = flags["smoothness"] * min(input.shape[-2:])
        kernel_size = 2 * math.ceil(3 * sigma) + 1
        kernel = get_gaussian_kernel1d(kernel_size, sigma)
        # Uniform noise on [-1, 1] has variance 1/3; a separable filter multiplies it by (sum of k^2)^2.
        root_mean_square = math.sqrt(1 / 3) * float(kernel.square().sum())
        # grid_sample's coordinates run from -1 to 1, so a whole side is 2.
        strength = 2 * flags["displacement"] / root_mean_square
        sized = dict(
            flags,
            kernel_size=(kernel_size, kernel_size),
            sigma=(sigma, sigma),
            alpha=(strength, strength),
        )
        warped: Tensor = super().apply_transform(input, params, sized, transform)
        return warped


def discrete_gaussian(sigma: float, *, most: int) -> Tensor:
    """Compute the discrete Gaussian kernel T(n) = exp(-t) I_n(t) with t = sigma^2.

    It is the inverse Fourier transform of exp(t (cos w - 1)), which is how it is computed.

    Args:
        sigma: standard deviation in pixels, at least 0.
        most: largest radius of the kernel, in pixels.

    Returns:
        (2 radius + 1,) float64 with sum 1, radius = min(4 sigma + 2 rounded up, most).

    Source:
        Lindeberg, Scale-space for discrete signals, IEEE TPAMI 12(3), 1990.

    Example:
        >>> kernel = discrete_gaussian(0.5, most=10)
        >>> distance = torch.arange(9) - 4
        >>> round(float((kernel * distance**2).sum()), 4)  # the variance
        0.25
    """
    radius = min(math.ceil(4 * sigma) + 2, most)
    # A period long enough that the tail that wraps around is below rounding.
    period = 2 * (radius + math.ceil(8 * sigma) + 8)
    frequency = 2 * math.pi / period * torch.arange(period // 2 + 1, dtype=torch.float64)
    spectrum = torch.exp(sigma**2 * (torch.cos(frequency) - 1))
    kernel = torch.fft.irfft(spectrum.to(torch.complex128), n=period)
    left = kernel[1 : radius + 1].flip(0)
    kernel = torch.cat([left, kernel[: radius + 1]])
    return kernel / kernel.sum()


def _signs(num_images: int) -> Tensor:
    is_negative = torch.rand(num_images) < 0.5
    return torch.where(is_negative, -1.0, 1.0)


def _smear(images: Tensor, radius: int, angle: Tensor) -> Tensor:
    if radius == 0:
        return images
    kernel_size, direction = 2 * radius + 1, torch.zeros_like(angle)
    return motion_blur(images, kernel_size, angle, direction, "reflect", "bilinear")
