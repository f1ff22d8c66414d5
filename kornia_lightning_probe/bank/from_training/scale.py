"""A normalisation that steps of a pipeline stand behind, as numbers that can be joined and undone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kornia_lightning_probe.bank.from_training.pins import plain


class Scale(NamedTuple):
    """(x - mean) / std, one number for all channels or one for each."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def then(self, other: Scale) -> Scale:
        """Both in one, this one first.

        Example:
            >>> Scale((0.5,), (0.5,)).then(Scale((1.0, 3.0), (2.0, 2.0)))
            Scale(mean=(1.0, 2.0), std=(1.0, 1.0))
        """
        length = max(len(self.mean), len(self.std), len(other.mean), len(other.std))
        means, stds = _stretched(self.mean, length), _stretched(self.std, length)
        others, widths = _stretched(other.mean, length), _stretched(other.std, length)
        mean = tuple(first + width * second for first, width, second in zip(means, stds, others, strict=True))
        std = tuple(first * second for first, second in zip(stds, widths, strict=True))
        return Scale(mean, std)

    def done(self, images: Tensor) -> Tensor:
        """Normalise (..., C, H, W)."""
        mean, std = self._columns(images)
        return (images - mean) / std

    def undone(self, images: Tensor) -> Tensor:
        """Take the normalisation of (..., C, H, W) back."""
        mean, std = self._columns(images)
        return images * std + mean

    def _columns(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(numbers).to(images) for numbers in self)
        return mean.view(-1, 1, 1), std.view(-1, 1, 1)


def scale_of(step: Any) -> Scale:
    """What a `Normalize` or `Denormalize` of Kornia's or torchvision's was made with."""
    flags = getattr(step, "flags", None)
    mean, std = (flags["mean"], flags["std"]) if flags else (step.mean, step.std)
    return Scale(_numbers(mean), _numbers(std))


def _numbers(given: Any) -> tuple[float, ...]:
    if isinstance(given, Tensor):
        return tuple(plain(number) for number in given.flatten())
    if isinstance(given, Sequence):
        return tuple(float(number) for number in given)
    return (float(given),)


def _stretched(numbers: tuple[float, ...], length: int) -> tuple[float, ...]:
    return numbers * length if len(numbers) == 1 else numbers
