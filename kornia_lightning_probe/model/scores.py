"""Which part of what a model puts out is class scores: chosen once, on two images, and read in every pass."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from kornia_lightning_probe.activations.site import OUTPUT
from kornia_lightning_probe.images.labels import Targets
from kornia_lightning_probe.model.outputs import have_one_number, of_images, why_no_scores
from kornia_lightning_probe.model.recorder import named_entries
from kornia_lightning_probe.wording import listed, quoted

#: The names that libraries give to class scores; an entry with the first is nothing else.
_USUAL = tuple(f"{OUTPUT}[{name}]" for name in ("logits", "out", "scores", "output"))
_ALL_THE_SAME = (
    "if it is class scores all the same, labels= that fit it say so (masks of a segmentation), or "
    "forward=lambda model, images: {'logits': model(images)}"
)

Kind = Literal["classes", "number", "logit", "probability"]


@dataclass(frozen=True)
class Scores:
    """Class scores among what a model puts out.

    Args:
        name: which part: "output" is all of it, "output[2]" or "output[logits]" an entry.
        kind: "classes" for (B, K) or (B, K, H, W). "number" where there is one for each image or pixel, until
            :meth:`settled` tells whether it is a "logit" or a "probability" of the second of two classes.
    """

    name: str = OUTPUT
    kind: Kind = "classes"

    def of(self, output: Any) -> Tensor | None:
        """The scores in an output: (B, K) or (B, K, H, W), with K = 2 for a logit or a probability."""
        found = self.part_of(output)
        return None if found is None else self.as_classes(found)

    def part_of(self, output: Any) -> Tensor | None:
        """The part of an output that the scores are, as it is."""
        return entries_of(output).get(self.name)

    def as_classes(self, found: Tensor) -> Tensor:
        """Two classes for a logit or a probability; all else as it is.

        Example:
            >>> Scores(kind="logit").as_classes(torch.tensor([[3.0], [-1.0]]))
            tensor([[ 0.,  3.],
                    [ 0., -1.]])
        """
        if self.kind not in ("logit", "probability"):
            return found
        number = found
        if number.ndim in (1, 3):
            number = number.unsqueeze(1)
        first = torch.zeros_like(number)
        if self.kind == "probability":
            first = 1 - number
        return torch.cat([first, number], 1)

    def settled(self, numbers: Tensor) -> Scores:
        """The same, once it has been seen whether one number is a probability: where all lie in [0, 1].

        Args:
            numbers: those of all images of a block; what is not finite says nothing.
        """
        if self.kind != "number":
            return self
        known = numbers[numbers.isfinite()]
        lie_in_range = bool(((known >= 0) & (known <= 1)).all())
        return replace(self, kind="probability" if lie_in_range else "logit")


@dataclass(frozen=True)
class Choice:
    """What was chosen, or why nothing was.

    Args:
        scores: the class scores; None where there are none.
        shape: of one image's, as it was on the images of the choice.
        reason: why there are none.
        remark: a sentence to be said of it; empty where there is nothing to be said.
        is_image: whether it was left out since it looks as the images do.
        is_known: whether a name or labels tell that these are what the model is used for.
    """

    scores: Scores | None
    shape: tuple[int, ...] = ()
    reason: str = ""
    remark: str = ""
    is_image: bool = False
    is_known: bool = False

    def knowing(self, *, has_head: bool) -> Choice:
        """The same, once it is known whether the model ends in a head: an image that comes of none is no scores."""
        return replace(self, remark="") if self.is_image and not has_head else self

    def knowing_numbers(self, output: Any, numbers: Iterable[Tensor]) -> Choice:
        """The same, where one number is a logit since a layer puts it out that can't give a probability.

        Their values don't tell: those of a network that has not been trained may all lie in [0, 1].

        Args:
            output: what the model has put out.
            numbers: what its products (linear layers, convolutions) have put out, one number for each image or pixel.
        """
        if self.scores is None or self.scores.kind != "number":
            return self
        found = entries_of(output)[self.scores.name].flatten()
        if any(torch.equal(number.flatten(), found) for number in numbers):
            return replace(self, scores=replace(self.scores, kind="logit"))
        return self

    def of(self, output: Any) -> Any:
        """The part of an output that is used; all of it where nobody knows."""
        if self.scores is None or not self.is_known:
            return output
        return entries_of(output)[self.scores.name]


def entries_of(output: Any) -> dict[str, Tensor]:
    """The tensors in an output by name: itself, or the entries of a list, tuple, mapping or dataclass.

    What lies deeper (hidden states, detections of each image) is none of them.

    Example:
        >>> list(entries_of({"logits": torch.zeros(2, 5), "hidden": (torch.zeros(2, 3),)}))
        ['output[logits]']
    """
    if isinstance(output, Tensor):
        return {OUTPUT: output}
    children = dict(named_entries(OUTPUT, output))
    if OUTPUT in children:
        # No structure that is known, but it may have attributes by the usual names.
        children = {name: getattr(output, name[len(OUTPUT) + 1 : -1], None) for name in _USUAL}
    return {name: child for name, child in children.items() if isinstance(child, Tensor) and name.count("[") == 1}


def choose_scores(
    output: Any, *, num_images: int, image_shape: tuple[int, ...], targets: Targets, is_asked_for: bool = False
) -> Choice:
    """Choose the class scores in an output.

    With labels these are the narrowest entry that the labels fit; else one that is called so ("logits", "out",
    "scores", "output"), or the first of a list or tuple.

    Args:
        output: what the model has put out.
        num_images: B.
        image_shape: (C, H, W) of the model's images.
        targets: what all probe images are labelled with.
        is_asked_for: whether measures of class scores were asked for by name.

    Example:
        >>> boxes, classes = torch.zeros(2, 4), torch.zeros(2, 3)
        >>> choose_scores((boxes, classes), num_images=2, image_shape=(3, 8, 8), targets=Targets((), 0, 2)).scores
        Scores(name='output[1]', kind='classes')
    """
    entries = entries_of(output)
    judge = partial(why_no_scores, image_shape=image_shape, targets=targets)
    reasons: dict[str, str] = {}
    for name, entry in entries.items():
        if len(entries) == 1 or _holds_images(entry, num_images):
            reasons[name] = judge(entry, is_asked_for=is_asked_for, is_called_logits=name == _USUAL[0])
    fitting = {name: entries[name] for name, reason in reasons.items() if not reason}
    best = _that_labels_fit(fitting, targets)
    if best is not None:
        return _chosen(best, entries[best], targets, is_known=True)
    first = _first(output, reasons)
    if first is None:
        return Choice(None, reason=_why_none(output, entries))
    others = "" if first in _USUAL else _others(first, entries, reasons)
    if not reasons[first]:
        chosen = _chosen(first, entries[first], targets, is_known=not others)
        return replace(chosen, remark=_first_of_several(first, entries[first], others)) if others else chosen
    # What only its looks speak against may be class scores all the same.
    is_doubtful = not is_asked_for and not judge(entries[first], is_called_logits=True)
    remark = f"the output is left out, as {reasons[first]}; {_ALL_THE_SAME}" if is_doubtful else ""
    reason = f"{reasons[first]}; it is the first of several outputs, {others}" if others else reasons[first]
    is_image = math.prod(entries[first].shape[1:]) == math.prod(image_shape)
    return Choice(None, reason=reason, remark=remark, is_image=is_image)


def are_of_pairs(shape: tuple[int, ...], of_two: tuple[int, ...]) -> bool:
    """Whether scores are one number for each pair of images (or texts) in a batch, (B, B).

    Args:
        shape: of the scores of a batch.
        of_two: of one image's scores, in a batch of two.

    Example:
        >>> are_of_pairs((20, 20), (2,)), are_of_pairs((20, 2), (2,))
        (True, False)
    """
    return of_two == (2,) and len(shape) == 2 and shape[0] == shape[1] != 2


def _first(output: Any, names: Iterable[str]) -> str | None:
    """What is called so, or else the first of a list or tuple; in a mapping places say nothing."""
    usual = [name for name in _USUAL if name in names]
    if usual:
        return usual[0]
    return None if isinstance(output, Mapping) else next(iter(names), None)


def _holds_images(entry: Tensor, num_images: int) -> bool:
    return entry.is_floating_point() and entry.ndim > 0 and len(entry) == num_images


def _that_labels_fit(fitting: Mapping[str, Tensor], targets: Targets) -> str | None:
    """The narrowest of those that have an axis of classes where labels are of images, or of pixels."""
    if targets.shape is None:
        return None
    are_of_pixels = len(targets.shape) == 2
    alike = {name: entry for name, entry in fitting.items() if (entry.ndim > 2) == are_of_pixels}
    if _USUAL[0] in alike:
        return _USUAL[0]
    return min(alike, key=lambda name: _width(name, alike[name]), default=None)


def _width(name: str, entry: Tensor) -> tuple[int, bool, int]:
    """The number of classes; of two scores and one number the former come first, and then what is called so."""
    is_number = have_one_number(entry)
    width = 2 if is_number else entry.shape[1]
    place = _USUAL.index(name) if name in _USUAL else len(_USUAL)
    return width, is_number, place


def _chosen(name: str, entry: Tensor, targets: Targets, *, is_known: bool) -> Choice:
    if not have_one_number(entry):
        return Choice(Scores(name), tuple(entry.shape[1:]), is_known=is_known)
    remark = ""
    if targets.shape is None or not targets.are_binary:
        remark = (
            f"{name} has one number for each pixel and is taken for a segmentation of two classes; if it is none (a "
            "depth, a heat map), the pixel_flip_rate means nothing"
        )
    return Choice(Scores(name, "number"), tuple(entry.shape[1:]), remark=remark, is_known=is_known)


def _first_of_several(name: str, entry: Tensor, others: str) -> str:
    shape = of_images(tuple(entry.shape[1:]))
    return f"the first of several outputs, {name} {shape}, is taken for class scores; {others}"


def _others(name: str, entries: Mapping[str, Tensor], reasons: Mapping[str, str]) -> str:
    """The other entries that could be meant, and how to choose one; empty where there are none."""
    shapes = {other: of_images(tuple(entries[other].shape[1:])) for other in reasons if other != name}
    texts = [f"{other} {shape}" for other, shape in shapes.items() if entries[other].ndim in (2, 4)]
    if not texts:
        return ""
    place = next(iter(shapes)).removeprefix(OUTPUT)
    return (
        f"the others are {listed(texts)}; labels= tell which one is meant, or forward= chooses it, for example "
        f"forward=lambda model, images: model(images){place}"
    )


def _why_none(output: Any, entries: Mapping[str, Tensor]) -> str:
    reason = why_no_scores(None, image_shape=(), targets=Targets())
    if entries:
        return f"{reason}; it holds {quoted(entries)}, and labels= or forward= tell which one is meant"
    is_list = isinstance(output, list | tuple) and bool(output)
    if is_list and all(isinstance(entry, Mapping) for entry in output):
        keys = quoted(output[0])
        return (
            f"{reason}; it is one mapping for each image ({keys}), as of a detection: how far layers move is measured, "
            "what is detected is not"
        )
    return reason
