"""Finds out where the cells of a layer's grid lie, from its maps of images and of the same images changed."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
from torch import Tensor

from kornia_lightning_probe.functional.distances import all_finite, squared_difference, squared_norm
from kornia_lightning_probe.functional.grids import Phase, Size, grid_to_image, stride_of, unpadded_stride
from kornia_lightning_probe.functional.warping import carried_to_grid, inside, sample, transform_cells

# How far the corner phase must err below the other one. Over 30 seeds of untrained layers the ratio was at least .82
# where half-pixel is true and at most .63 where corner is, on photographs as on noise.
_MARGIN = 0.72

#: A stride is not told from fewer stripes.
FEWEST_STRIPES = 3


def calibrated_phase(clean: Tensor, flipped: Tensor, image_size: Size, *, striped: Tensor | None = None) -> Phase:
    r"""Where the cells of a layer lie, from its maps of some images and of the same images mirrored left to right.

    Half-pixel or corner, whose T' predicts the mirrored maps better. What is predicted is each cell's energy, the
    squared length over channels of the difference to the mean image, smoothed by (1, 2, 1) / 4. The maps themselves
    would not do: no kernel of an untrained layer is its own mirror image, so that both phases err by as much as two
    images differ, and the corner phase, which interpolates and thereby smooths, wins where it is wrong. The energy of
    many kernels hardly depends on which of them saw what.

    A grid of convolutions without padding has its middle in that of the image, as half-pixel has, and is its own
    mirror image; it is told by its stride, see :func:`measured_stride`.

    Args:
        clean: maps of the images, (n, C, H, W).
        flipped: maps of the mirrored images, (n, C, H, W).
        image_size: height and width of the images in pixels.
        striped: maps of the first images :func:`with_stripes`, (m, C, H, W); without them no grid is "unpadded".

    Returns:
        "corner" where it errs clearly less, by more than a quarter; "unpadded" where the stride is that rather than
        the ratio of the sides; else "half-pixel": also for a grid as large as the image, and where nothing is to be
        seen.

    Example:
        >>> coarse = torch.rand(4, 1, 5, 5, generator=torch.Generator().manual_seed(0))
        >>> image = torch.nn.functional.interpolate(coarse, (16, 16), mode="bilinear")
        >>> def pooled(x): return torch.nn.functional.avg_pool2d(x, 2)
        >>> def every_second(x): return x[..., ::2, ::2]
        >>> def cropped(x): return x[..., 2:-2, 2:-2]
        >>> [calibrated_phase(f(image), f(image.flip(-1)), (16, 16), striped=f(with_stripes(image)))
        ...  for f in (pooled, every_second, cropped)]
        ['half-pixel', 'corner', 'unpadded']
    """
    size = (clean.shape[-2], clean.shape[-1])
    if size == image_size:
        return "half-pixel"
    if _corner_is_possible(image_size, size) and _mirrors_at_corners(clean, flipped, image_size):
        return "corner"
    if striped is not None and is_ambiguous(image_size, size):
        pixels, cells = image_size[1], size[1]
        found = measured_stride(clean[: len(striped)], striped, pixels)
        # The closer one, in proportion; not where nothing is to be seen (NaN), or nothing that follows the stripes.
        between = math.sqrt(unpadded_stride(pixels, cells) * pixels / cells)
        return "unpadded" if 0 < found < between else "half-pixel"
    return "half-pixel"


def is_ambiguous(image_size: Size, size: Size) -> bool:
    """Whether a grid of this size may be one of layers without padding, or tile the image, by its width.

    Example:
        >>> is_ambiguous((32, 32), (28, 28)), is_ambiguous((32, 32), (8, 8))
        (True, False)
    """
    pixels, cells = image_size[1], size[1]
    return unpadded_stride(pixels, cells) != pixels / cells


def with_stripes(images: Tensor) -> Tensor:
    """Images with an upright stripe in each that is the next image's, at places spread over the middle third.

    Args:
        images: (n, C, H, W).

    Returns:
        (n, C, H, W), a copy.

    Example:
        >>> with_stripes(torch.tensor([0.0, 1.0, 2.0]).view(3, 1, 1, 1).expand(3, 1, 1, 9)).squeeze().int()
        tensor([[0, 0, 0, 1, 0, 0, 0, 0, 0],
                [1, 1, 1, 1, 2, 1, 1, 1, 1],
                [2, 2, 2, 2, 2, 0, 2, 2, 2]], dtype=torch.int32)
    """
    striped, others = images.clone(), images.roll(-1, 0)
    for number, stripe in enumerate(_stripes(images.shape[-1], len(images))):
        striped[number, ..., stripe] = others[number, ..., stripe]
    return striped


def measured_stride(clean: Tensor, striped: Tensor, pixels: int) -> float:
    """By how many pixels a stripe moves where the layer's answer moves by a cell, left to right.

    The answer of a column is the squared difference that the stripe makes in it; its centre of mass follows the stripe,
    and where kernels lean to a side all of them lean alike.

    Args:
        clean: maps of some images, (n, C, H, W).
        striped: maps of the same images :func:`with_stripes`, (n, C, H, W).
        pixels: the images' width.

    Returns:
        The stride, in pixels, of a line through the centres; NaN where fewer than three stripes make a difference that
        is finite, which others are not counted for.

    Example:
        >>> image = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> round(measured_stride(image[..., 2:-2], with_stripes(image)[..., 2:-2], 32), 1)
        1.0
    """
    answer = (striped.to("cpu", torch.float64) - clean.to("cpu", torch.float64)).square().sum((1, 2))
    place = torch.tensor([(stripe.start + stripe.stop - 1) / 2 for stripe in _stripes(pixels, len(clean))])
    known = answer.isfinite().all(1) & (answer.sum(1) > 0)
    answer, place = answer[known], place[known]
    if len(place) < FEWEST_STRIPES:
        return math.nan
    centre = (answer * torch.arange(answer.shape[1])).sum(1) / answer.sum(1)
    place, centre = place - place.mean(), centre - centre.mean()
    # Places are known and centres are not, so that the line is one of centres on places.
    return float(place.square().sum() / (centre * place).sum())


def _stripes(pixels: int, count: int) -> list[slice]:
    width = max(1, pixels // 16)
    # Farther out, few cells are left on one side of a stripe, and what they answer has its centre too far inside.
    starts = torch.linspace(pixels / 3, pixels * 2 / 3 - width, count).round().int().tolist()
    return [slice(start, start + width) for start in starts]


def _corner_is_possible(image_size: Size, size: Size) -> bool:
    """Whether a whole stride leaves this grid: without one, no cell but the first lies on a pixel's centre."""
    return all(stride_of(pixels, cells).is_integer() for pixels, cells in zip(image_size, size, strict=True))


def _mirrors_at_corners(clean: Tensor, flipped: Tensor, image_size: Size) -> bool:
    before, after = (_smoothed_energy(maps) for maps in (clean, flipped))
    if not (all_finite(before) and all_finite(after)):
        known = (clean.flatten(1).isfinite() & flipped.flatten(1).isfinite()).all(1)
        if not bool(known.any()):
            return False
        before, after = (_smoothed_energy(maps[known]) for maps in (clean, flipped))
    mirror = torch.tensor([[-1.0, 0.0, image_size[1] - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    half, corner = (_mirror_error(before, after, mirror, image_size, phase) for phase in ("half-pixel", "corner"))
    return bool(corner < _MARGIN * half)


def _smoothed_energy(maps: Tensor) -> Tensor:
    centre = maps.mean(0 if len(maps) > 1 else (2, 3), keepdim=True)
    energy = squared_difference(maps, centre, out=torch.empty_like(maps)).sum(1, keepdim=True)
    # Two means over 2 x 2 cells are (1, 2, 1) / 4 along both axes.
    return F.avg_pool2d(F.avg_pool2d(F.pad(energy, (1, 1, 1, 1), mode="replicate"), 2, 1), 2, 1)


def _mirror_error(before: Tensor, after: Tensor, mirror: Tensor, image_size: Size, phase: Phase) -> Tensor:
    size = (before.shape[2], before.shape[3])
    to_image = grid_to_image(image_size, size, phase=phase)
    back = torch.linalg.inv_ex(carried_to_grid(mirror[None], to_image)).inverse
    points = transform_cells(back, size, device=before.device)
    seen = inside(points, size).unsqueeze(1)
    wrong = (sample(before, points.expand(len(before), -1, -1, -1)) - after) * seen
    apart = (after - after.mean(0 if len(after) > 1 else (2, 3), keepdim=True)) * seen
    return squared_norm(wrong).sum() / squared_norm(apart).sum()
