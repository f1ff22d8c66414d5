"""The positions of a map or a sequence: its cells or tokens, in whatever order its axes lie."""

from __future__ import annotations

import torch
from torch import Tensor

from kornia_lightning_probe.activations.site import Site

# Behind the axis of images, where the channels of each layout are; of others they come first.
_CHANNELS = {"tokens": 2, "channels last": 3, "depth first": 2}


def positions_of(site: Site) -> torch.Size:
    """How many positions lie along each axis of a site's activation that is not its channels.

    Example:
        >>> positions_of(Site("conv", 1, (64, 7, 5))), positions_of(Site("block", 1, (50, 768)))
        (torch.Size([7, 5]), torch.Size([50]))
    """
    sizes = list(site.shape)
    del sizes[_axis(site) - 1]
    return torch.Size(sizes)


def by_position(squares: Tensor, site: Site) -> Tensor:
    """The sums over channels of activations (B, ...), as (B, positions).

    Example:
        >>> by_position(torch.ones(2, 64, 7, 5), Site("conv", 1, (64, 7, 5))).shape
        torch.Size([2, 35])
    """
    return squares.sum(_axis(site)).reshape(len(squares), -1)


def _axis(site: Site) -> int:
    return _CHANNELS.get(site.layout.kind, 1)
