"""Retrieval: whether an image's embedding, augmented, still finds its own clean embedding."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kornia_lightning_probe.functional import mean_with_error
from kornia_lightning_probe.influence import mean_influence
from kornia_lightning_probe.metrics.about import About
from kornia_lightning_probe.metrics.base import ProbeMetric


class RetrievalAUC(ProbeMetric):
    r"""The share of other images that lie farther from the augmented embedding than its own clean one, in [0, 1].

    The gallery is the block: the share of :math:`j \ne i` with :math:`|b_i - a_j| > |b_i - a_i|`, ties one half; so an
    area under a ROC curve, whose expectation does not depend on the gallery's size, as that of top-1 does. 1: every
    image still finds itself; one half: chance, also for a collapsed embedding, where all distances tie. NaN for a block
    of one image, which has no gallery.

    Example:
        >>> import torch
        >>> from kornia_lightning_probe.metrics import About
        >>> clean = torch.tensor([[0.0], [1.0], [2.0]])
        >>> metric = RetrievalAUC().prepare(views=["identity"], layers=["embedding"], num_images=3)
        >>> metric.update(clean, clean, About.of(clean, clean, layer="embedding"))
        >>> float(metric.compute().value)
        1.0
    """

    name = "retrieval_auc"
    statistics = ("auc",)
    scope = "embedding"

    def measure(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Each image's share."""
        # Distances do not change when all is centred, and cdist's differences keep more digits.
        query, gallery = (
            (activation - about.block.mean).reshape(len(activation), -1)
            for activation in (augmented, about.block.activation)
        )
        distance = torch.cdist(query, gallery, compute_mode="donot_use_mm_for_euclid_dist")
        numbers = torch.arange(len(gallery), device=gallery.device)[about.rows].unsqueeze(1)
        own = distance.gather(1, numbers)
        others = about.block.valid.expand_as(distance).scatter(1, numbers, False)
        farther = ((distance > own) & others).sum(1) + 0.5 * ((distance == own) & others).sum(1)
        share = farther.to(about.block.squared_deviation) / others.sum(1)
        return {"auc": torch.where(own.squeeze(1).isfinite(), share, torch.nan)}

    def reduce(self, table: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Mean over images and its standard error."""
        estimate = mean_with_error(table["auc"])
        return estimate.value, estimate.std_error

    def influence(self, table: Mapping[str, Tensor]) -> Tensor:
        """How far each image moves the value."""
        return mean_influence(table["auc"])
