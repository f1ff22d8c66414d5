"""Relative change: movement of a representation relative to its own length, for where there is no other image."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from kornia_lightning_probe.activations.about import Distances
from kornia_lightning_probe.functional.estimates import ratio_of_roots
from kornia_lightning_probe.metrics.base import DistanceMetric
from kornia_lightning_probe.quantity import Quantity


class RelativeChange(DistanceMetric):
    r"""Mean over images of :math:`|b_i - a_i| / |a_i|`, in [0, inf); NaN where the clean activation is zero.

    It falls with depth in an untrained network, where nothing is invariant, so it is no measure of invariance. It is
    here for a single image without a reference, which has no other image to be compared with.

    Example:
        >>> import torch
        >>> from kornia_lightning_probe.metrics import About
        >>> clean = torch.ones(1, 4)
        >>> metric = RelativeChange().prepare(views=["brightness"], layers=["fc"], num_images=1)
        >>> metric.update(clean, 1.5 * clean, About.of(clean, 1.5 * clean, layer="fc"))
        >>> float(metric.compute().value)  # ||s a - a|| / ||a|| = |s - 1|
        0.5
    """

    name = "relative_change"
    statistics = ("change",)
    quantity = Quantity(
        meaning="|augmented - clean| / |clean|", range=(0.0, math.inf), at_identity=0.0, scale=(0.0, 1.2)
    )

    def measure_distances(self, distances: Distances) -> Mapping[str, Tensor]:
        """Each image's relative change."""
        return {"change": ratio_of_roots(distances.squared_distance, distances.clean_squared_length)}
