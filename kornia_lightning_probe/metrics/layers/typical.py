"""Sensitivity that outliers or classes do not distort: of the typical image, and beside images of the same class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from kornia_lightning_probe.activations.about import Distances
from kornia_lightning_probe.activations.site import Site
from kornia_lightning_probe.functional.estimates import Estimate
from kornia_lightning_probe.functional.robust import root_of_ratio_of_medians
from kornia_lightning_probe.metrics.layers.sensitivity import OneRepresentation
from kornia_lightning_probe.quantity import sensitivity_quantity


class SensitivityMedian(OneRepresentation):
    r"""Sensitivity of the typical image, :math:`\sqrt{\mathrm{med}_i\, d_i / \mathrm{med}_i\, u_i}`, in [0, inf).

    :math:`u_i` is the mean squared distance of image i to the others of its block without the farthest tenth of them
    (see :func:`kornia_lightning_probe.functional.near_distance`): a few images whose features are a hundred times
    larger than those of others, which may be all that ``sensitivity`` tells, change nothing here. Of the representation
    that ``sensitivity`` compares. Its standard error is that of a bootstrap under a fixed seed, of images or of whole
    blocks, whichever is larger: the :math:`u_i` of a block err together, where classes make the distances uneven. Of
    fewer than three blocks it is that of the images, and then too small, to a third where most images are of one of two
    classes. NaN for a dead layer and for a single image; beside a reference, the median of the reference's :math:`u_i`.

    Example:
        >>> import torch
        >>> from kornia_lightning_probe.metrics import About
        >>> clean = torch.eye(8)  # 2 apart, squared, and moved as far
        >>> metric = SensitivityMedian().prepare(views=["swap"], layers=["fc"], num_images=8)
        >>> metric.update(clean, clean.roll(1, 0), About.of(clean, clean.roll(1, 0), layer="fc"))
        >>> round(float(metric.compute().value), 6)
        1.0
    """

    name = "sensitivity_median"
    statistics = ("distance", "separation")
    quantity = sensitivity_quantity("sensitivity of the typical image, whatever a few outliers do")

    def measure_distances(self, distances: Distances) -> Mapping[str, Tensor]:
        """Each image's :math:`d_i` and :math:`u_i`."""
        return {"distance": distances.squared_distance, "separation": distances.separation}

    def reduce(self, table: Mapping[str, Tensor]) -> Estimate:
        """The root of the ratio of medians, and its standard error."""
        return root_of_ratio_of_medians(table["distance"], table["separation"], blocks=self.blocks)


class SensitivityWithin(OneRepresentation):
    r"""Sensitivity beside images of the same class, in [0, inf): 1 is as far as another image of the class.

    S with :math:`e_i = \frac{n_c}{n_c - 1} |a_i - m_c|^2` about the mean of the image's class in its block. Where
    classes lie far apart, ``sensitivity`` is small for that reason alone. Of the representation that ``sensitivity``
    compares. An image without another one of its class in its block does not count, in num_images neither: of many
    classes and few images there may be none left, and the value is NaN.

    Example:
        >>> import torch
        >>> from kornia_lightning_probe.metrics import About
        >>> clean, labels = torch.tensor([[0.0], [2.0], [100.0], [102.0]]), torch.tensor([0, 0, 1, 1])
        >>> metric = SensitivityWithin().prepare(views=["shift"], layers=["fc"], num_images=4)
        >>> metric.update(clean, clean + 2, About.of(clean, clean + 2, layer="fc", labels=labels))
        >>> float(metric.compute().value)  # moved by 2, where images of a class are 2 apart
        1.0
    """

    name = "sensitivity_within"
    quantity = sensitivity_quantity("1: as far as another image of the same class")
    needs = "a class for each image (labels)"

    def applies_to(self, site: Site) -> bool:
        """Where ``sensitivity`` is measured, of images that have one class each."""
        return super().applies_to(site) and site.label_shape == ()

    def measure_distances(self, distances: Distances) -> Mapping[str, Tensor]:
        """Each image's :math:`d_i`, and its :math:`e_i` within the class.

        Raises:
            ValueError: without labels, or for some images of a block only.
        """
        labels, size = distances.labels, len(distances.block.valid)
        if labels is None or len(labels) != size:
            came = "no labels" if labels is None else f"{len(labels)} labels of a block of {size} images"
            raise ValueError(
                f"{came} came for metric {self.name!r}, which relates images of one class to one another: update it "
                "with whole blocks and their labels"
            )
        deviation = distances.block.deviation_within(labels.to(distances.block.valid.device))
        return {"distance": distances.squared_distance, "deviation": deviation}

    def remarks(self, estimate: Estimate, layers: Sequence[str]) -> list[str]:  # noqa: ARG002 - the same at all
        """Say that no image has another one of its class in its block, where that is so."""
        if bool(estimate.num_images.any()):
            return []
        sentence = (
            "sensitivity_within has no value: no block of about 32 probe images holds two of one class; take more "
            "images of fewer classes, or leave it out (metrics=)"
        )
        return [sentence]
