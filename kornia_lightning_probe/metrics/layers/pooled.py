"""Measures on pooled features, which tell erasure, collapse and a mere shift from a loss of invariance."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from kornia_lightning_probe.activations.about import About, Site
from kornia_lightning_probe.functional.estimates import mean_with_error, root_of_mean, sensitivity, shared_part
from kornia_lightning_probe.functional.influence import (
    root_of_mean_influence,
    root_of_ratio_influence,
    shared_part_influence,
)
from kornia_lightning_probe.metrics.base import ProbeMetric
from kornia_lightning_probe.metrics.layers.sensitivity import LayerSensitivity


class PooledSensitivity(LayerSensitivity):
    r"""Layer sensitivity of the spatial mean of maps and the token mean of sequences, in [0, inf).

    Flattened maps call equivariance sensitivity: a map that is shifted by a cell has moved. Its mean has not, so this
    is the number to read under geometric views. Not measured at vectors, where it would be sensitivity again. A
    sequence with a class token has two rows, ``name:cls`` and ``name:patch``.

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
    representation = "pooled"

    def applies_to(self, site: Site) -> bool:
        """Maps and sequences."""
        return super().applies_to(site) and site.source is not None and len(site.source) > 1


class Spread(ProbeMetric):
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
    representation = "pooled"
    merges_views = True

    def measure(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Each image's :math:`e_i`."""
        return {"deviation": about.deviation}

    def reduce(self, table: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The root of twice the mean, and its standard error."""
        estimate = root_of_mean(mean_with_error(2 * table["deviation"]))
        return estimate.value, estimate.std_error

    def influence(self, table: Mapping[str, Tensor]) -> Tensor:
        """How far each image moves the value."""
        return root_of_mean_influence(2 * table["deviation"])


class SpreadRatio(ProbeMetric):
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
    representation = "pooled"
    merges_views = True

    def measure(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Each image's :math:`e_i` without and with the augmentation."""
        return {"before": about.deviation, "after": about.movement.deviation.flatten()}

    def reduce(self, table: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The root of the ratio of means: sensitivity's form without its factor of two."""
        estimate = sensitivity(table["after"], table["before"])
        return 2**0.5 * estimate.value, 2**0.5 * estimate.std_error

    def influence(self, table: Mapping[str, Tensor]) -> Tensor:
        """How far each image moves the value."""
        return root_of_ratio_influence(table["after"], table["before"])


class SharedShift(ProbeMetric):
    r"""The part of the movement that all images share, :math:`|\overline{b-a}|^2 / \overline{|b-a|^2}`, up to 1.

    1: the view adds one vector to every image; 0: images move in unrelated directions. Products of an image with itself
    are left out, so unrelated movement reads 0 in expectation and can come out below it; there the standard error is
    too large, by a factor of up to the square root of 2. NaN where nothing moves, and for a block of one image.

    Example:
        >>> import torch
        >>> from kornia_lightning_probe.metrics import About
        >>> clean = torch.tensor([[0.0], [2.0], [5.0]])
        >>> metric = SharedShift().prepare(views=["shift"], layers=["fc"], num_images=3)
        >>> metric.update(clean, clean + 3, About.of(clean, clean + 3, layer="fc"))
        >>> float(metric.compute().value)
        1.0
    """

    name = "shared_shift"
    statistics = ("shared", "total")
    representation = "pooled"
    merges_views = True

    def measure(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Each image's mean product with the movement of the block's other images, and its squared movement."""
        return {"shared": about.movement.shared.flatten(), "total": about.movement.squared_length.flatten()}

    def reduce(self, table: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The ratio of means and its standard error."""
        estimate = shared_part(table["shared"], table["total"])
        return estimate.value, estimate.std_error

    def influence(self, table: Mapping[str, Tensor]) -> Tensor:
        """How far each image moves the value."""
        return shared_part_influence(table["shared"], table["total"])
