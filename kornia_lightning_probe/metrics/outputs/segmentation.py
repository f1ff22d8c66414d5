"""Measures of a segmentation's output: does each pixel keep its predicted class, wherever the view has moved it?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kornia_lightning_probe.activations.about import About
from kornia_lightning_probe.activations.site import Site
from kornia_lightning_probe.functional.grid_warp import GridWarp
from kornia_lightning_probe.functional.memory import piece_of
from kornia_lightning_probe.functional.warping import moves
from kornia_lightning_probe.metrics.maps.grid_metric import SMALLEST, GridMetric
from kornia_lightning_probe.quantity import Quantity


class PixelFlipRate(GridMetric):
    """The share of pixels whose predicted class changes under the view, in [0, 1], mean over images.

    Under a view that moves pixels, what is predicted for Tx is compared with what was predicted for x, moved by the
    view's own matrix: the clean scores are carried along, then the highest one counts. Pixels count whose source lies
    inside the output, without those at the edge of that area; so a network that moves along reads 0. Not measured under
    a view that does not tell its matrix, since it may have moved anything. Of volumes and video, (B, classes, D, H, W),
    nothing is carried: only views that move no pixel are measured there.

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
    quantity = Quantity(
        meaning="share of pixels whose predicted class changes, carried along with the view",
        range=(0.0, 1.0),
        at_identity=0.0,
        scale=(0.0, 1.0),
        marks=((0.0, "0 (none)"), (0.5, "0.5"), (1.0, "1 (every pixel)")),
        of_output=True,
        on_grid=True,
    )
    needs = (
        f"class scores (B, classes, H, W) of at least {SMALLEST} x {SMALLEST} pixels, or (B, classes, D, H, W) and "
        "views that move no pixel"
    )

    def applies_to(self, site: Site) -> bool:
        """Class scores of at least 3 x 3 pixels, or of volumes and video."""
        if _has_depth(site):
            return site.kind == "output"
        return super().applies_to(site) and len(site.shape) == 3 and min(site.shape[1:]) >= SMALLEST

    def wants_view(self, site: Site, view: Any) -> bool:
        """Whether the view moves no pixel, or it is known where the output's cells lie; those of volumes are not."""
        return not view.moves_pixels or (site.grid is not None and not _has_depth(site))

    def measure(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:
        """Each image's share of pixels, of those that can tell."""
        if _has_depth(about.site):
            known = torch.ones_like(clean[:, 0], dtype=torch.bool)
            return _share(clean.argmax(1), augmented, known)
        matrix, image_size = about.matrix, about.image_size
        if matrix is None or image_size is None:
            return {}
        expected, known = clean.argmax(1), torch.ones_like(clean[:, 0], dtype=torch.bool)
        moved = moves(matrix, image_size)
        if moved.any() or about.through is not None:
            warp = self.warp(about)
            if warp is None:
                return {}
            stays = ~moved.to(clean.device).view(-1, 1, 1)
            expected = torch.where(stays, expected, _carried_classes(clean, warp))
            known = torch.where(stays, warp.kept, warp.mask)
        return _share(expected, augmented, known)


def _has_depth(site: Site) -> bool:
    """Whether scores are those of volumes or video, (B, classes, D, H, W)."""
    return len(site.shape) == 4


def _share(expected: Tensor, augmented: Tensor, known: Tensor) -> Mapping[str, Tensor]:
    """The share of known pixels whose class is another than the expected one."""
    differs = (expected != augmented.argmax(1)) & known
    flipped = differs.flatten(1).sum(1).double() / known.flatten(1).sum(1)
    return {"flipped": torch.where(augmented.flatten(1).isfinite().all(1), flipped, torch.nan)}


def _carried_classes(scores: Tensor, warp: GridWarp) -> Tensor:
    """The class of each pixel once the scores have moved, (B, H, W)."""
    step = len(piece_of(scores))
    pieces = [slice(start, start + step) for start in range(0, len(scores), step)]
    return torch.cat([warp.carried(scores[piece], piece).argmax(1) for piece in pieces])
