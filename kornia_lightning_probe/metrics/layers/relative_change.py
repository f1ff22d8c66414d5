"""Relative change: movement of a representation relative to its own length, for where there is no other image."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from kornia_lightning_probe.activations.about import About
from kornia_lightning_probe.functional.estimates import mean_with_error, ratio_of_roots
from kornia_lightning_probe.functional.influence import mean_influence
from kornia_lightning_probe.metrics.base import ProbeMetric


class RelativeChange(ProbeMetric):
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
    merges_views = True
    distances = ("squared_distance",)

    def measure(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Each image's relative change."""
        return {"change": ratio_of_roots(about.squared_distance, about.each_view(about.clean_squared_length))}

    def reduce(self, table: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Mean over images and its standard error."""
        estimate = mean_with_error(table["change"])
        return estimate.value, estimate.std_error

    def influence(self, table: Mapping[str, Tensor]) -> Tensor:
        """How far each image moves the value."""
        return mean_influence(table["change"])
