"""Whether images look like what a bank was told: how much of the range they fill, and whose constants they had."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kornia_lightning_probe.image_layout import ImageLayout

# A block that fills less of the range than this was scaled in another way than the bank was told. A dark set still
# has a bright pixel somewhere.
_LEAST_SPAN = 0.08
# What a mean and std leave of [0, 1] that were undone and never done: 0.23 of ImageNet's, 0.5 of the halves.
_WIDE_SPAN = 0.6
# What rounding, a resize and a JPEG may add beyond white.
_MARGIN = 0.02


class Constants(NamedTuple):
    """The mean and standard deviation of a normalisation that many loaders apply."""

    whose: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def undone(self, values: Tensor) -> Tensor:
        """Values of each channel, (C,), as they were before the normalisation."""
        mean = torch.tensor(self.mean, dtype=values.dtype)
        std = torch.tensor(self.std, dtype=values.dtype)
        return values * std + mean


_KNOWN = (
    Constants("mean 0.5 and std 0.5", (0.5,), (0.5,)),
    Constants("ImageNet's mean and std", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    Constants("CLIP's mean and std", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    Constants("CIFAR-10's mean and std", (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
    Constants("MNIST's mean and std", (0.1307,), (0.3081,)),
)


def known_constants(images: Tensor, layout: ImageLayout) -> Constants | None:
    """The usual constants that images in [0, 1] may have been normalised by, or None.

    Args:
        images: floats that lie outside of [0, 1].
        layout: their axes.

    Example:
        >>> from kornia_lightning_probe.image_layout import IMAGE
        >>> known_constants(torch.tensor([-2.1, 0.0, 2.6]).view(1, 3, 1, 1), IMAGE).whose
        "ImageNet's mean and std"
    """
    lowest, highest = extremes(images, layout)
    if float(lowest.min()) >= 0:
        return None
    fitting: list[Constants] = []
    for constants in _KNOWN:
        if len(constants.mean) not in (1, len(lowest)):
            continue
        darkest, brightest = constants.undone(lowest), constants.undone(highest)
        if float(darkest.min()) < -_MARGIN or float(brightest.max()) > 1 + _MARGIN:
            continue
        # Black in all channels, or white: of images that hold neither, several may have made these values.
        if float(darkest.abs().max()) <= _MARGIN or float((1 - brightest).abs().max()) <= _MARGIN:
            return constants
        fitting.append(constants)
    return fitting[0] if fitting else None


def why_implausible(
    images: Tensor,
    layout: ImageLayout,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    value_range: tuple[float, float],
    normalised: bool,
) -> str:
    """Say what is implausible about images that lie in the range; an empty text where nothing is.

    Args:
        images: as the loader gives them.
        layout: their axes.
        mean: of the loader's normalisation, for each channel or all.
        std: likewise.
        value_range: of raw images.
        normalised: whether the bank was given a mean or a standard deviation.
    """
    low, high = value_range
    given = Constants("the loader", mean, std)
    lowest, highest = extremes(images, layout)
    darkest, brightest = given.undone(lowest), given.undone(highest)
    least, most = float(lowest.min()), float(highest.max())
    found = f"from {float(darkest.min()):.4g} to {float(brightest.max()):.4g}"
    spans = brightest - darkest
    share = float(spans.max()) / (high - low)
    # What is really normalised has a pixel below the mean somewhere in a block.
    lies_inside = max(low, 0.0) <= least and most <= high
    if normalised and lies_inside and min(mean) > low and share < _WIDE_SPAN:
        return (
            f"images: no pixel lies below the mean, and as they are given they lie in value_range, from {least:.4g} to "
            f"{most:.4g}; undoing mean and std makes that {found}: if the loader doesn't normalise, leave mean and std "
            "out"
        )
    if share < _LEAST_SPAN:
        undone = " after undoing mean and std" if normalised else ""
        return (
            f"images: values {found}{undone} fill {share:.2%} of value_range=({low:g}, {high:g}), so augmentations are "
            "much too strong for them; are they divided by 255 twice, or is it the range of another source? Pass the "
            "mean=, std= and value_range= that they really have"
        )
    return ""


def extremes(images: Tensor, layout: ImageLayout) -> tuple[Tensor, Tensor]:
    """The lowest and the highest value of each channel, (C,) float64 each, on the CPU."""
    others = [axis for axis in range(images.ndim) if axis != layout.channel_axis]
    values = images.detach()
    return values.amin(others).to("cpu", torch.float64), values.amax(others).to("cpu", torch.float64)
