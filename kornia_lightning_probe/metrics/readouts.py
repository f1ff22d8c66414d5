"""What is taken from an activation before it is compared: all of it, or its pooled features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import isqrt, prod

import torch
from torch import Tensor

from kornia_lightning_probe.metrics.about import Site
from kornia_lightning_probe.metrics.base import ProbeMetric

# An activation of at most so many numbers for each image is kept for the views to come: looking at several views at
# once costs less than looking at each.
SMALL = 2048


@dataclass(frozen=True)
class Readout:
    """A way to read one layer's activation, and the metrics that are fed with it.

    Args:
        site: the layer as these metrics know it.
        take: from an activation (B, ...) to what is compared, (B, ...); where ``whole``, in memory of its own, since it
            outlives the forward pass, in which an in-place operation may follow.
        whole: whether metrics get whole blocks under several views at once, however forward passes were cut; so for
            small readouts.
        metrics: the prepared metrics.
    """

    site: Site
    take: Callable[[Tensor], Tensor]
    whole: bool
    metrics: list[ProbeMetric] = field(default_factory=list)


def readouts_of(site: Site) -> Iterator[Readout]:
    """All ways to read a site: its activation, and its pooled features.

    Pooled are the spatial mean of a map, the token mean of a sequence, and a vector as it is. A sequence with a class
    token (one more than a square number of tokens) gives two, ``name:cls`` and ``name:patch``.

    Example:
        >>> [(r.site.name, r.site.representation) for r in readouts_of(Site("block", 1, (197, 768)))]
        [('block', 'activation'), ('block:cls', 'pooled'), ('block:patch', 'pooled')]
    """
    yield Readout(site, _as_it_is, whole=False)
    if site.kind == "output":
        return
    for suffix, shape, take in _pooled(site.shape):
        pooled = replace(site, name=site.name + suffix, shape=shape, representation="pooled", source=site.shape)
        yield Readout(pooled, take, whole=True)


def split_by_views(readout: Readout) -> list[Readout]:
    """Apart those metrics of a small activation that can be fed with several views at once, and the others."""
    together = [metric for metric in readout.metrics if metric.merges_views]
    if readout.whole or not together or prod(readout.site.shape) > SMALL:
        return [readout]
    alone = [metric for metric in readout.metrics if not metric.merges_views]
    small = replace(readout, take=torch.clone, whole=True, metrics=together)
    return [small, replace(readout, metrics=alone)] if alone else [small]


def is_channels_last(shape: tuple[int, ...]) -> bool:
    """Whether a map's shape is (H, W, C): its first two sides are equal and its last two are not."""
    return len(shape) == 3 and shape[0] == shape[1] != shape[2]


def has_class_token(shape: tuple[int, ...]) -> bool:
    """Whether a sequence (T, D) is a class token before a square grid of patches."""
    return len(shape) == 2 and shape[0] > 4 and isqrt(shape[0] - 1) ** 2 == shape[0] - 1


def _pooled(shape: tuple[int, ...]) -> list[tuple[str, tuple[int, ...], Callable[[Tensor], Tensor]]]:
    if not shape:
        return [("", (1,), _column)]
    if has_class_token(shape):
        return [(":cls", shape[1:], _class_token), (":patch", shape[1:], _patch_mean)]
    if len(shape) == 2:
        return [("", shape[1:], _token_mean)]
    if is_channels_last(shape):
        return [("", shape[2:], _channels_last_mean)]
    if len(shape) > 2:
        return [("", shape[:1], _spatial_mean)]
    return [("", shape, torch.clone)]


def _as_it_is(activation: Tensor) -> Tensor:
    return activation


def _column(activation: Tensor) -> Tensor:
    return activation.unsqueeze(1).clone()


def _spatial_mean(activation: Tensor) -> Tensor:
    return activation.flatten(2).mean(2)


def _channels_last_mean(activation: Tensor) -> Tensor:
    return activation.flatten(1, 2).mean(1)


def _token_mean(activation: Tensor) -> Tensor:
    return activation.mean(1)


def _class_token(activation: Tensor) -> Tensor:
    return activation[:, 0].clone()


def _patch_mean(activation: Tensor) -> Tensor:
    return activation[:, 1:].mean(1)
