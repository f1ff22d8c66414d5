"""Which part of what a model puts out is class scores: chosen once, by shapes, names and labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from kornia_lightning_probe.image_layout import IMAGE, ImageLayout
from kornia_lightning_probe.images.labels import Targets
from kornia_lightning_probe.model.outputs import have_one_number, of_images, why_no_scores
from kornia_lightning_probe.model.scores import USUAL, Choice, Scores, entries_of, key_of
from kornia_lightning_probe.wording import listed, quoted

_ALL_THE_SAME = (
    "if it is class scores all the same, labels= that fit it say so (masks of a segmentation), or "
    "forward=lambda model, images: {'logits': model(images)}"
)


@dataclass(frozen=True)
class _Entry:
    """A part of an output, with the images in front, and why it is no class scores."""

    name: str
    tensor: Tensor
    reason: str

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape[1:])

    @property
    def is_of_pixels(self) -> bool:
        return self.tensor.ndim > 2

    @property
    def width(self) -> tuple[int, bool, int]:
        """The number of classes; of two scores and one number the former come first, and then what is called so."""
        is_number = have_one_number(self.tensor)
        classes = 2 if is_number else self.tensor.shape[1]
        place = USUAL.index(self.name) if self.name in USUAL else len(USUAL)
        return classes, is_number, place

    def __str__(self) -> str:
        return f"{self.name} {of_images(self.shape)}"


def choose_scores(
    output: Any,
    *,
    num_images: int,
    image_shape: tuple[int, ...],
    targets: Targets,
    layout: ImageLayout = IMAGE,
    is_asked_for: bool = False,
) -> Choice:
    """Choose the class scores in an output.

    With labels these are the narrowest entry that the labels fit; else one that is called so ("logits", "out",
    "scores", "output"), or the first of a list or tuple.

    Args:
        output: what the model has put out.
        num_images: B.
        image_shape: of one of the model's images.
        targets: what all probe images are labelled with.
        layout: the axes of images.
        is_asked_for: whether measures of class scores were asked for by name.

    Example:
        >>> import torch
        >>> boxes, classes = torch.zeros(2, 4), torch.zeros(2, 3)
        >>> choose_scores((boxes, classes), num_images=2, image_shape=(3, 8, 8), targets=Targets((), 0, 2)).scores
        Scores(name='output[1]', kind='classes')
    """
    judge = partial(why_no_scores, image_shape=image_shape, targets=targets, layout=layout)
    found = entries_of(output)
    entries: list[_Entry] = []
    for name, tensor in found.items():
        if len(found) == 1 or _holds_images(tensor, num_images):
            reason = judge(tensor, is_asked_for=is_asked_for, is_called_logits=name == USUAL[0])
            entries.append(_Entry(name, tensor, reason))
    best = _that_labels_fit(entries, targets)
    if best is not None:
        return _chosen(best, targets)
    first = _first(output, entries)
    if first is None:
        return Choice(None, reason=_why_none(output, list(found)))
    others = _others(first, entries)
    if not first.reason:
        return _first_of_several(_chosen(first, targets), first, others)
    reason = first.reason
    remark = ""
    # What only its looks speak against may be class scores all the same.
    if not is_asked_for and not judge(first.tensor, is_called_logits=True):
        remark = f"the output is left out, as {reason}; {_ALL_THE_SAME}"
    if others:
        reason += f"; it is the first of several outputs, {others}"
    is_image = math.prod(first.shape) == math.prod(image_shape)
    return Choice(None, reason=reason, remark=remark, is_image=is_image)


def _holds_images(tensor: Tensor, num_images: int) -> bool:
    return tensor.is_floating_point() and tensor.ndim > 0 and len(tensor) == num_images


def _that_labels_fit(entries: Sequence[_Entry], targets: Targets) -> _Entry | None:
    """The narrowest of those that have an axis of classes where labels are of images, or of pixels."""
    if targets.shape is None:
        return None
    are_of_pixels = len(targets.shape) > 0
    alike = [entry for entry in entries if not entry.reason and entry.is_of_pixels == are_of_pixels]
    for entry in alike:
        if entry.name == USUAL[0]:
            return entry
    return min(alike, key=lambda entry: entry.width, default=None)


def _first(output: Any, entries: Sequence[_Entry]) -> _Entry | None:
    """What is called so, or else the first of a list or tuple; in a mapping places say nothing."""
    by_name = {entry.name: entry for entry in entries}
    for name in USUAL:
        if name in by_name:
            return by_name[name]
    if isinstance(output, Mapping) or not entries:
        return None
    return entries[0]


def _chosen(entry: _Entry, targets: Targets) -> Choice:
    if not have_one_number(entry.tensor):
        return Choice(Scores(entry.name), entry.shape, is_known=True)
    remark = ""
    if not targets.are_binary:
        remark = (
            f"{entry.name} has one number for each pixel and is taken for a segmentation of two classes; if it is none "
            "(a depth, a heat map), the pixel_flip_rate means nothing"
        )
    return Choice(Scores(entry.name, "number"), entry.shape, remark=remark, is_known=True)


def _first_of_several(choice: Choice, first: _Entry, others: str) -> Choice:
    if not others:
        return choice
    remark = f"the first of several outputs, {first}, is taken for class scores; {others}"
    return replace(choice, remark=remark, is_known=False)


def _others(first: _Entry, entries: Sequence[_Entry]) -> str:
    """The other entries that could be meant, and how to choose one; empty where there are none or a name tells."""
    if first.name in USUAL:
        return ""
    others = [entry for entry in entries if entry is not first and entry.tensor.ndim in (2, 4, 5)]
    if not others:
        return ""
    key = key_of(others[0].name)
    place = f"[{key}]" if key.isdecimal() else f".{key}"
    return (
        f"the others are {listed(others)}; labels= tell which one is meant, or forward= chooses it, for example "
        f"forward=lambda model, images: model(images){place}"
    )


def _why_none(output: Any, names: Sequence[str]) -> str:
    reason = why_no_scores(None, image_shape=(), targets=Targets())
    if names:
        return f"{reason}; it holds {quoted(names)}, and labels= or forward= tell which one is meant"
    is_list = isinstance(output, list | tuple) and bool(output)
    if is_list and all(isinstance(entry, Mapping) for entry in output):
        return (
            f"{reason}; it is one mapping for each image ({quoted(output[0])}), as of a detection: how far layers move "
            "is measured, what is detected is not"
        )
    return reason
