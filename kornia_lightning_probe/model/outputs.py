"""Whether a model's output is class scores, and where in the output they are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

_SCORES = ("logits", "out", "scores", "output")
_IGNORED = 255


def find_scores(output: Any) -> Tensor | None:
    """The tensor of an output that would be class scores: the output itself, its "logits", or a tuple's first entry.

    Example:
        >>> find_scores({"logits": torch.zeros(2, 5), "loss": torch.tensor(0.0)}).shape
        torch.Size([2, 5])
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        return _first_tensor(output.get(key) for key in _SCORES)
    if isinstance(output, tuple) and output and isinstance(output[0], Tensor):
        return output[0]
    return _first_tensor(getattr(output, key, None) for key in _SCORES)


def why_no_scores(
    scores: Tensor | None, *, image_shape: tuple[int, ...], labels: Tensor | None, other_targets: str = ""
) -> str:
    """Say why an output is not class scores; an empty text says that it is.

    Class scores are (B, classes), or (B, classes, H, W) of a segmentation, with at least two classes.

    Args:
        scores: what :func:`find_scores` has found.
        image_shape: (C, H, W) of the model's images.
        labels: integer labels (B,) or masks (B, H, W) of the images, or None.
        other_targets: what is given in place of such labels, as a text.

    Example:
        >>> why_no_scores(torch.zeros(2, 1), image_shape=(3, 8, 8), labels=None)
        'it has one number for each image, so it is a regression or a single logit'
    """
    if scores is None:
        return "no tensor of class scores was found in it (a detection, or a structure of its own?)"
    if scores.ndim == 1 or tuple(scores.shape[1:]) == (1,):
        return "it has one number for each image, so it is a regression or a single logit"
    are_classes = scores.ndim in (2, 4) and scores.shape[1] > 1
    if not (are_classes and scores.is_floating_point()):
        dtype = str(scores.dtype).removeprefix("torch.")
        return f"it is {dtype} {tuple(scores.shape)}, expected floats (B, classes) or (B, classes, H, W)"
    if other_targets:
        return f"the targets are {other_targets} where class labels are integers, one for each image"
    flat_shape = (math.prod(image_shape),)
    if tuple(scores.shape[1:]) in (image_shape, flat_shape):
        return "it has as many numbers as the image, so it is an image"
    highest = -1 if labels is None else _highest(labels)
    if highest >= scores.shape[1]:
        return f"labels go up to {highest} and it has {scores.shape[1]} entries"
    return ""


def why_labels_do_not_fit(
    label_shape: tuple[int, ...], *, scores_shape: tuple[int, ...], image_size: tuple[int, int]
) -> str:
    """Say why labels are none of the classes that are scored; an empty text says that they fit.

    One class for each image fits scores of images. Masks fit scores of pixels where they are as large as these or as
    the images, which a model with a stride has larger.

    Args:
        label_shape: the shape of one image's label, () or (H, W).
        scores_shape: the shape of one image's class scores, (classes,) or (classes, H, W).
        image_size: height and width of the images.

    Example:
        >>> why_labels_do_not_fit((7, 9), scores_shape=(5,), image_size=(16, 16))
        'labels (N, 7, 9) came, and class scores (N, 5) go with labels (N,), one integer for each image'
    """
    size = scores_shape[1:]
    sizes: list[tuple[int, ...]] = [()]
    kind = "one integer for each image"
    if size:
        sizes = list(dict.fromkeys((size, image_size)))
        kind = "masks of integers"
    if label_shape in sizes:
        return ""
    expected = " or ".join(map(of_images, sizes))
    came = f"labels {of_images(label_shape)} came"
    return f"{came}, and class scores {of_images(scores_shape)} go with labels {expected}, {kind}"


def of_images(shape: tuple[int, ...]) -> str:
    """The shape of N images' numbers as a text, from that of one.

    Example:
        >>> of_images(()), of_images((5,))
        ('(N,)', '(N, 5)')
    """
    if not shape:
        return "(N,)"
    numbers = ", ".join(map(str, shape))
    return f"(N, {numbers})"


def _first_tensor(entries: Iterable[Any]) -> Tensor | None:
    return next((entry for entry in entries if isinstance(entry, Tensor)), None)


def _highest(labels: Tensor) -> int:
    """The highest class; in masks 255 is none, by a convention older than these libraries."""
    classes = labels
    if labels.ndim > 1:
        classes = labels[labels != _IGNORED]
    if classes.numel() == 0:
        return -1
    return int(classes.max())
