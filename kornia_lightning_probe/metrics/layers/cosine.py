"""Centred cosine: whether a representation turns, apart from whether it shrinks or grows."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kornia_lightning_probe.activations.about import Distances
from kornia_lightning_probe.functional.estimates import Estimate, mean_with_error
from kornia_lightning_probe.metrics.base import DistanceMetric
from kornia_lightning_probe.quantity import Quantity

# Of two deviations, one shorter than so many roundings of the other is nothing but rounding; the cosine, in which they
# are subtracted, would be wrong by some hundredths there and by anything below.
_SHORTEST = 100
# Where squared deviations shrink to less than this part, the error leaves out too much.
_SHRUNK = 0.9


class CentredCosine(DistanceMetric):
    r"""Mean cosine of the angle between :math:`a_i - m` and :math:`b_i - m`, in [-1, 1]; m is the clean block's mean.

    1: the representation keeps its direction, whatever its length; 0: it is unrelated; two unrelated images of a block
    of n read :math:`-1/(n-1)`. It comes from three distances, :math:`(|a-m|^2 + |b-m|^2 - |b-a|^2) / (2|a-m||b-m|)`,
    so that it costs one pass over the activations beside sensitivity. Raw cosine, uncentred, tends to 1 wherever the
    mean is large beside the spread and says nothing there. NaN for an image that lies on the mean, with or without the
    augmentation, up to rounding: there is no direction then.

    The error takes m as given, although another draw of images would have another one. What that adds depends on
    products of one image's movement with the deviations of the others, which no distances of single images hold. Of the
    true error it is mostly .8 to 1.3, and up to 3 where a view moves all images one way by more than they lie apart. It
    is too small, down to .4, where a view draws all images together (a loss of contrast, a blur, a darkening) or turns
    them round (an inversion): where :math:`|b-m|^2` is on average below .9 of :math:`|a-m|^2`, or the value is below
    0, the error is NaN, so that no comparison marks a change there. Of digits in small networks, as trained, and of
    Gaussian embeddings, in blocks of 32; more images do not change it.

    Example:
        >>> import torch
        >>> from kornia_lightning_probe.metrics import About
        >>> clean = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        >>> metric = CentredCosine().prepare(views=["shrink"], layers=["fc"], num_images=2)
        >>> metric.update(clean, 0.5 * clean, About.of(clean, 0.5 * clean, layer="fc"))
        >>> float(metric.compute().value)  # b - m = (a - m) / 2 keeps the direction
        1.0
    """

    name = "cosine"
    statistics = ("before", "after", "distance")
    reads = ("squared_distance", "squared_deviation")
    quantity = Quantity(
        meaning="1: it keeps its direction about the mean image, whatever its length; 0: unrelated",
        range=(-1.0, 1.0),
        at_identity=1.0,
        scale=(-1.0, 1.0),
        marks=((-1.0, "-1 (opposite)"), (0.0, "0 (unrelated)"), (1.0, "1 (one direction)")),
    )

    def measure_distances(self, distances: Distances) -> Mapping[str, Tensor]:
        """Each image's three squared distances: :math:`|a-m|^2`, :math:`|b-m|^2` and :math:`|b-a|^2`."""
        if distances.squared_deviation is None:
            raise ValueError("the cosine needs the squared deviation of what it measures, which is None")
        return {
            "before": distances.clean_squared_deviation,
            "after": distances.squared_deviation,
            "distance": distances.squared_distance,
        }

    def reduce(self, table: Mapping[str, Tensor]) -> Estimate:
        """Mean over images of the cosine, and its standard error; NaN where that is known to be too small."""
        estimate = mean_with_error(_cosines(table))
        shrinks = table["after"].nanmean(-1) < _SHRUNK * table["before"].nanmean(-1)
        too_small = shrinks | (estimate.value < 0)
        std_error = estimate.std_error.masked_fill(too_small, torch.nan)
        return Estimate(estimate.value, estimate.num_images, estimate.influence, std_error)


def _cosines(table: Mapping[str, Tensor]) -> Tensor:
    before, after = table["before"], table["after"]
    cosine = (before + after - table["distance"]) / (2 * (before * after).sqrt())
    nothing = (_SHORTEST * torch.finfo(torch.float32).eps) ** 2 * torch.maximum(before, after)
    return torch.where(torch.minimum(before, after) > nothing, cosine.clamp(-1.0, 1.0), torch.nan)
