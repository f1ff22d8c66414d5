"""Retrieval: whether an image's embedding, augmented, still finds its own clean embedding."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kornia_lightning_probe.functional import mean_with_error
from kornia_lightning_probe.influence import mean_influence
from kornia_lightning_probe.metrics.about import About
from kornia_lightning_probe.metrics.base import ProbeMetric
from kornia_lightning_probe.metrics.clean import CleanBlock

# Squared distances that differ by no more roundings of their terms than this are the same.
_ROUNDING = 4096


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
    merges_views = True
    whole_blocks = True
    scope = "embedding"

    def measure(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Each image's share."""
        block = about.block
        gallery, gallery_length = block.remember(("retrieval", "gallery"), lambda: _centred(block.activation, block))
        query, query_length = _centred(augmented, block)
        scale = query_length.unsqueeze(1) + gallery_length
        distance = torch.addmm(scale, query, gallery.T, alpha=-2)
        numbers = torch.arange(len(gallery), device=gallery.device)[about.rows].repeat(about.num_views).unsqueeze(1)
        farther = distance - distance.gather(1, numbers)
        tie = farther.abs() <= _ROUNDING * torch.finfo(scale.dtype).eps * scale
        others = block.valid.expand_as(distance).scatter(1, numbers, False)
        score = torch.where(tie, 0.5, (farther > 0).to(scale))
        share = torch.where(others, score, 0.0).sum(1) / others.sum(1)
        return {"auc": torch.where(query_length.isfinite(), share, torch.nan)}

    def reduce(self, table: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Mean over images and its standard error."""
        estimate = mean_with_error(table["auc"])
        return estimate.value, estimate.std_error

    def influence(self, table: Mapping[str, Tensor]) -> Tensor:
        """How far each image moves the value."""
        return mean_influence(table["auc"])


def _centred(activation: Tensor, block: CleanBlock) -> tuple[Tensor, Tensor]:
    """Features about the block's mean, (B, D), and their squared length, (B,): in float64 (float32 on MPS)."""
    features = (activation - block.mean).reshape(len(activation), -1).to(block.squared_deviation)
    return features, features.square().sum(1)
