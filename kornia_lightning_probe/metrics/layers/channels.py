"""Measures per channel: whether one channel speaks for a layer, and what the typical channel says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from kornia_lightning_probe.activations.about import About
from kornia_lightning_probe.activations.site import Site
from kornia_lightning_probe.functional.estimates import Estimate, mean_with_error, ratio_of_roots
from kornia_lightning_probe.metrics.base import BlockMetric
from kornia_lightning_probe.quantity import Quantity, sensitivity_quantity

DOMINANT = 0.5
# Among fewer channels than this, one that holds half of the variance is no news.
FEW = 16


class ChannelDominance(BlockMetric):
    """The largest share that one channel has in the variance between clean images, in (0, 1], on pooled features.

    Above one half the sensitivity of a layer is mostly that of one channel, and the probe warns. The same under every
    view. It has no standard error over images: it is one number for each block.

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
    statistics = ("share",)
    quantity = Quantity(
        meaning="largest share that one channel has in the variance between images",
        range=(0.0, 1.0),
        scale=(0.0, 1.0),
        marks=((0.0, "0"), (0.5, "0.5"), (1.0, "1 (all in one)")),
    )

    def applies_to(self, site: Site) -> bool:
        """Layers of at least 16 channels."""
        return super().applies_to(site) and _has_channels(site)

    def measure_block(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:  # noqa: ARG002
        """The block's share, for each of its images."""
        variance = about.block.channel_variance
        share = variance.max() / variance.sum()
        return {"share": share.expand(len(about.valid))}

    def reduce(self, table: Mapping[str, Tensor]) -> Estimate:
        """Mean over the blocks, weighted by their images."""
        return _of_blocks(table["share"])

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


class ChannelMedian(BlockMetric):
    r"""The median over channels of each channel's own sensitivity, on pooled features, in [0, inf).

    One dominant or outlying channel can hide or fake the movement of all others in sensitivity, but not here. Channels
    that are the same for all images have no sensitivity and are left out. Estimated in each block; it has no standard
    error over images.

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
    statistics = ("median",)
    quantity = sensitivity_quantity("sensitivity of the typical channel, the median over channels")

    def applies_to(self, site: Site) -> bool:
        """Layers of at least 16 channels."""
        return super().applies_to(site) and _has_channels(site)

    def measure_block(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:  # noqa: ARG002
        """The block's median, for each of its images."""
        median = _median(ratio_of_roots(about.movement.change, 2 * about.block.channel_variance))
        known = about.movement.squared_length.isfinite()
        return {"median": torch.where(known, median.unsqueeze(1), torch.nan)}

    def reduce(self, table: Mapping[str, Tensor]) -> Estimate:
        """Mean over the blocks, weighted by their images."""
        return _of_blocks(table["median"])


def _of_blocks(values: Tensor) -> Estimate:
    """A number of each block, the same for all of its images, which says nothing of single images."""
    known = values.isfinite()
    return Estimate(mean_with_error(values).value, known.sum(-1))


def _has_channels(site: Site) -> bool:
    return site.kind == "layer" and site.shape[-1:] >= (FEW,)


def _median(values: Tensor) -> Tensor:
    """Along the last axis, without NaN. Torch's is the lower one of the two in the middle."""
    return (values.nanmedian(-1).values - (-values).nanmedian(-1).values) / 2
