"""Whether a model's output is class scores, and where in the output they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_SCORES = ("logits", "out", "scores", "output")


def find_scores(output: Any) -> Tensor | None:
    """The tensor of an output that would be class scores: the output itself, its "logits", or a tuple's first entry.

    Example:
        >>> find_scores({"logits": torch.zeros(2, 5), "loss": torch.tensor(0.0)}).shape
        torch.Size([2, 5])
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        return next((output[key] for key in _SCORES if isinstance(output.get(key), Tensor)), None)
    if isinstance(output, tuple) and output and isinstance(output[0], Tensor):
        return output[0]
    return next((getattr(output, key, None) for key in _SCORES if isinstance(getattr(output, key, None), Tensor)), None)


def why_no_scores(
    scores: Tensor | None, *, image_shape: tuple[int, ...], labels: Tensor | None, other_targets: str = ""
) -> str:
    """Say why an output is not class scores; an empty text says that it is.

    Class scores are (B, classes), or (B, classes, H, W) of a segmentation, with at least two classes.

    Args:
        scores: what :func:`find_scores` has found.
        image_shape: (C, H, W) of the model's images.
        labels: integer labels (B,) or masks (B, H, W) of the images, or None.
        other_targets: what the dataset gives in place of such labels, as a text.

    Example:
        >>> why_no_scores(torch.zeros(2, 1), image_shape=(3, 8, 8), labels=None)
        'it has one number for each image, so it is a regression or a single logit'
    """
    if scores is None:
        return "no tensor of class scores was found in it (a detection, or a structure of its own?)"
    if not scores.is_floating_point() or scores.ndim not in (2, 4):
        return f"its shape is {tuple(scores.shape)}, expected (B, classes) or (B, classes, H, W) of floats"
    if scores.shape[1] < 2:
        return "it has one number for each image, so it is a regression or a single logit"
    if other_targets:
        return f"the images come with {other_targets} where class labels are integers, one for each image"
    if scores.ndim == 4 and tuple(scores.shape[1:]) == image_shape:
        return "it has the shape of the images, so it is an image"
    if labels is not None and int(labels.max()) >= scores.shape[1] and int(labels.max()) != 255:
        return f"labels go up to {int(labels.max())} and it has {scores.shape[1]} entries"
    return ""


def as_logits(scores: Tensor) -> Tensor:
    """Scores whose softmax is the prediction: probabilities become their logarithms, anything else stays."""
    sums = scores.sum(1)
    if bool((scores >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all()):
        return scores.clamp_min(torch.finfo(scores.dtype).tiny).log()
    return scores
