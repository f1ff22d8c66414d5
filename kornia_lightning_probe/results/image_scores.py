"""Which images move furthest, which labels do, and how far images move in the worst of an augmentation's views."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kornia_lightning_probe.results.lookup import SENSITIVITY, ProbeNumbers
from kornia_lightning_probe.results.tables import ImageScores, WorstImages
from kornia_lightning_probe.wording import unknown


class ImageRow(NamedTuple):
    """How far one image moved.

    Attributes:
        image: its number in the dataset.
        score: sqrt(mean over the views asked for of d_i / (2 mean e)), as a sensitivity: 1 is as far as another image.
        label: its label; None where there is none.
        augmentation: the augmentation that was asked for; None is the mean over all.
        level: the level that was asked for; None is the mean over all.
    """

    image: int
    score: float
    label: int | None
    augmentation: str | None
    level: int | None


class LabelRow(NamedTuple):
    """How far the images of one label moved.

    Attributes:
        label: the label.
        value: sensitivity of its images, held against the distance between images of any label.
        std_error: its standard error, over the sampling of images.
        num_images: how many images have the label.
    """

    label: int
    value: float
    std_error: float
    num_images: int


def worst_rows(
    numbers: ProbeNumbers,
    layer: str | None = None,
    augmentation: str | None = None,
    level: int | None = None,
    *,
    n: int = 6,
) -> tuple[ImageRow, ...]:
    """The images that moved furthest, see `ProbeResult.worst_images`."""
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise ValueError(f"n must be a number of images, at least 1, got {n!r}")
    images = _known_images(numbers)
    moved, _ = _moved(numbers, images, layer, numbers.views_at(augmentation, level))
    scores = moved.nanmean(0).sqrt()
    known = furthest(scores, n)
    ids = _ids(numbers, len(scores))
    labels = _labels(images)
    rows: list[ImageRow] = []
    for place in known:
        label = None if labels is None else labels[place]
        rows.append(ImageRow(ids[place], float(scores[place]), label, augmentation, level))
    return tuple(rows)


def furthest(scores: Tensor, most: int) -> list[int]:
    """The places of the largest of (N,) scores, largest first, of equals the first; those without a score are left out.

    Example:
        >>> furthest(torch.tensor([1.0, torch.nan, 3.0, 1.0]), 2)
        [2, 0]
    """
    order = torch.argsort(scores.nan_to_num(-1.0), descending=True, stable=True)
    known = [place for place in order.tolist() if math.isfinite(scores[place])]
    return known[:most]


class Shown(NamedTuple):
    """One of the images that are kept as pictures.

    Attributes:
        row: how far it moved, and what it is.
        clean: (H, W, 3) uint8.
        augmented: likewise.
    """

    row: ImageRow
    clean: Tensor
    augmented: Tensor


def shown_images(numbers: ProbeNumbers) -> tuple[WorstImages, list[Shown]]:
    """The images that the view that moves the embedding most moves furthest, and each with what is known of it.

    Raises:
        ValueError: If there are none, with the reason.
    """
    images = numbers.images
    worst = None if images is None else images.worst
    if images is None or worst is None:
        raise ValueError(
            "pictures of the images that moved furthest aren't kept here: they are of probe_model, of a training's "
            "first and latest probe, and of files in the .images.npz beside the JSON"
        )
    view = numbers.views[worst.view]
    column = images.layers.index(worst.layer)
    scores = images.moved[worst.view, column].double().sqrt()
    ids, labels = _ids(numbers, len(scores)), _labels(images)
    found: list[Shown] = []
    for place, clean, augmented in zip(worst.places.tolist(), worst.clean, worst.augmented, strict=True):
        label = None if labels is None else labels[place]
        row = ImageRow(ids[place], float(scores[place]), label, view.augmentation, view.level)
        found.append(Shown(row, clean, augmented))
    return worst, found


def _ids(numbers: ProbeNumbers, count: int) -> list[int]:
    """The images' numbers in the dataset, which are their places where nobody has said more."""
    return [int(number) for number in numbers.metadata.image_ids or range(count)]


def label_rows(numbers: ProbeNumbers, metric: str = SENSITIVITY, layer: str | None = None) -> tuple[LabelRow, ...]:
    """The sensitivity of each label's images, see `ProbeResult.by_label`."""
    if metric != SENSITIVITY:
        raise ValueError(f"each image's own part is kept of {SENSITIVITY!r} only, got {metric!r}")
    every = list(range(len(numbers.views)))
    images = _known_images(numbers)
    moved, apart = _moved(numbers, images, layer, every)
    labels = _labels(images)
    if labels is None:
        raise ValueError(
            "the images have no labels of one class each; a dataset of (image, label) gives them, or labels=, "
            "integers (N,)"
        )
    each = torch.tensor([-1 if label is None else label for label in labels])
    rows = [_label_row(label, moved, apart, each == label) for label in sorted(set(each.tolist()) - {-1})]
    return tuple(sorted(rows, key=lambda row: -row.value))


def _label_row(label: int, moved: Tensor, apart: Tensor, chosen: Tensor) -> LabelRow:
    r"""One label's row; the influence is that of :math:`\sqrt{m}` with m the mean over views of the label's mean.

    Args:
        label: the label.
        moved: (V, N), d_i / (2 mean e).
        apart: (V, N), e_i / mean e.
        chosen: which images have the label, (N,) bool.
    """
    known = chosen & moved.isfinite().any(0)
    count = int(known.sum())
    if count == 0:
        return LabelRow(label, math.nan, math.nan, 0)
    of_images = moved.nanmean(0)
    mean = of_images[known].mean()
    of_views = moved[:, known].nanmean(1, keepdim=True)
    # Each image counts in the mean distance between images, those of the label in the mean movement, too.
    total = apart.shape[1]
    influence = -(of_views * (apart - 1)).nanmean(0).nan_to_num(0.0) / total
    unbiased = math.sqrt(count / (count - 1)) if count > 1 else math.nan
    influence[known] += unbiased * (of_images[known] - mean) / count
    value = float(mean.sqrt())
    error = float(influence.square().sum().sqrt()) / (2 * value) if value > 0 else math.nan
    return LabelRow(label, value, error, count)


def worst_of_views(numbers: ProbeNumbers, augmentation: str) -> dict[str, float]:
    """By layer sqrt(mean_i max_v d_iv / (2 mean e)) over an augmentation's views; empty where it isn't known.

    Example:
        >>> from kornia_lightning_probe.results.tables import ImageScores, ViewInfo
        >>> images = ImageScores(("fc",), torch.tensor([[[1.0, 0.0]], [[0.0, 7.0]]]), torch.ones(2, 1, 2))
        >>> views = [ViewInfo("turn", 1, -5.0), ViewInfo("turn", 2, 5.0)]
        >>> numbers = ProbeNumbers(layers=["fc"], views=views, tables={}, images=images)
        >>> worst_of_views(numbers, "turn")  # sqrt((1 + 7)/2)
        {'fc': 2.0}
    """
    images = numbers.images
    if images is None:
        return {}
    moved = images.moved[numbers.views_of(augmentation)].double()
    # An image that is missing under one view has no maximum.
    largest = moved.amax(0)
    return dict(zip(images.layers, largest.nanmean(1).sqrt().tolist(), strict=True))


def _known_images(numbers: ProbeNumbers) -> ImageScores:
    images = numbers.images
    if images is None:
        raise ValueError(
            "each image's own movement isn't kept here: results in memory have it, of a training the first and the "
            "latest, and files in the .images.npz beside them, which a training's other results read while they are "
            "where they were written"
        )
    return images


def _moved(
    numbers: ProbeNumbers, images: ImageScores, layer: str | None, views: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """At a layer, d_i / (2 mean e) and e_i / mean e of each image under some views, (V, N) each."""
    name = layer or numbers.metadata.embedding or images.layers[-1]
    if name not in images.layers:
        raise ValueError(unknown("layer", name, images.layers))
    column = images.layers.index(name)
    kinds = [int(numbers.views[view].moves_pixels) for view in views]
    return images.moved[list(views), column].double(), images.apart[kinds, column].double()


def _labels(images: ImageScores) -> list[int | None] | None:
    if images.labels is None:
        return None
    return [label if label >= 0 else None for label in images.labels.tolist()]
