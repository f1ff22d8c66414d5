"""Spread: how far apart images lie in a layer's pooled features; it falls to zero in a collapse."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from kornia_lightning_probe.functional import mean_with_error, root_of_mean
from kornia_lightning_probe.metrics.about import About
from kornia_lightning_probe.metrics.base import ProbeMetric


class Spread(ProbeMetric):
    r"""Typical distance between two clean images, :math:`\sqrt{2\,\overline{e}}`, on pooled features, in [0, inf).

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

    def measure(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Each image's :math:`e_i`."""
        return {"deviation": about.deviation}

    def reduce(self, table: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The root of twice the mean, and its standard error."""
        estimate = root_of_mean(mean_with_error(2 * table["deviation"]))
        return estimate.value, estimate.std_error
