"""Measures per channel: whether one channel speaks for a layer, and what the typical channel says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kornia_lightning_probe.activations.about import About
from kornia_lightning_probe.activations.clean import CleanBlock
from kornia_lightning_probe.activations.site import Site
from kornia_lightning_probe.functional.estimates import Estimate, ratio_of_roots
from kornia_lightning_probe.functional.robust import median
from kornia_lightning_probe.metrics.base import BlockMetric
from kornia_lightning_probe.metrics.block_sums import BlockSums, Sums
from kornia_lightning_probe.quantity import sensitivity_quantity, share_quantity

DOMINANT = 0.5
# Among fewer channels than this, one that holds half of the variance is no news.
FEW = 16


class _OfChannels(BlockSums, BlockMetric):
    """Sums by channel, of layers of at least 16."""

    clean_statistics = ("apart",)

    def applies_to(self, site: Site) -> bool:
        """Layers of at least 16 channels."""
        return super().applies_to(site) and site.kind == "layer" and site.shape[-1:] >= (FEW,)

    def width(self, site: Site) -> int:
        """The number of channels."""
        return site.shape[-1]


class ChannelDominance(_OfChannels):
    """The largest share that one channel has in the variance between clean images, in (0, 1], on pooled features.

    Above one half the sensitivity of a layer is mostly that of one channel, and the probe warns. The same under every
    view; variances are means over all blocks. It has no standard error over images.

    Example:
        >>> import torch
        >>> from kornia_lightning_probe.metrics import About
        >>> clean = torch.tensor([[0.0, 0.0], [3.0, 1.0]])
        >>> metric = ChannelDominance().prepare(views=["identity"], layers=["fc"], num_images=2)
        >>> metric.update(clean, clean, About.of(clean, clean, layer="fc"))
        >>> float(metric.compute().value)  # variances 9 to 1
        0.9
    """

    name = "channel_dominance"
    quantity = share_quantity("largest share that one channel has in the variance between images")

    def measure_block(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Any]:  # noqa: ARG002
        """Each channel's variance."""
        return {"apart": _variance(about.block)}

    def reduce_means(self, means: Mapping[str, Tensor]) -> Tensor:
        """The largest of the variances over their sum."""
        return means["apart"].amax() / means["apart"].sum()

    def remarks(self, estimate: Estimate, layers: Sequence[str]) -> list[str]:
        """Name the layers for which one channel speaks."""
        shares = estimate.value.nan_to_num(0.0).amax(0).tolist()
        found = [f"{layer} ({share:.0%})" for layer, share in zip(layers, shares, strict=True) if share > DOMINANT]
        where = ", ".join(found)
        sentence = (
            f"one channel holds more than half of the variance between images at {where}: sensitivity there is mostly "
            "that channel's; channel_median gives the typical channel"
        )
        return [sentence] if found else []


class ChannelMedian(_OfChannels):
    r"""The median over channels of each channel's own sensitivity, on pooled features, in [0, inf).

    One dominant or outlying channel can hide or fake the movement of all others in sensitivity, but not here. That of a
    channel is the root of a ratio of means over the images of all blocks, :math:`\sqrt{\bar d_c / (2 \bar e_c)}`;
    channels that are the same for all images have none and are left out. It has no standard error over images.

    Example:
        >>> import torch
        >>> from kornia_lightning_probe.metrics import About
        >>> clean = torch.tensor([[0.0, 0.0, 0.0], [2.0, 2.0, 200.0]])
        >>> moved = clean + torch.tensor([1.0, 1.0, 0.0])
        >>> metric = ChannelMedian().prepare(views=["shift"], layers=["fc"], num_images=2)
        >>> metric.update(clean, moved, About.of(clean, moved, layer="fc"))
        >>> float(metric.compute().value)  # channels move by 1, 1 and 0 where images are 2, 2 and 200 apart
        0.5
    """

    name = "channel_median"
    statistics = ("moved",)
    quantity = sensitivity_quantity("sensitivity of the typical channel, the median over channels")

    def measure_block(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Any]:  # noqa: ARG002
        """Each channel's squared movement, and its variance."""
        movement = about.movement
        count = movement.squared_length.isfinite().sum(1)
        return {"moved": Sums(movement.change * count.unsqueeze(1), count), "apart": _variance(about.block)}

    def reduce_means(self, means: Mapping[str, Tensor]) -> Tensor:
        """The median of the channels' sensitivities."""
        return median(ratio_of_roots(means["moved"], 2 * means["apart"]))


def _variance(block: CleanBlock) -> Sums:
    """Each channel's variance, as often as there are images; none of a single image or beside a reference."""
    variance = block.channel_variance
    count = variance.isfinite().all() * block.num_valid
    return Sums(variance * count, torch.as_tensor(count))
