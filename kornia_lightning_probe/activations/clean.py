"""Clean activations of a block: what all views of it have in common, computed once."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from functools import cached_property
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from kornia_lightning_probe.functional.distances import (
    block_mean,
    block_mean_and_distance,
    pair_distances,
    squared_difference,
    squared_distance,
    squared_norm,
    upcast,
)
from kornia_lightning_probe.functional.memory import Room, Temporaries, piece_of
from kornia_lightning_probe.functional.robust import deviation_within, median, near_distance

_T = TypeVar("_T")


class Centre(NamedTuple):
    """Where a layer's clean activations are centred, and how far images lie apart, known from reference images.

    Args:
        mean: (1, ...).
        deviation: the mean of ``e_i`` over the reference images, a scalar.
        separation: the median of their ``u_i``, a scalar; NaN where that is not known.
    """

    mean: Tensor
    deviation: Tensor
    separation: Tensor = torch.tensor(math.nan)


class MeanOfBlocks:
    """The centre of one layer over several blocks, added one at a time."""

    def __init__(self) -> None:
        self._count = 0
        self._total: Tensor | float = 0.0
        self._like = torch.empty(0)
        self._deviations: list[Tensor] = []
        self._separations: list[Tensor] = []

    def add(self, block: CleanBlock) -> None:
        """Take in a block; its images that are not finite do not count."""
        self._like = block.activation
        self._count += int(block.valid.sum())
        self._total = self._total + block.activation.sum(0, keepdim=True).to(block.squared_deviation.dtype)
        self._deviations.append(block.deviation)
        self._separations.append(block.separation)

    def value(self) -> Centre:
        """The centre of what was added.

        Raises:
            ValueError: where no image was added.
        """
        if self._count == 0 or not isinstance(self._total, Tensor):
            raise ValueError("the reference gives no activation at a layer that runs on the probe images")
        mean = (self._total / self._count).to(self._like.dtype)
        return Centre(mean, torch.cat(self._deviations).nanmean(), median(torch.cat(self._separations)))


class Memory:
    """What has a place for results that several metrics share."""

    def remember(self, key: Hashable, compute: Callable[[], _T]) -> _T:
        """What ``compute`` returned on the first call with this key; it is not called again.

        Args:
            key: names the result; a tuple that begins with the metric's own word keeps it apart from others'.
            compute: takes nothing.
        """
        memory = self.__dict__.setdefault("_memory", {})
        if key not in memory:
            memory[key] = compute()
        kept: _T = memory[key]
        return kept


class CleanBlock(Memory):
    """One layer's clean activations over a block of images, with what all views have in common.

    Args:
        activation: (n, ...), copied unless ``owned``.
        centre: mean and deviation from reference images, instead of the block's own.
        owned: whether the tensor may be kept and written to.
        temporaries: memory that other blocks and layers use as well.

    Attributes:
        activation: (n, ...), float32 or float64.
        mean: (1, ...), the block's or the reference's.
        squared_deviation: ``|a_i - m|^2``, (n,).
        valid: which images have finite activations, (n,) bool; see :meth:`mask_non_finite`.
        num_valid: how many, as far as :meth:`mask_non_finite` was asked; n before that.
    """

    def __init__(
        self,
        activation: Tensor,
        *,
        centre: Centre | None = None,
        owned: bool = False,
        temporaries: Temporaries | None = None,
    ) -> None:
        wide = upcast(activation)
        is_copy = wide is not activation
        self.activation = wide if owned or is_copy else activation.clone()
        self._temporaries = temporaries or Temporaries()
        self._centre = centre
        self.mean, self.squared_deviation = self._centred_on_mean(self.activation)
        self.valid = self.squared_deviation.isfinite()
        self.num_valid = self.activation.shape[0]

    @property
    def has_reference(self) -> bool:
        """Whether mean and deviation are those of reference images."""
        return self._centre is not None

    def deviations(self, added_up: Callable[[Tensor], Tensor], rows: slice = slice(None)) -> Tensor:
        """What is made of ``(a_i - m)^2`` of some images, a few at a time, while these are in the processor's cache.

        Args:
            added_up: makes (b, ...) of (b, ...), image by image; what it gets is overwritten afterwards.
            rows: which of the n images.
        """
        activation = self.activation[rows]
        pieces = torch.split(activation, max(1, len(piece_of(activation))))
        found = [added_up(squared_difference(x, self.mean, out=self._temporaries.like(x))) for x in pieces]
        return torch.cat(found)

    @cached_property
    def room(self) -> Room:
        """Memory for differences to these activations."""
        return self._temporaries.room(self.activation)

    def other(self, name: str, rows: slice) -> Tensor:
        """What augmented activations of some of the rows are subtracted from, to give the distance called ``name``.

        Args:
            name: "squared_distance" or "squared_deviation".
            rows: of the block's n.

        Returns:
            (B, ...) or (1, ...).
        """
        return self.mean if name == "squared_deviation" else self.activation[rows]

    def mask_non_finite(self) -> None:
        """Leave out images with a non-finite activation: zero here, not in the mean, their deviation NaN.

        One such image makes the block's mean non-finite and with it every ``valid``; this finds the one.
        """
        self.valid = self.activation.reshape(len(self.activation), -1).isfinite().all(1)
        self.num_valid = int(self.valid.sum())
        if self.num_valid == self.valid.shape[0]:
            return
        # A new tensor, since this one is the model's own or what a later block is written into.
        self.activation = self.activation.masked_fill(~self.valid.view(-1, *[1] * (self.activation.ndim - 1)), 0.0)
        if self.num_valid:
            self.mean, _ = self._centred_on_mean(self.activation[self.valid])
        self.squared_deviation = self._masked(squared_distance(self.activation, self.mean))

    @cached_property
    def deviation(self) -> Tensor:
        """``e_i = n/(n-1) |a_i - m|^2``, (n,), or the reference's mean of it; NaN for a single image."""
        if self._centre is not None:
            return self._masked(self._centre.deviation.expand(self.valid.shape))
        if self.num_valid < 2:
            return torch.full_like(self.squared_deviation, torch.nan)
        return self.squared_deviation * (self.num_valid / (self.num_valid - 1))

    @cached_property
    def pair_distances(self) -> Tensor:
        """``|a_i - a_j|^2``, (n, n); what is not finite has none that mean anything."""
        return pair_distances(self.activation)

    @cached_property
    def separation(self) -> Tensor:
        """``u_i``, (n,), see :func:`~kornia_lightning_probe.functional.near_distance`, or the reference's median."""
        if self._centre is not None:
            return self._masked(self._centre.separation.to(self.squared_deviation).expand(self.valid.shape))
        return near_distance(self.pair_distances, self.valid)

    def deviation_within(self, labels: Tensor) -> Tensor:
        """``e_i`` within the class, (n,), see :func:`~kornia_lightning_probe.functional.deviation_within`.

        Beside a reference, whose labels are not known, it is that of the block all the same.
        """
        return deviation_within(self.pair_distances, self.valid, labels)

    @cached_property
    def channel_variance(self) -> Tensor:
        """Of pooled features, each channel's unbiased variance between images, (C,); NaN beside a reference."""
        if self._centre is not None:
            # The reference keeps no variance of single channels.
            return torch.full_like(self.squared_deviation[:1], torch.nan).expand(self.activation.flatten(1).shape[1])
        centred = self.centred
        if self.num_valid < len(centred):
            centred = torch.where(self.valid.unsqueeze(1), centred, 0.0)
        # Of a single image beside zero images, all channels would seem to stand still.
        others = self.num_valid - 1 if self.num_valid > 1 else math.nan
        return centred.square().sum(0).to(self.squared_deviation) / others

    @cached_property
    def centred(self) -> Tensor:
        """Of pooled features, ``a_i - m`` as (n, C)."""
        return (self.activation - self.mean).flatten(1)

    @cached_property
    def squared_length(self) -> Tensor:
        """``|a_i|^2``, (n,)."""
        return self._masked(squared_norm(self.activation))

    def _centred_on_mean(self, activation: Tensor) -> tuple[Tensor, Tensor]:
        """The mean, or the reference's, and each image's squared distance from it."""
        if self._centre is None and piece_of(activation) is activation and not activation.requires_grad:
            return block_mean_and_distance(activation, room=self._temporaries.room(activation))
        mean = block_mean(activation) if self._centre is None else self._centre.mean
        return mean, squared_distance(activation, mean, room=self._temporaries.room(activation))

    def _masked(self, scalars: Tensor) -> Tensor:
        return scalars if self.num_valid == scalars.shape[0] else torch.where(self.valid, scalars, torch.nan)


def mask_non_finite(blocks: Iterable[CleanBlock]) -> None:
    """Mask the non-finite images of several layers; where there are none this costs one look for all of them."""
    for device_blocks in _by_device(blocks).values():
        if not bool(torch.cat([block.valid for block in device_blocks]).all()):
            for block in device_blocks:
                block.mask_non_finite()


def _by_device(blocks: Iterable[CleanBlock]) -> dict[torch.device, list[CleanBlock]]:
    grouped: dict[torch.device, list[CleanBlock]] = {}
    # Readouts may share one, and masking it again would find nothing and forget what it found before.
    for block in {id(block): block for block in blocks}.values():
        grouped.setdefault(block.valid.device, []).append(block)
    return grouped
