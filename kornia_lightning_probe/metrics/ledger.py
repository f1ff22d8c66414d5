"""What the engine keeps about every activation: whether it was finite, and whether a layer tells images apart."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kornia_lightning_probe.functional import mean_with_error
from kornia_lightning_probe.metrics.about import About
from kornia_lightning_probe.metrics.base import ProbeMetric


class Ledger(ProbeMetric):
    """Per image, whether clean and augmented activations were finite, and whether they lie off the block's mean."""

    name = "ledger"
    statistics = ("finite", "apart")

    def measure(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:  # noqa: ARG002
        """1 or NaN for finite or not; 1 or 0 for apart from the mean or not, also 1 where there is no other image."""
        finite = torch.where(about.squared_distance.isfinite(), 1.0, torch.nan)
        return {"finite": finite, "apart": (about.deviation != 0).to(finite.dtype)}

    def reduce(self, table: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The share of images that were finite, in [0, 1]."""
        estimate = mean_with_error(table["finite"].nan_to_num(0.0))
        return estimate.value, estimate.std_error

    def non_finite(self) -> Tensor:
        """Where an image was measured and its activation was not finite, (view, layer, image) bool."""
        return (self.filled > 0) & ~self.table[0].isfinite()

    def dead(self) -> Tensor:
        """Layers at which all finite images have one and the same clean activation, (layer,) bool."""
        known = (self.filled > 0) & self.table[0].isfinite()
        apart = known & (self.table[1] > 0)
        return known.flatten(2).any(2).any(0) & ~apart.flatten(2).any(2).any(0)
