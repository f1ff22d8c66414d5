"""Twins of views: noise that is exactly as long as a view's movement, to hold that movement against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kornia_lightning_probe.bank.views import View
from kornia_lightning_probe.functional.distances import accumulation_dtype
from kornia_lightning_probe.randomness import stable_seed


def twins_of(views: Sequence[View]) -> tuple[View, ...]:
    """The twin of each view: it goes by the same name, and says that it is one.

    Example:
        >>> import kornia.augmentation as K
        >>> from kornia_lightning_probe.bank.views import read_views
        >>> [twin.is_twin for twin in twins_of(read_views({"flip": K.RandomHorizontalFlip(p=1.0)}))]
        [True]
    """
    return tuple(replace(view, is_twin=True, moves_pixels=False) for view in views)


def with_noise_as_long(images: Tensor, moved: Tensor, *, seed: int) -> Tensor:
    """Images with isotropic Gaussian noise, each of the length of its own movement.

    Args:
        images: (B, ...), floating point, in the space in which lengths are compared: the model's own input.
        moved: the same images under a view, (B, ...).
        seed: of the noise, which is drawn on the CPU, so that every device has the same; no random stream moves.

    Returns:
        (B, ...), not limited to any range: row i lies as far from ``images[i]`` as ``moved[i]`` does, up to rounding.

    Example:
        >>> images, moved = torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 3.0)
        >>> round(float(with_noise_as_long(images, moved, seed=0).norm()), 4)  # the length of four threes
        6.0
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(images.shape, generator=generator, dtype=torch.float32).to(images.device)
    # Float64 holds the squares of whatever float32 does.
    wide = accumulation_dtype(images.device)
    start, noise = images.to(wide), noise.to(wide)
    scale = _lengths(moved.to(wide) - start) / _lengths(noise)
    return (start + noise * scale).to(images.dtype)


def twin_seed(seed: int, view: View, block: int, entry: int = 0) -> int:
    """The seed of a twin's noise: one for all levels, so that a severity curve has one direction for each image.

    Args:
        seed: the bank's.
        view: the view or its twin.
        block: the number of the block of images.
        entry: which of several images a model takes; each has noise of its own.
    """
    return stable_seed(seed, view.augmentation, block, "noise as long", entry)


def _lengths(rows: Tensor) -> Tensor:
    """The length of each row, (B, 1, ...)."""
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=tuple(range(1, rows.ndim)), keepdim=True)
    return lengths
