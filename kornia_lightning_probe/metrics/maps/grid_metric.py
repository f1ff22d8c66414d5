"""The base of measures that need to know where the cells of a layer's grid lie in the image."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from kornia_lightning_probe.activations.site import Site
from kornia_lightning_probe.functional.calibration import calibrated_phase, is_ambiguous
from kornia_lightning_probe.functional.distances import upcast
from kornia_lightning_probe.functional.grids import Phase, Size
from kornia_lightning_probe.metrics.base import ProbeMetric

#: An eroded mask has nothing left of a smaller grid.
SMALLEST = 3

# What calibration says of activations that are still there; several metrics ask about the same ones.
_CALIBRATED: MutableMapping[Tensor, Phase] = WeakIdKeyDictionary()


def grid_size(site: Site) -> Size | None:
    """Height and width of the grid on which a site's activations lie; None where it is none of 3 x 3 cells or more.

    Example:
        >>> [grid_size(Site("layer", 1, shape)) for shape in ((64, 14, 7), (197, 768), (9,))]
        [(14, 7), (14, 14), None]
    """
    size = site.layout.size
    if size is None or min(size) < SMALLEST:
        return None
    return size


class GridMetric(ProbeMetric):
    """Measures on the grid of a layer or of the output, whose place in the image is found out beforehand.

    Until :meth:`calibrate` is called, cells tile the image ("half-pixel").

    Attributes:
        phases: where the cells of each calibrated layer lie.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.phases: dict[str, Phase] = {}

    def applies_to(self, site: Site) -> bool:
        """Whether the site is a grid of at least 3 x 3 cells."""
        return super().applies_to(site) and grid_size(site) is not None

    def asks_for_stripes(self, site: Site, image_size: Size) -> bool:
        """Whether the grid may be one of convolutions without padding, which stripes in images tell."""
        size = grid_size(site)
        return size is not None and is_ambiguous(image_size, size)

    def calibrate(
        self, site: Site, clean: Tensor, flipped: Tensor, *, image_size: Size, striped: Tensor | None = None
    ) -> None:
        """Find out where cells lie, before anything is measured, on every process with the same images.

        See :func:`~kornia_lightning_probe.functional.calibration.calibrated_phase`.

        Args:
            site: the layer, or the output.
            clean: its activations of some images, (n, ...).
            flipped: its activations of the same images, mirrored left to right.
            image_size: height and width of the images in pixels.
            striped: its activations of the first images with stripes, (m, ...), given where :meth:`asks_for_stripes`.
        """
        if clean not in _CALIBRATED:
            maps, mirrored = (site.layout.as_map(upcast(activation)) for activation in (clean, flipped))
            stripes = None if striped is None else site.layout.as_map(upcast(striped))
            _CALIBRATED[clean] = calibrated_phase(maps, mirrored, image_size, striped=stripes)
        self.phases[site.name] = _CALIBRATED[clean]
