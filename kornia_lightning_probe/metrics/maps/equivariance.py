"""Equivariance: how far a map is from moving along with the image, beside staying put and what interpolation costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from kornia_lightning_probe.activations.about import About
from kornia_lightning_probe.activations.cells import Cells
from kornia_lightning_probe.activations.site import Site
from kornia_lightning_probe.functional.estimates import Estimate, sensitivity
from kornia_lightning_probe.metrics.maps.carried import CarriedMap
from kornia_lightning_probe.metrics.maps.grid_metric import SMALLEST, GridMetric, has_grid
from kornia_lightning_probe.quantity import Quantity, sensitivity_quantity

# Of the maps of one block so many numbers are carried along, and of large maps at least so many images.
_MOST_NUMBERS, _FEWEST_IMAGES = 2**22, 4


class GeometricMetric(GridMetric):
    """The base of measures that carry a view's matrix to a layer's grid.

    It applies to maps and to grids of tokens whose place in the image is known: it is followed through the model's
    operators, and a layer behind one that nobody knows the grid of is left out. Under a view without a matrix, or whose
    matrices move none of the images at hand, its cells stay unfilled; an image that such a view happens to leave in
    place counts as missing.

    Args:
        max_images: about so many of the N images are looked at, in whole blocks, evenly spread, since warping a layer's
            maps there and back costs as much as running it; of maps of more than 2^17 numbers fewer of each block, as
            many as hold 2^22 together, at least four. None: all. The standard error and ``num_images`` tell.
        kwargs: torchmetrics' own options.

    Raises:
        ValueError: where ``max_images`` is below 1.
    """

    statistics = ("distance", "deviation")
    needs = f"maps, or grids of tokens, of at least {SMALLEST} x {SMALLEST} cells whose places in the image are known"

    def __init__(self, *, max_images: int | None = 32, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if max_images is not None and max_images < 1:
            raise ValueError(f"max_images must be at least 1, or None for all images, got {max_images}")
        self.max_images = max_images

    def applies_to(self, site: Site) -> bool:
        """Whether the site is a map of at least 3 x 3 cells of which it is known where they lie."""
        return super().applies_to(site) and has_grid(site)

    def carried(self, about: About) -> CarriedMap | None:
        """The layer's maps under this view, shared by all metrics.

        Args:
            about: any.

        Returns:
            None where the view moves no pixel that we know, or this block is none of those looked at.
        """
        first = about.ids[0] - int(about.shown.rows.start)
        if not self.wants_block((first, first + len(about.block.activation))):
            return None
        most = None
        if self.max_images is not None:
            most = max(_FEWEST_IMAGES, _MOST_NUMBERS // math.prod(about.site.shape))
        return about.remember(("equivariance", "carried", most), lambda: self._carry(about, most))

    def reduce(self, table: Mapping[str, Tensor]) -> Estimate:
        """The root of mean distance over twice mean deviation, and its standard error."""
        return sensitivity(table["distance"], table["deviation"])

    def wants_block(self, ids: tuple[int, int]) -> bool:
        """Whether the block is one of those in which the running count of wanted blocks passes a whole number."""
        if self.max_images is None or not self.is_prepared:
            return True
        first, stop = ids
        total = int(self.table.shape[-1])
        wanted = -(-self.max_images // (stop - first))
        return stop * wanted // total > first * wanted // total

    def _carry(self, about: About, most: int | None) -> CarriedMap | None:
        warp = self.warp(about)
        if warp is None or not warp.moves_any or not isinstance(about.site.cells, Cells):
            return None
        return CarriedMap(about, about.site.cells, warp, most=most)


class EquivarianceError(GeometricMetric):
    r"""How far a map is from moving along with the image, in [0, inf).

    :math:`\sqrt{\overline{d} / (2\,\overline{e})}` with :math:`d_i = |\mathrm{mask}_i (f(Tx_i) - T'f(x_i))|^2`, where
    T' is the view's own matrix carried to the feature grid, :math:`M_f = G^{-1} M G`, and e over the same mask: cells
    whose source lies inside the map, without those at the edge of that area. 0: the map moves as the image does; 1: the
    map under the view is as far from that as another image is. To be read beside :class:`InvarianceError`, the same for
    a map that should stay put, and :class:`InterpolationFloor`, below which no error on a discrete grid says anything.

    NaN where a view shows nothing of an image inside of the mask, for a dead layer, and for a single image without a
    reference.

    Source:
        The comparison of f(Tx) with T'f(x) as in Lenc and Vedaldi, "Understanding image representations by measuring
        their equivariance and equivalence", CVPR 2015; there T' is learned, here it is the view's own.

    Example:
        >>> import torch
        >>> from kornia_lightning_probe.metrics import About
        >>> image = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> flip = torch.tensor([[-1.0, 0.0, 7.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).repeat(8, 1, 1)
        >>> about = About.of(image, image.flip(-1), layer="input", matrix=flip, image_size=(8, 8))
        >>> metric = EquivarianceError().prepare(views=["hflip"], layers=["input"], num_images=8)
        >>> metric.update(about.clean, about.augmented, about)
        >>> round(float(metric.compute().value), 5)  # the pixels move as the pixels do
        0.0
    """

    name = "equivariance_error"
    quantity = sensitivity_quantity(
        "0: the map moves as the image does; 1: as far from that as another image", on_grid=True
    )

    def measure(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Each image's masked distance from the carried map, and its masked deviation."""
        maps = self.carried(about)
        return {} if maps is None else {"distance": maps.distance, "deviation": maps.deviation}


class InvarianceError(GeometricMetric):
    r"""How far a map is from staying put while the image moves, in [0, inf).

    As :class:`EquivarianceError`, over the same cells, with :math:`d_i = |\mathrm{mask}_i (f(Tx_i) - f(x_i))|^2`. A map
    that does neither has both large; one that is smooth or constant over space has both small.

    Example:
        >>> import torch
        >>> from kornia_lightning_probe.metrics import About
        >>> image = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> flip = torch.tensor([[-1.0, 0.0, 7.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).repeat(8, 1, 1)
        >>> about = About.of(image, image, layer="fixed", matrix=flip, image_size=(8, 8))
        >>> metric = InvarianceError().prepare(views=["hflip"], layers=["fixed"], num_images=8)
        >>> metric.update(about.clean, about.augmented, about)
        >>> float(metric.compute().value)  # f(Tx) = f(x)
        0.0
    """

    name = "invariance_error"
    quantity = sensitivity_quantity("0: the map stays put; 1: as far from that as another image", on_grid=True)

    def measure(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Each image's masked distance from the clean map, and its masked deviation."""
        maps = self.carried(about)
        return {} if maps is None else {"distance": maps.distance_in_place, "deviation": maps.deviation}


class InterpolationFloor(GeometricMetric):
    r"""What moving a map on its grid costs by itself, in [0, inf).

    As :class:`EquivarianceError`, with :math:`d_i = |\mathrm{mask}_i (T'^{-1} T' f(x_i) - f(x_i))|^2`: the clean map,
    warped there and back. Two interpolations, so an exactly equivariant layer reads about half of it or less. It is
    small for smooth maps and large for noisy ones, and 0 for flips and moves by whole cells.

    Example:
        >>> import torch
        >>> from kornia_lightning_probe.metrics import About
        >>> image = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> flip = torch.tensor([[-1.0, 0.0, 7.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).repeat(8, 1, 1)
        >>> about = About.of(image, image, layer="input", matrix=flip, image_size=(8, 8))
        >>> metric = InterpolationFloor().prepare(views=["hflip"], layers=["input"], num_images=8)
        >>> metric.update(about.clean, about.augmented, about)
        >>> round(float(metric.compute().value), 5)  # mirrored twice
        0.0
    """

    name = "interpolation_floor"
    quantity = Quantity(
        meaning="what moving the map there and back costs",
        range=(0.0, math.inf),
        at_identity=0.0,
        scale=(0.0, 1.2),
        on_grid=True,
    )

    def measure(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Each image's masked distance between there and back and the clean map, and its masked deviation."""
        maps = self.carried(about)
        return {} if maps is None else {"distance": maps.distance_back, "deviation": maps.deviation_back}
