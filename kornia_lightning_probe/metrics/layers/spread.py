"""How far apart images lie in a layer, clean and under a view: what tells erasure and collapse from invariance."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from kornia_lightning_probe.activations.about import About
from kornia_lightning_probe.functional.estimates import Estimate, root_of_mean, root_of_ratio
from kornia_lightning_probe.metrics.base import BlockMetric
from kornia_lightning_probe.quantity import Quantity


class Spread(BlockMetric):
    r"""Typical distance between two clean images, :math:`\sqrt{2\,\overline{e}}`, in [0, inf).

    In the unit of the activations, so only its course over a training says something: a fall towards 0 is a collapse,
    which a fall of sensitivity alone does not tell from invariance. The same under every view.

    Example:
        >>> import torch
        >>> from kornia_lightning_probe.metrics import About
        >>> clean = torch.tensor([[0.0], [2.0]])
        >>> metric = Spread().prepare(views=["identity"], layers=["fc"], num_images=2)
        >>> metric.update(clean, clean, About.of(clean, clean, layer="fc"))
        >>> float(metric.compute().value)  # two images, two apart
        2.0
    """

    name = "spread"
    statistics = ("deviation",)
    quantity = Quantity(
        meaning="typical distance between two clean images, in the activations' unit", range=(0.0, math.inf)
    )

    def measure_block(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Each image's :math:`e_i`."""
        return {"deviation": about.deviation}

    def reduce(self, table: Mapping[str, Tensor]) -> Estimate:
        """The root of twice the mean, and its standard error."""
        return root_of_mean(2 * table["deviation"])


class SpreadRatio(BlockMetric):
    r"""Distance between images under the view over that between clean ones, :math:`\sqrt{\bar e_b / \bar e_a}`.

    In [0, inf). 0: the view wipes out what tells images apart (erasure), which sensitivity alone reads as
    :math:`1/\sqrt 2`; 1: images stay as far apart as they were.

    Example:
        >>> import torch
        >>> from kornia_lightning_probe.metrics import About
        >>> clean = torch.tensor([[0.0], [2.0]])
        >>> metric = SpreadRatio().prepare(views=["halve"], layers=["fc"], num_images=2)
        >>> metric.update(clean, clean / 2, About.of(clean, clean / 2, layer="fc"))
        >>> round(float(metric.compute().value), 6)
        0.5
    """

    name = "spread_ratio"
    statistics = ("before", "after")
    quantity = Quantity(
        meaning="0: the view wipes out what tells images apart; 1: they stay as far apart",
        range=(0.0, math.inf),
        at_identity=1.0,
        scale=(0.0, 1.2),
        marks=((0.0, "0 (all alike)"), (0.5, "0.5"), (1.0, "1 (as before)")),
    )

    def measure_block(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Each image's :math:`e_i` without and with the augmentation."""
        return {"before": about.deviation, "after": about.movement.deviation}

    def reduce(self, table: Mapping[str, Tensor]) -> Estimate:
        """The root of the ratio of means."""
        return root_of_ratio(table["after"], table["before"])
