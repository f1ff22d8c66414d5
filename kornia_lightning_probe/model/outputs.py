"""Whether a part of what a model puts out is class scores, by its shape and the labels."""

from __future__ import annotations

import math

from torch import Tensor

from kornia_lightning_probe.image_layout import IMAGE, ImageLayout
from kornia_lightning_probe.images.labels import Targets

_NO_TENSOR = "no tensor of class scores was found in it (a detection, or a structure of its own?)"
# So many times as many outputs as classes are features, and no class scores.
_MOST_UNUSED = 2
# So few outputs are classes, of which the images may show some only.
_MOST_CERTAIN = 8


def why_no_scores(
    scores: Tensor | None,
    *,
    image_shape: tuple[int, ...],
    targets: Targets,
    layout: ImageLayout = IMAGE,
    is_asked_for: bool = False,
    is_called_logits: bool = False,
) -> str:
    """Say why an output is not class scores; an empty text says that it is.

    Class scores are (B, classes), or (B, classes, H, W) of a segmentation, (B, classes, D, H, W) of volumes and (B,
    classes, T, H, W) of video, with at least two classes. One number stands for two classes: for each image where all
    labels are 0 and 1, for each pixel where masks or nothing at all speak against it.

    Args:
        scores: a part of an output, B in front.
        image_shape: of one of the model's images.
        targets: what all images are labelled with.
        layout: the axes of images.
        is_asked_for: whether measures of class scores were asked for by name, so that more outputs than the labels have
            use for are class scores all the same.
        is_called_logits: whether the part's own name says that it is class scores.

    Example:
        >>> import torch
        >>> why_no_scores(torch.zeros(2, 3), image_shape=(3, 8, 8), targets=Targets((), 0, 3))
        'labels go up to 3 and it has 3 entries'
    """
    if scores is None:
        return _NO_TENSOR
    reason = _why_no_shape(scores, targets, layout)
    if not reason and layout.num_axes == scores.ndim:
        reason = _why_classes_are_elsewhere(tuple(scores.shape[1:]), image_shape, layout)
    if not reason and targets.others:
        reason = f"the targets are {targets.others} where class labels are integers, one for each image"
    if not reason and not is_called_logits:
        reason = _why_an_image(scores, image_shape, targets, layout)
    if not reason:
        reason = _why_labels_speak_against(scores, targets, is_named=is_asked_for or is_called_logits)
    return reason


def have_one_number(scores: Tensor) -> bool:
    """Whether scores are one number for each image, (B,) or (B, 1), or each pixel, (B, H, W) or (B, 1, ...)."""
    return scores.ndim in (1, 3) or (scores.ndim > 1 and scores.shape[1] == 1)


def why_labels_do_not_fit(
    label_shape: tuple[int, ...], *, scores_shape: tuple[int, ...], image_size: tuple[int, ...]
) -> str:
    """Say why labels are none of the classes that are scored; an empty text says that they fit.

    One class for each image fits scores of images. Masks fit scores of pixels where they are as large as these or as
    the images, which a model with a stride has larger.

    Args:
        label_shape: the shape of one image's label, () or that of a mask.
        scores_shape: the shape of one image's class scores, (classes,) or (classes, H, W) and the like.
        image_size: the sides of the images.

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


def _why_no_shape(scores: Tensor, targets: Targets, layout: ImageLayout) -> str:
    """Why an output can't be class scores by its shape and dtype."""
    is_float = scores.is_floating_point()
    if scores.ndim == 1 or tuple(scores.shape[1:]) == (1,):
        if is_float and targets.shape == () and targets.are_binary:
            return ""
        return "it has one number for each image, so it is a regression or a single logit, which labels of 0 and 1 tell"
    are_classes = scores.ndim in (2, 4, layout.num_axes)
    if scores.ndim == 3:
        # Without an axis of classes, only masks tell pixels from tokens.
        are_classes = targets.are_binary and tuple(scores.shape[1:]) == targets.shape
    if are_classes and is_float:
        return ""
    dtype = str(scores.dtype).removeprefix("torch.")
    shape = of_images(tuple(scores.shape[1:])) if scores.ndim else "()"
    expected = f"(N, classes) or (N, classes, {layout.mask_shape})"
    return f"it is {dtype} {shape}, expected floats {expected}"


def _why_classes_are_elsewhere(scores_shape: tuple[int, ...], image_shape: tuple[int, ...], layout: ImageLayout) -> str:
    """Why the second axis of scores of pixels is none of classes: frames stand there, as in video."""
    if layout.channel_axis == 1 or scores_shape[1] == image_shape[0] or scores_shape[0] != image_shape[0]:
        return ""
    return (
        f"its second axis is frames, {of_images(scores_shape)}, and class scores of video are (N, classes, T, H, W): "
        "forward=lambda model, clips: model(clips).transpose(1, 2) puts classes there"
    )


def _why_an_image(scores: Tensor, image_shape: tuple[int, ...], targets: Targets, layout: ImageLayout) -> str:
    """Why an output is an image, which masks of its size speak against."""
    one_image = tuple(scores.shape[1:])
    flat = (math.prod(image_shape),)
    if one_image not in (image_shape, flat):
        return ""
    size = tuple(image_shape[axis - 1] for axis in layout.grid_axes)
    if targets.shape and not why_labels_do_not_fit(targets.shape, scores_shape=one_image, image_size=size):
        return ""
    return "it has as many numbers as the image, so it is an image"


def _why_labels_speak_against(scores: Tensor, targets: Targets, *, is_named: bool) -> str:
    """Why an output is no scores of the classes that labels name."""
    num_classes = 2 if have_one_number(scores) else scores.shape[1]
    if targets.highest >= num_classes:
        return f"labels go up to {targets.highest} and it has {num_classes} entries"
    if is_named or scores.ndim > 2 or targets.shape != () or targets.highest < 0:
        return ""
    if num_classes <= max(_MOST_CERTAIN, _MOST_UNUSED * (targets.highest + 1)):
        return ""
    return (
        f"it has {num_classes} entries and labels go up to {targets.highest} only, so it is taken for features, unless "
        "metrics= names measures of class scores"
    )
