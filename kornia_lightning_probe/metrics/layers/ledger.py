"""What the engine keeps about every activation: whether it was finite, and whether a layer tells images apart."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kornia_lightning_probe.activations.about import About
from kornia_lightning_probe.functional.estimates import mean_with_error
from kornia_lightning_probe.metrics.base import ProbeMetric


class Ledger(ProbeMetric):
    """Keeps each image's :math:`d_i` and :math:`e_i`, which also tell non-finite activations and dead layers.

    The engine always keeps one: this class, or a metric that builds on the same two numbers.
    """

    name = "ledger (the engine's own)"
    statistics = ("distance", "deviation")
    merges_views = True
    distances = ("squared_distance",)

    def measure(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Each image's distance, finite only where both activations are, and its deviation from the mean."""
        return {"distance": about.squared_distance, "deviation": about.deviation}

    def reduce(self, table: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The share of measured images that were finite, in [0, 1]."""
        finite = table["distance"].isfinite().to(table["distance"].dtype)
        estimate = mean_with_error(torch.where(self.filled > 0, finite, torch.nan))
        return estimate.value, estimate.std_error

    def non_finite(self) -> Tensor:
        """Where an image was measured and its activation was not finite, (view, layer, image) bool."""
        return (self.filled > 0) & ~self.table[0].isfinite()

    def dead(self) -> Tensor:
        """Layers at which all finite images have one and the same clean activation, (layer,) bool."""
        known = (self.filled > 0) & self.table[0].isfinite()
        apart = known & (self.table[1] != 0)
        return known.flatten(2).any(2).any(0) & ~apart.flatten(2).any(2).any(0)
