"""Head share: whether what moves in the embedding can move the prediction at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from kornia_lightning_probe.activations.about import About
from kornia_lightning_probe.activations.site import HeadSpace, Site
from kornia_lightning_probe.functional.estimates import Estimate, shared_part
from kornia_lightning_probe.metrics.base import BlockMetric
from kornia_lightning_probe.quantity import Quantity


class HeadShare(BlockMetric):
    r"""The share of the embedding's movement in the directions that a linear head reads, in [0, 1].

    Where the output is :math:`W z + b` of the embedding z, which is checked numerically, only the row space of W minus
    its mean row moves one score against another. 1: all movement is in it; 0: the movement leaves every prediction as
    it is. It is :math:`\sum_i |P (b_i - a_i)|^2 / \sum_i |b_i - a_i|^2` with the projection P. Hold it against the
    share of the differences between images, and against chance, the dimension of that space over the embedding's, both
    in ``metadata["head"]`` and in the summary. NaN where nothing moves. Of maps z is the spatial mean, of sequences the
    class token or the mean of the patches, whichever the head reads.

    Example:
        >>> import torch
        >>> from kornia_lightning_probe.metrics import About
        >>> clean = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
        >>> metric = HeadShare(HeadSpace(torch.tensor([[1.0], [0.0]], dtype=torch.float64)))
        >>> metric = metric.prepare(views=["view"], layers=["fc"], num_images=2)
        >>> moved = clean + torch.tensor([3.0, 4.0])
        >>> metric.update(clean, moved, About.of(clean, moved, layer="fc"))
        >>> round(float(metric.compute().value), 2)  # 9 of 25
        0.36

    Args:
        space: what the head reads; None takes that of the embedding's site, as the probes find it.
        kwargs: torchmetrics' own options.
    """

    name = "head_share"
    statistics = ("inside", "total", "apart_inside", "apart")
    scope = "embedding"
    representation = "pooled"
    needs = "an output that is one matrix product of the embedding, and does not read all of its directions"
    reads_scores = True
    quantity = Quantity(
        meaning="1: the head reads all of the movement; 0: none of it",
        range=(0.0, 1.0),
        scale=(0.0, 1.0),
        marks=((0.0, "0 (none of it)"), (0.5, "0.5"), (1.0, "1 (the head reads all)")),
    )

    def __init__(self, space: HeadSpace | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._space = space

    def applies_to(self, site: Site) -> bool:
        """Whether the site is what a linear head reads."""
        return super().applies_to(site) and site.head is not None and site.head.part == site.part

    def measure_block(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:
        """Each image's squared movement and deviation, inside of the head's space and in all."""
        space = self._space or about.site.head
        if space is None:
            raise ValueError("head_share needs to know what the head reads: HeadShare(space) or the site's head")
        basis = space.basis.to(about.movement.squared_length)
        moved = (augmented - clean).to(basis)
        apart = about.block.centred.to(basis)
        return {
            "inside": (moved @ basis).square().sum(-1),
            "total": about.movement.squared_length,
            "apart_inside": (apart @ basis).square().sum(-1),
            "apart": apart.square().sum(-1),
        }

    def reduce(self, table: Mapping[str, Tensor]) -> Estimate:
        """The ratio of means and its standard error."""
        return shared_part(table["inside"], table["total"])

    def facts(self, sites: Mapping[str, Site]) -> Mapping[str, Any]:
        """What the value is to be held against: the differences between images, and chance."""
        spaces = [sites[layer].head for layer in self.layers if layer in sites]
        space = self._space or (spaces[0] if spaces else None)
        if space is None:
            return {}
        table = self.named_tables()
        between = table["apart_inside"][0].nansum() / table["apart"][0].nansum()
        width, rank = space.basis.shape
        head = {"between_images": float(between), "chance": rank / width, "directions": rank, "features": width}
        return {"head": head}
