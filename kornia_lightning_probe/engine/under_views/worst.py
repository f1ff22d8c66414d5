"""Pictures of the images that move furthest: where they are not kept, drawn again by the process that owns them.

What fails here costs pictures only: every process joins the sum, and what is missing in it is left out and noted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from kornia_lightning_probe.bank.bank import AugmentationBank
from kornia_lightning_probe.engine.processes import World
from kornia_lightning_probe.engine.under_views.keeping import KeptViews
from kornia_lightning_probe.image_layout import ImageLayout
from kornia_lightning_probe.images.blocks import Block
from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.results.image_scores import furthest
from kornia_lightning_probe.results.lookup import ProbeNumbers
from kornia_lightning_probe.results.tables import WorstImages
from kornia_lightning_probe.wording import counted

MOST_IMAGES = 6
LONGEST_SIDE = 96
_RGB = 3


def with_worst(
    numbers: ProbeNumbers,
    images: ProbeImages,
    bank: AugmentationBank,
    world: World,
    *,
    device: torch.device,
    kept: KeptViews,
) -> ProbeNumbers:
    """Add pictures of the images that the view that moves the embedding most moves furthest; every process calls it.

    Args:
        numbers: the same on every process.
        images: the probe images, with the blocks of this process.
        bank: the views.
        world: the other processes.
        device: where views were drawn.
        kept: those that need not be drawn again.
    """
    scores = numbers.images
    layer = numbers.metadata.embedding
    if scores is None or layer not in scores.layers:
        return numbers
    moved = scores.moved[:, scores.layers.index(layer)].double()
    means = moved.nanmean(1)
    if not means.isfinite().any():
        # A dead embedding.
        return numbers
    view = furthest(means, 1)[0]
    places = furthest(moved[view], MOST_IMAGES)
    with torch.inference_mode(False), torch.no_grad():
        drawn = _drawn(places, view, images, bank, device=device, kept=kept)
        (total,) = world.sum_together([drawn], device=device, dtype=torch.float32)
    pictures = total.round().to("cpu", torch.uint8)
    # One of which nobody could make a picture has no mark.
    is_known = pictures[:, 0, 0, 0, -1] > 0
    unknown = len(places) - int(is_known.sum())
    if unknown:
        note = f"of the images that moved furthest, {counted(unknown, 'picture')} could not be drawn again"
        numbers.metadata = replace(numbers.metadata, notes=[*numbers.metadata.notes, note])
    if is_known.any():
        worst = WorstImages(
            layer,
            view,
            torch.tensor(places)[is_known],
            pictures[is_known, 0, ..., :_RGB].clone(),
            pictures[is_known, 1, ..., :_RGB].clone(),
        )
        numbers.images = replace(scores, worst=worst)
    return numbers


def _drawn(
    places: Sequence[int],
    view: int,
    images: ProbeImages,
    bank: AugmentationBank,
    *,
    device: torch.device,
    kept: KeptViews,
) -> Tensor:
    """The pictures of this process, (n, 2, H, W, 4): red, green, blue and a mark; zeros for those of the others."""
    height, width = small_size(*images.scout.images[0].shape[-2:])
    pictures = torch.zeros(len(places), 2, height, width, _RGB + 1)
    for block in images.blocks:
        rows = {place: place - block.ids.start for place in places if place in block.ids}
        if not rows:
            continue
        try:
            clean, augmented = _both(block.to(device), view, bank, kept)
        except Exception:  # noqa: S112 - no picture is worth a training, and the others wait in the sum
            continue
        for place, row in rows.items():
            pair = torch.stack([clean[row], augmented[row]])
            if pair.shape[1:3] == (height, width):
                pictures[places.index(place), ..., :_RGB] = pair
                pictures[places.index(place), ..., _RGB] = 1
    return pictures


def _both(block: Block, view: int, bank: AugmentationBank, kept: KeptViews) -> tuple[Tensor, Tensor]:
    """A block's images and the same under a view, as small pictures; of several image entries the first."""
    augmented = kept.get(block.index, view, device=block.images[0].device)
    if augmented is None:
        augmented = bank.augment(bank.views[view], block.images, block=block.index)
    shown = [block.images[0], augmented.images[0]]
    clean, under_view = (small_pictures(bank.to_unit(images), bank.layout) for images in shown)
    return clean, under_view


def small_size(height: int, width: int) -> tuple[int, int]:
    """The size of a picture whose longer side is at most 96 pixels.

    Example:
        >>> small_size(192, 96), small_size(8, 8), small_size(1000, 2)
        ((96, 48), (8, 8), (96, 1))
    """
    factor = min(1.0, LONGEST_SIDE / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def small_pictures(units: Tensor, layout: ImageLayout) -> Tensor:
    """Images in [0, 1] as small pictures, (B, H, W, 3) float32 of whole numbers from 0 to 255, on the CPU.

    Of volumes and video the middle slice or frame, of other than three channels the first one as grey.
    """
    flat = layout.flat(units)
    if flat.shape[1] != _RGB:
        flat = flat[:, :1].expand(-1, _RGB, -1, -1)
    size = small_size(flat.shape[-2], flat.shape[-1])
    if size != tuple(flat.shape[-2:]):
        flat = functional.interpolate(flat, size=size, mode="area")
    levels = flat.nan_to_num(0.0).clamp(0, 1).mul(255).round()
    return levels.permute(0, 2, 3, 1).cpu()
