"""The part of a movement that all images share: a mere shift, told from images that move each in its own way."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from kornia_lightning_probe.activations.about import About
from kornia_lightning_probe.functional.estimates import Estimate, pair_pseudo_values, shared_part
from kornia_lightning_probe.metrics.base import BlockMetric
from kornia_lightning_probe.quantity import Quantity

# What moves by less than so many roundings of its own length is not said to move.
_ROUNDINGS = 100


class SharedShift(BlockMetric):
    r"""The part of the movement that all images share, :math:`|\overline{b-a}|^2 / \overline{|b-a|^2}`, up to 1.

    1: the view adds one vector to every image; 0: images move in unrelated directions. Products of an image with itself
    are left out, so unrelated movement reads 0 in expectation and can come out below it; there the standard error is
    too large by the square root of 2, since what pairs say is counted for both of their images. NaN for a block of one
    image, and where nothing moves by more than rounding, a hundred times the resolution of the features.

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
    quantity = Quantity(
        meaning="1: the view adds one vector to every image; 0: each moves in its own direction",
        range=(-math.inf, 1.0),
        scale=(0.0, 1.0),
        marks=((0.0, "0 (each its own)"), (0.5, "0.5"), (1.0, "1 (all alike)")),
    )

    def measure_block(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:  # noqa: ARG002
        """What each image adds to the mean product of two images' movements, and its squared movement."""
        movement = about.movement
        smallest = _ROUNDINGS * torch.finfo(about.block.activation.dtype).eps
        is_rounding = movement.squared_length <= smallest**2 * about.block.squared_length
        is_still = (is_rounding | movement.squared_length.isnan()).all(-1, keepdim=True)
        return {
            "shared": pair_pseudo_values(movement.shared),
            "total": movement.squared_length.masked_fill(is_still, torch.nan),
        }

    def reduce(self, table: Mapping[str, Tensor]) -> Estimate:
        """The ratio of means and its standard error."""
        return shared_part(table["shared"], table["total"])
