"""Layer sensitivity: how far an augmentation moves a representation, as a share of the distance between images."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from kornia_lightning_probe.functional.estimates import sensitivity
from kornia_lightning_probe.functional.influence import sensitivity_influence
from kornia_lightning_probe.metrics.layers.ledger import Ledger


class LayerSensitivity(Ledger):
    r"""Layer sensitivity :math:`S = \sqrt{\overline{d} / (2\,\overline{e})}`, in [0, inf).

    0: the layer does not notice; 1: the augmentation moves the representation as far as swapping the image for another
    one. See :func:`kornia_lightning_probe.functional.sensitivity` for the formula, its error and its source. NaN for a
    dead layer, and for a single image without a reference.

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

    def reduce(self, table: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """S and its standard error."""
        estimate = sensitivity(table["distance"], table["deviation"])
        return estimate.value, estimate.std_error

    def influence(self, table: Mapping[str, Tensor]) -> Tensor:
        """How far each image moves the value."""
        return sensitivity_influence(table["distance"], table["deviation"])
