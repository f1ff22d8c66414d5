"""Measures of a segmentation's output: does each pixel keep its predicted class, wherever the view has moved it?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from kornia_lightning_probe.activations.about import About, Site
from kornia_lightning_probe.functional.calibration import calibrated_phase, is_ambiguous
from kornia_lightning_probe.functional.distances import piece_of, upcast
from kornia_lightning_probe.functional.estimates import mean_with_error
from kornia_lightning_probe.functional.grids import Phase, Size
from kornia_lightning_probe.functional.influence import mean_influence
from kornia_lightning_probe.functional.warping import GridWarp, moves, sample
from kornia_lightning_probe.metrics.base import ProbeMetric

# An eroded mask has nothing left of a smaller output.
_SMALLEST = 3


class PixelFlipRate(ProbeMetric):
    """The share of pixels whose predicted class changes under the view, in [0, 1], mean over images.

    Under a view that moves pixels, what is predicted for Tx is compared with what was predicted for x, moved by the
    view's own matrix: the clean scores are carried along, then the highest one counts. Pixels count whose source lies
    inside the output, without those at the edge of that area; so a network that moves along reads 0. Not measured under
    a view that does not tell its matrix, since it may have moved anything.

    Until :meth:`calibrate` is called, an output smaller than the image is taken to tile it ("half-pixel").

    Attributes:
        phases: where the cells of a calibrated output lie, by its name.

    Example:
        >>> import torch
        >>> from kornia_lightning_probe.metrics import About
        >>> scores = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> flip = torch.tensor([[-1.0, 0.0, 7.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).repeat(4, 1, 1)
        >>> about = About.of(scores, scores.flip(-1), layer="output", matrix=flip, image_size=(8, 8))
        >>> metric = PixelFlipRate().prepare(views=["hflip"], layers=["output"], num_images=4)
        >>> metric.update(about.clean, about.augmented, about)
        >>> float(metric.compute().value)  # the classes move as the pixels do
        0.0
    """

    name = "pixel_flip_rate"
    statistics = ("flipped",)
    scope = "output"
    needs = f"class scores (B, classes, H, W) of at least {_SMALLEST} x {_SMALLEST} pixels"
    calibrates: ClassVar[bool] = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.phases: dict[str, Phase] = {}

    def applies_to(self, site: Site) -> bool:
        """Class scores of at least 3 x 3 pixels."""
        return super().applies_to(site) and len(site.shape) == 3 and min(site.shape[1:]) >= _SMALLEST

    def asks_for_stripes(self, site: Site, image_size: Size) -> bool:
        """Whether the output's grid may be one of convolutions without padding."""
        return is_ambiguous(image_size, (site.shape[1], site.shape[2]))

    def calibrate(
        self, site: Site, clean: Tensor, flipped: Tensor, *, image_size: Size, striped: Tensor | None = None
    ) -> None:
        """Find out where an output's cells lie; see `calibrated_phase`.

        Args:
            site: the output.
            clean: the scores of some images, (n, classes, H, W).
            flipped: the scores of the same images, mirrored left to right.
            image_size: height and width of the images in pixels.
            striped: the scores of the first images with stripes, (m, classes, H, W).
        """
        stripes = None if striped is None else upcast(striped)
        self.phases[site.name] = calibrated_phase(upcast(clean), upcast(flipped), image_size, striped=stripes)

    def measure(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:
        """Each image's share of pixels, of those that can tell."""
        matrix, image_size = about.matrix, about.image_size
        if matrix is None or image_size is None:
            return {}
        expected, known = clean.argmax(1), torch.ones_like(clean[:, 0], dtype=torch.bool)
        moved = moves(matrix, image_size)
        if moved.any():
            grid = GridWarp(
                matrix,
                image_size,
                (clean.shape[2], clean.shape[3]),
                phase=self.phases.get(about.layer, "half-pixel"),
                device=clean.device,
                through=about.through,
            )
            stays = ~moved.to(clean.device).view(-1, 1, 1)
            expected = torch.where(stays, expected, _carried_classes(clean, grid))
            known = grid.mask | stays
        flipped = ((expected != augmented.argmax(1)) & known).flatten(1).sum(1) / known.flatten(1).sum(1)
        return {"flipped": torch.where(augmented.flatten(1).isfinite().all(1), flipped, torch.nan)}

    def reduce(self, table: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Mean over images and its standard error."""
        estimate = mean_with_error(table["flipped"])
        return estimate.value, estimate.std_error

    def influence(self, table: Mapping[str, Tensor]) -> Tensor:
        """How far each image moves the value."""
        return mean_influence(table["flipped"])


def _carried_classes(scores: Tensor, grid: GridWarp) -> Tensor:
    """The class of each pixel once the scores have moved, (B, H, W)."""
    step = len(piece_of(scores))
    parts = zip(torch.split(scores, step), torch.split(grid.sources, step), strict=True)
    return torch.cat([sample(part, points).argmax(1) for part, points in parts])
