"""Layer sensitivity: how far an augmentation moves a representation, as a share of the distance between images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kornia_lightning_probe.activations.about import Distances
from kornia_lightning_probe.activations.site import Site
from kornia_lightning_probe.functional.estimates import Estimate, mean_with_error, sensitivity
from kornia_lightning_probe.metrics.base import DistanceMetric
from kornia_lightning_probe.quantity import sensitivity_quantity

_MEANING = "0: the layer does not notice; 1: it moves as far as swapping the image for another"


class _OfDistances(DistanceMetric):
    """S of whatever representation a subclass reads."""

    statistics = ("distance", "deviation")

    def measure_distances(self, distances: Distances) -> Mapping[str, Tensor]:
        """Each image's :math:`d_i` and :math:`e_i`."""
        return {"distance": distances.squared_distance, "deviation": distances.deviation}

    def reduce(self, table: Mapping[str, Tensor]) -> Estimate:
        """S and its standard error."""
        return sensitivity(table["distance"], table["deviation"])


class OneRepresentation(_OfDistances):
    """What is measured of the one representation that ``sensitivity`` compares."""

    def applies_to(self, site: Site) -> bool:
        """The pixels and every layer, and where these have cells, the mean over all of them."""
        if site.kind == "output":
            return False
        if site.representation == "activation":
            return True
        return site.has_cells and not site.part

    def wants_view(self, site: Site, view: Any) -> bool:
        """The mean over cells under views that move pixels, along which cells move; else all of the activation."""
        moves = bool(getattr(view, "moves_pixels", False)) and site.has_cells
        return moves == (site.representation != "activation")


class Ledger(OneRepresentation):
    """Keeps each image's :math:`d_i` and :math:`e_i`, which also tell non-finite activations and dead layers.

    The engine always keeps one: this class, or :class:`LayerSensitivity`, which is made of the same two numbers.
    """

    name = "ledger (the engine's own)"

    def reduce(self, table: Mapping[str, Tensor]) -> Estimate:
        """The share of measured images that were finite, in [0, 1]."""
        finite = table["distance"].isfinite().to(table["distance"].dtype)
        return mean_with_error(torch.where(self.filled > 0, finite, torch.nan))

    def non_finite(self) -> Tensor:
        """Where an image was measured and its activation was not finite, (view, layer, image) bool."""
        return (self.filled > 0) & ~self.table[0].isfinite()

    def dead(self) -> Tensor:
        """Layers at which all finite images have one and the same clean activation, (layer,) bool."""
        known = (self.filled > 0) & self.table[0].isfinite()
        apart = known & (self.table[1] != 0)
        return known.flatten(2).any(2).any(0) & ~apart.flatten(2).any(2).any(0)


class LayerSensitivity(Ledger):
    r"""Layer sensitivity :math:`S = \sqrt{\overline{d} / (2\,\overline{e})}`, in [0, inf): the number shown everywhere.

    0: the layer does not notice; 1: the augmentation moves the representation as far as swapping the image for another
    one. It is S of the flattened activation; of a feature map, or a sequence of tokens, under a view that moves pixels
    it is S of the mean over all cells or tokens, since cells move along with the image. The layer ``input`` is always
    compared as pixels. See :func:`kornia_lightning_probe.functional.sensitivity` for the formula, its error and its
    source. NaN for a dead layer, and for a single image without a reference.

    Example:
        >>> import torch
        >>> from kornia_lightning_probe.metrics import About
        >>> clean = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        >>> metric = LayerSensitivity().prepare(views=["identity"], layers=["conv1"], num_images=8)
        >>> metric.update(clean, clean, About.of(clean, clean, layer="conv1"))
        >>> float(metric.compute().value)
        0.0
    """

    name = "sensitivity"
    quantity = sensitivity_quantity(_MEANING, logged=True)

    def reduce(self, table: Mapping[str, Tensor]) -> Estimate:
        """S and its standard error."""
        return sensitivity(table["distance"], table["deviation"])


class FlatSensitivity(_OfDistances):
    """Layer sensitivity of the flattened activation under every view, in [0, inf).

    A map that moves along with the image has moved here, cell by cell: a map of independent cells that is shifted by
    one reads 1.

    Example:
        >>> import torch
        >>> from kornia_lightning_probe.metrics import About
        >>> clean = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        >>> metric = FlatSensitivity().prepare(views=["swap"], layers=["conv1"], num_images=8)
        >>> metric.update(clean, clean.roll(1, 0), About.of(clean, clean.roll(1, 0), layer="conv1"))
        >>> round(float(metric.compute().value), 1)  # each image swapped for the one before it
        1.0
    """

    name = "sensitivity_flat"
    quantity = sensitivity_quantity("sensitivity of the flattened activation, under every view")


class PooledSensitivity(_OfDistances):
    """Layer sensitivity of the spatial mean of maps and the token mean of sequences under every view, in [0, inf).

    Not measured at vectors, where it would be the flattened one again. A sequence with a class token has two rows,
    ``name:cls`` and ``name:patch``.

    Example:
        >>> import torch
        >>> from kornia_lightning_probe.metrics import About
        >>> maps = torch.randn(8, 4, 6, 6, generator=torch.Generator().manual_seed(0))
        >>> clean, rolled = maps.mean((2, 3)), maps.roll(1, dims=3).mean((2, 3))
        >>> metric = PooledSensitivity().prepare(views=["roll"], layers=["conv"], num_images=8)
        >>> metric.update(clean, rolled, About.of(clean, rolled, layer="conv"))
        >>> round(float(metric.compute().value), 6)
        0.0
    """

    name = "sensitivity_pooled"
    quantity = sensitivity_quantity("sensitivity of the spatial or token mean, under every view")
    representation = "pooled"

    def applies_to(self, site: Site) -> bool:
        """Maps and sequences; the pixels too."""
        return super().applies_to(site) and site.source is not None and len(site.source) > 1
