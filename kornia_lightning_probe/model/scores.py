"""The part of what a model puts out that is class scores, as it is read in every pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from kornia_lightning_probe.activations.site import OUTPUT
from kornia_lightning_probe.model.recorder import named_entries

#: The names that libraries give to class scores; an entry with the first is nothing else.
USUAL = tuple(f"{OUTPUT}[{name}]" for name in ("logits", "out", "scores", "output"))
Kind = Literal["classes", "number", "logit", "probability"]


@dataclass(frozen=True)
class Scores:
    """Class scores among what a model puts out.

    Args:
        name: which part: "output" is all of it, "output[2]" or "output[logits]" an entry.
        kind: "classes" for (B, K), (B, K, H, W) and (B, K, D, H, W). "number" where there is one for each image or
            pixel, until :meth:`settled` tells whether it is a "logit" or a "probability" of the second of two classes.
    """

    name: str = OUTPUT
    kind: Kind = "classes"

    def of(self, output: Any) -> Tensor | None:
        """The scores in an output, classes behind the images, with K = 2 for a logit or a probability."""
        found = self.part_of(output)
        if found is None:
            return None
        return self.as_classes(found)

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
        if lie_in_range:
            return replace(self, kind="probability")
        return replace(self, kind="logit")


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
        if self.is_image and not has_head:
            return replace(self, remark="")
        return self

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
        children = {name: getattr(output, key_of(name), None) for name in USUAL}
    tensors = {name: child for name, child in children.items() if isinstance(child, Tensor)}
    return {name: tensor for name, tensor in tensors.items() if name.count("[") == 1}


def key_of(name: str) -> str:
    """The key or index of an entry, from its name.

    Example:
        >>> key_of("output[logits]")
        'logits'
    """
    return name.removeprefix(OUTPUT)[1:-1]


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
