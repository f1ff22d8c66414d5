"""Noise ratio: whether a layer has learned to ignore an augmentation, or ignores whatever is as small."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from kornia_lightning_probe.activations.about import Distances
from kornia_lightning_probe.functional.estimates import Estimate, root_of_ratio
from kornia_lightning_probe.metrics.base import DistanceMetric
from kornia_lightning_probe.quantity import Quantity


class NoiseRatio(DistanceMetric):
    r"""Movement under a view over movement under noise of the same length, in [0, inf).

    .. math:: R = \sqrt{\frac{\overline{|f(Tx_i) - f(x_i)|^2}}{\overline{|f(x_i + \varepsilon_i) - f(x_i)|^2}}}

    :math:`\varepsilon_i` is isotropic Gaussian noise of exactly the length :math:`|Tx_i - x_i|`, both in the model's
    own input, after normalisation. It is not limited to the range of pixels, and seeded by bank, augmentation and
    block, alike for all levels. Activations are flattened. 1: the layer notices the view as it notices meaningless
    noise of that size, as the pixels themselves do exactly; below 1: it has learned to ignore the view, and not merely
    to be smooth, which lowers the sensitivity to anything; above 1: it notices the view in particular. NaN where noise
    moves nothing.

    It doubles the forward passes, since each view has a twin, so it is measured only where it is asked for by name. Its
    error is that of sampling images, :math:`\mathrm{IF}_i = \frac{R}{2} (d_i/\overline{d} - q_i/\overline{q})`.

    Without the engine, prepare it for the views and then their twins, in the same order: the value of a view is its own
    row over that of its twin.

    Source:
        The root of the relative stability :math:`R_f` of Petrini et al., "Relative stability toward diffeomorphisms
        indicates performance in deep nets", NeurIPS 2021, for each layer. They find that it goes with the test error,
        where the stability :math:`D_f`, the square of the sensitivity, does not.

    Example:
        >>> import torch
        >>> from kornia_lightning_probe.metrics import About
        >>> clean, step = torch.zeros(2, 3), torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
        >>> metric = NoiseRatio().prepare(views=["view", "its twin"], layers=["fc"], num_images=2)
        >>> metric.update(clean, clean + step, About.of(clean, clean + step, layer="fc", view_index=0))
        >>> metric.update(clean, clean - step / 2, About.of(clean, clean - step / 2, layer="fc", view_index=1))
        >>> float(metric.compute().value)  # twice as far
        2.0
    """

    name = "noise_ratio"
    statistics = ("distance",)
    reads_twins = True
    quantity = Quantity(
        meaning="1: it notices the view as it notices noise of the same length; below 1: it ignores the view itself",
        range=(0.0, math.inf),
        scale=(0.0, 2.0),
        marks=((0.0, "0 (ignored)"), (1.0, "1 (as noise as long)"), (2.0, "2")),
        line=1.0,
    )

    def prepare(
        self, views: Sequence[Any], layers: Sequence[str], num_images: int, *, device: torch.device | None = None
    ) -> Self:
        """As for every metric; the views are followed by their twins, in the same order.

        Raises:
            ValueError: where a view has no twin.
        """
        if len(views) % 2:
            raise ValueError(
                f"{type(self).__name__} needs each view and behind them their twins, noise as long as their movement, "
                f"got {len(views)} of them; the probes add the twins themselves"
            )
        return super().prepare(views, layers, num_images, device=device)

    def measure_distances(self, distances: Distances) -> Mapping[str, Tensor]:
        """Each image's squared movement."""
        return {"distance": distances.squared_distance}

    def reduce(self, table: Mapping[str, Tensor]) -> Estimate:
        """R of each view and its standard error; the second half of the rows are the twins'."""
        moved, twins = table["distance"].chunk(2)
        return root_of_ratio(moved, twins)
