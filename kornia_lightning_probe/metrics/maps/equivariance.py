"""Equivariance: how far a map is from moving along with the image, beside staying put and what interpolation costs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, MutableMapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from kornia_lightning_probe.activations.about import About, Site
from kornia_lightning_probe.activations.clean import CleanBlock
from kornia_lightning_probe.activations.layout import Layout
from kornia_lightning_probe.functional.calibration import calibrated_phase, is_ambiguous
from kornia_lightning_probe.functional.distances import piece_of, upcast
from kornia_lightning_probe.functional.estimates import sensitivity
from kornia_lightning_probe.functional.grids import Phase, Size
from kornia_lightning_probe.functional.influence import sensitivity_influence
from kornia_lightning_probe.functional.warping import GridWarp, masked_squared_distance, sample
from kornia_lightning_probe.metrics.base import ProbeMetric

# An eroded mask has nothing left of a smaller grid.
_SMALLEST = 3

# What calibration says of activations that are still there; three metrics ask about the same ones.
_CALIBRATED: MutableMapping[Tensor, Phase] = WeakIdKeyDictionary()

# Grids of so many sizes and views are kept for the next layer.
_KEPT = 8


def grid_size(site: Site) -> Size | None:
    """Height and width of the grid on which a site's activations lie; None where it is none of 3 x 3 cells or more.

    Example:
        >>> [grid_size(Site("layer", 1, shape)) for shape in ((64, 14, 7), (197, 768), (9,))]
        [(14, 7), (14, 14), None]
    """
    size = site.layout.size
    return size if size is not None and min(size) >= _SMALLEST else None


class CarriedMap:
    """One layer's maps under a view that moves pixels, and what several metrics take from them, each computed once.

    Args:
        about: at a site that is a map.
        grid: the view's transform on the layer's grid.

    Attributes:
        clean: a, (B, C, H, W), a view.
        augmented: b, likewise.
        grid: as given; T'a is `sample(clean, grid.sources)`.
    """

    def __init__(self, about: About, grid: GridWarp) -> None:
        self._layout, self.grid = about.site.layout, grid
        self.clean, self.augmented = self._layout.as_map(about.clean), self._layout.as_map(about.augmented)
        self._block, self._rows, self._temporaries = about.block, about.rows, about.temporaries
        self._last: tuple[slice, Tensor] | None = None

    @cached_property
    def distance(self) -> Tensor:
        """``|mask * (b_i - T'a_i)|^2``, (B,)."""
        return self._by_pieces(self.grid.mask, self._carried, self.augmented)

    @cached_property
    def distance_in_place(self) -> Tensor:
        """``|mask * (b_i - a_i)|^2``, (B,)."""
        return self._by_pieces(self.grid.mask, self.augmented.__getitem__, self.clean)

    @cached_property
    def distance_back(self) -> Tensor:
        """``|mask_back * (T'^-1 T'a_i - a_i)|^2``, (B,)."""
        targets = self.grid.targets
        return self._by_pieces(
            self.grid.mask_back, lambda piece: sample(self._carried(piece), targets[piece]), self.clean
        )

    @cached_property
    def deviation(self) -> Tensor:
        """``e_i`` over the cells of the mask, (B,); NaN where there are none."""
        return self._deviation_over(self.grid.mask)

    @cached_property
    def deviation_back(self) -> Tensor:
        """``e_i`` over the cells of the mask of the way back, (B,); NaN where there are none."""
        return self._deviation_over(self.grid.mask_back)

    def _carried(self, piece: slice) -> Tensor:
        """T'a of some images; the last answer is kept, and where a map is one piece that is all there is."""
        if self._last is None or self._last[0] != piece:
            self._last = piece, sample(self.clean[piece], self.grid.sources[piece])
        return self._last[1]

    def _by_pieces(self, mask: Tensor, maps: Callable[[slice], Tensor], others: Tensor) -> Tensor:
        def distance(piece: slice) -> Tensor:
            other = others[piece]
            return masked_squared_distance(maps(piece), other, mask[piece], buffer=self._temporaries.like(other))

        # No second copy of the whole activation is held, and a piece is still in the cache when it is read again.
        step = len(piece_of(self.clean))
        return torch.cat([distance(slice(start, start + step)) for start in range(0, len(self.clean), step)])

    def _deviation_over(self, mask: Tensor) -> Tensor:
        energy, factor = self._block.remember(("equivariance", "energy"), lambda: _energy(self._block, self._layout))
        masked = (energy[self._rows] * mask).flatten(1).sum(1, dtype=factor.dtype)
        return torch.where(mask.flatten(1).any(1), masked * factor[self._rows], torch.nan)


def _energy(block: CleanBlock, layout: Layout) -> tuple[Tensor, Tensor]:
    """Each cell's squared distance from the mean image over all channels, (n, H, W), and what makes e of its sum, (n,).

    The second is n/(n-1), or what a deviation known from reference images is to the image's own.
    """
    maps, mean = layout.as_map(block.activation), layout.as_map(block.mean)
    energy = torch.cat([(piece - mean).square_().sum(1) for piece in torch.split(maps, len(piece_of(maps)))])
    return energy, torch.where(block.squared_deviation == 0, 0.0, block.deviation / block.squared_deviation)


class GeometricMetric(ProbeMetric):
    """The base of measures that carry a view's matrix to a layer's grid.

    It applies to maps and to grids of tokens. Under a view without a matrix, or whose matrices move none of the
    images at hand, its cells stay unfilled; an image that such a view happens to leave in place counts as missing.

    Until :meth:`calibrate` is called, a layer's cells tile the image ("half-pixel").

    Args:
        max_images: about so many of the N images are looked at, in whole blocks, evenly spread, since warping a layer's
            maps there and back costs as much as running it; None: all. The standard error and ``num_images`` tell.
        kwargs: torchmetrics' own options.

    Attributes:
        phases: where the cells of each calibrated layer lie.
        calibrates: asks for one pass over the mirrored first block, see :meth:`calibrate`.

    Raises:
        ValueError: where ``max_images`` is below 1.
    """

    statistics = ("distance", "deviation")
    calibrates: ClassVar[bool] = True

    def __init__(self, *, max_images: int | None = 32, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if max_images is not None and max_images < 1:
            raise ValueError(f"max_images must be at least 1, or None for all images, got {max_images}")
        self.max_images = max_images
        self.phases: dict[str, Phase] = {}
        self._grids: dict[Hashable, GridWarp] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_grids": {}}

    def applies_to(self, site: Site) -> bool:
        """Whether the site is a grid of at least 3 x 3 cells."""
        return super().applies_to(site) and grid_size(site) is not None

    def asks_for_stripes(self, site: Site, image_size: Size) -> bool:
        """Whether the layer's grid may be one of convolutions without padding."""
        size = grid_size(site)
        return size is not None and is_ambiguous(image_size, size)

    def calibrate(
        self, site: Site, clean: Tensor, flipped: Tensor, *, image_size: Size, striped: Tensor | None = None
    ) -> None:
        """Find out where a layer's cells lie; see `calibrated_phase`.

        Args:
            site: the layer.
            clean: its activations of some images, (n, ...).
            flipped: its activations of the same images, mirrored left to right.
            image_size: height and width of the images in pixels.
            striped: its activations of the first images with stripes, (m, ...).
        """
        if clean not in _CALIBRATED:
            maps, mirrored = (site.layout.as_map(upcast(activation)) for activation in (clean, flipped))
            stripes = None if striped is None else site.layout.as_map(upcast(striped))
            _CALIBRATED[clean] = calibrated_phase(maps, mirrored, image_size, striped=stripes)
        self.phases[site.name] = _CALIBRATED[clean]

    def carried(self, about: About) -> CarriedMap | None:
        """The layer's maps under this view, shared by all metrics.

        Args:
            about: any.

        Returns:
            None where the view moves no pixel that we know, or this block is none of those looked at.
        """
        first = about.ids[0] - int(about.rows.start)
        if not self.wants((first, first + len(about.block.activation))):
            return None
        phase = self.phases.get(about.layer, "half-pixel")
        return about.remember(("equivariance", "carried", phase), lambda: self._carry(about, phase))

    def reduce(self, table: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The root of mean distance over twice mean deviation, and its standard error."""
        estimate = sensitivity(table["distance"], table["deviation"])
        return estimate.value, estimate.std_error

    def influence(self, table: Mapping[str, Tensor]) -> Tensor:
        """How far each image moves the value, see influence.py."""
        return sensitivity_influence(table["distance"], table["deviation"])

    def wants(self, ids: tuple[int, int]) -> bool:
        """Whether the block is one of those in which the running count of wanted blocks passes a whole number."""
        if self.max_images is None or not self.is_prepared:
            return True
        first, stop = ids
        total = int(self.table.shape[-1])
        wanted = -(-self.max_images // (stop - first))
        return stop * wanted // total > first * wanted // total

    def _carry(self, about: About, phase: Phase) -> CarriedMap | None:
        matrix, image_size, size = about.matrix, about.image_size, grid_size(about.site)
        if matrix is None or image_size is None or size is None:
            return None
        host, device = matrix.detach().cpu().contiguous(), about.augmented.device
        way = b"" if about.through is None else about.through.contiguous().numpy().tobytes()
        key = (host.numpy().tobytes(), way, image_size, size, phase, device)
        grid = self._grids.pop(key, None) or GridWarp(
            host, image_size, size, phase=phase, device=device, through=about.through
        )
        self._grids[key] = grid
        if len(self._grids) > _KEPT:
            del self._grids[next(iter(self._grids))]
        return CarriedMap(about, grid) if grid.moves_any else None


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
        >>> from dataclasses import replace
        >>> from kornia_lightning_probe.metrics import About
        >>> image = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> flip = torch.tensor([[-1.0, 0.0, 7.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).repeat(8, 1, 1)
        >>> about = replace(About.of(image, image.flip(-1), layer="input"), matrix=flip, image_size=(8, 8))
        >>> metric = EquivarianceError().prepare(views=["hflip"], layers=["input"], num_images=8)
        >>> metric.update(about.clean, about.augmented, about)
        >>> round(float(metric.compute().value), 5)  # the pixels move as the pixels do
        0.0
    """

    name = "equivariance_error"

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
        >>> from dataclasses import replace
        >>> from kornia_lightning_probe.metrics import About
        >>> image = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> flip = torch.tensor([[-1.0, 0.0, 7.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).repeat(8, 1, 1)
        >>> about = replace(About.of(image, image, layer="fixed"), matrix=flip, image_size=(8, 8))
        >>> metric = InvarianceError().prepare(views=["hflip"], layers=["fixed"], num_images=8)
        >>> metric.update(about.clean, about.augmented, about)
        >>> float(metric.compute().value)  # f(Tx) = f(x)
        0.0
    """

    name = "invariance_error"

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
        >>> from dataclasses import replace
        >>> from kornia_lightning_probe.metrics import About
        >>> image = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> flip = torch.tensor([[-1.0, 0.0, 7.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).repeat(8, 1, 1)
        >>> about = replace(About.of(image, image, layer="input"), matrix=flip, image_size=(8, 8))
        >>> metric = InterpolationFloor().prepare(views=["hflip"], layers=["input"], num_images=8)
        >>> metric.update(about.clean, about.augmented, about)
        >>> round(float(metric.compute().value), 5)  # mirrored twice
        0.0
    """

    name = "interpolation_floor"

    def measure(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Each image's masked distance between there and back and the clean map, and its masked deviation."""
        maps = self.carried(about)
        return {} if maps is None else {"distance": maps.distance_back, "deviation": maps.deviation_back}
