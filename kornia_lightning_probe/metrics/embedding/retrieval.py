"""Retrieval: whether an image's embedding, augmented, still finds its own clean embedding."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kornia_lightning_probe.activations.about import About
from kornia_lightning_probe.activations.clean import CleanBlock
from kornia_lightning_probe.functional.estimates import Estimate, mean_with_error
from kornia_lightning_probe.functional.influence import mean_influence
from kornia_lightning_probe.metrics.base import BlockMetric
from kornia_lightning_probe.quantity import Quantity

# Squared distances that differ by no more roundings of their terms than this are the same.
_ROUNDING = 4096


class RetrievalAUC(BlockMetric):
    r"""The share of other images that lie farther from the augmented embedding than its own clean one, in [0, 1].

    The gallery is the block: the share of :math:`j \ne i` with :math:`|b_i - a_j| > |b_i - a_i|`, ties one half; so an
    area under a ROC curve, whose expectation does not depend on the gallery's size, as that of top-1 does. 1: every
    image still finds itself; one half: chance, also for a collapsed embedding, where all distances tie. NaN for a block
    of one image, which has no gallery.

    An image counts twice, as what searches and in the gallery of the others of its block, so the error is that of
    leaving images out altogether, the jackknife's, from :math:`n\,\theta - (n-1)\,\theta_{(i)}` with the block's value
    :math:`\theta` and that without image i. It tends to be too large rather than too small: for values up to .99 it is
    .93 to 1.15 of the true one in blocks of 32 images, up to 1.3 in blocks of 8 and 1.6 in blocks of 3 or 4. Nearer to
    1 a few images decide, and it can be too small. NaN where blocks have two images, each the other's only gallery.

    Source:
        Efron and Stein, "The jackknife estimate of variance", Annals of Statistics 9, 1981.

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
    statistics = ("auc", "pseudovalue")
    scope = "embedding"
    representation = "activation"
    quantity = Quantity(
        meaning="share of other images farther from the augmented embedding than its own; 0.5: chance",
        range=(0.0, 1.0),
        at_identity=1.0,
        scale=(0.5, 1.0),
        marks=((0.5, "0.5 (chance)"), (0.75, "0.75"), (1.0, "1 (always found)")),
    )

    def measure_block(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Each image's share, and what the block's value owes to the image."""
        block = about.block
        gallery, gallery_length = block.remember(("retrieval", "gallery"), lambda: _centred(block.activation, block))
        query, query_length = _centred(augmented.flatten(0, 1), block)
        scale = query_length.unsqueeze(1) + gallery_length
        distance = torch.addmm(scale, query, gallery.T, alpha=-2).unflatten(0, augmented.shape[:2])  # type: ignore[no-untyped-call] # torch doesn't say
        scale = scale.view_as(distance)
        farther = distance - distance.diagonal(dim1=1, dim2=2).unsqueeze(2)
        tie = farther.abs() <= _ROUNDING * torch.finfo(scale.dtype).eps * scale
        score = torch.where(tie, 0.5, (farther > 0).to(scale))
        others = block.valid & ~torch.eye(len(gallery), dtype=torch.bool, device=gallery.device)
        score = torch.where(others, score, 0.0)
        known = query_length.view(augmented.shape[:2]).isfinite() & block.valid
        share = torch.where(known, score.sum(2) / others.sum(1), torch.nan)
        return {"auc": share, "pseudovalue": _pseudovalues(share, score, block)}

    def reduce(self, table: Mapping[str, Tensor]) -> Estimate:
        """Mean over images; its error is that of leaving each of them out, as what searches and what is searched."""
        found = mean_with_error(table["auc"])
        return Estimate(found.value, found.num_images, mean_influence(table["pseudovalue"]))


def _pseudovalues(share: Tensor, score: Tensor, block: CleanBlock) -> Tensor:
    r"""What the block's value :math:`\theta` owes to each image i, :math:`\theta + (m-1)(\theta - \theta_{(i)})`.

    Of m shares :math:`q_i` over a gallery of n images, :math:`\theta_{(i)}` lacks image i's own share, and its scores
    :math:`c_i`, summed over the others that search: :math:`(m-1)(n-2)\,\theta_{(i)} = (n-1)(m\,\theta - q_i) - c_i`.

    Args:
        share: :math:`q_i`, (views, n); NaN where the image does not search.
        score: of each search, one for each image of the gallery, (views, n, n); 0 for the image itself.
        block: the gallery.

    Returns:
        (views, n), of mean :math:`\theta` where all images search; NaN where ``share`` is, and in a gallery of fewer
        than three.
    """
    known = share.isfinite()
    shares = torch.where(known, share, 0.0)
    searches = known.sum(1, keepdim=True)
    mean = shares.sum(1, keepdim=True) / searches
    as_gallery = torch.where(known.unsqueeze(2), score, 0.0).sum(1)
    size = block.valid.sum()
    owed = (size - 1) * (shares - mean) + as_gallery - (searches - 1) * mean
    pseudovalues = mean + owed / torch.where(size > 2, size - 2.0, torch.nan)
    return torch.where(known, pseudovalues, torch.nan)


def _centred(activation: Tensor, block: CleanBlock) -> tuple[Tensor, Tensor]:
    """Features about the block's mean, (B, D), and their squared length, (B,): in float64 (float32 on MPS)."""
    features = (activation - block.mean).reshape(len(activation), -1).to(block.squared_deviation)
    return features, features.square().sum(1)
