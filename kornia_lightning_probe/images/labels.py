"""What images are labelled with, all of them together: said by each process of its own, and joined."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

#: No class, by conventions older than these libraries: in masks, and in losses of torch.
IGNORED_PIXEL = 255
IGNORED = -100


@dataclass(frozen=True)
class Targets:
    """What images are labelled with.

    Args:
        shape: of one image's label, () or that of a mask, (H, W) or (D, H, W); None without labels.
        lowest: the lowest class; 0 where there is none.
        highest: the highest class; -1 where there is none.
        others: what there is in the place of labels where that is none, as a text such as "float32 (32, 4)".
    """

    shape: tuple[int, ...] | None = None
    lowest: int = 0
    highest: int = -1
    others: str = ""

    @classmethod
    def of(cls, labels: Iterable[Tensor | None], others: str = "") -> Targets:
        """What labels say, of one shape.

        Args:
            labels: of some blocks, integers (B,) or masks (B, H, W), (B, D, H, W). In masks 255 is no class, and -100
                is none anywhere.
            others: what there is in their place.

        Example:
            >>> import torch
            >>> Targets.of([torch.tensor([0, 1]), torch.tensor([7, -100])])
            Targets(shape=(), lowest=0, highest=7, others='')
        """
        parts = [_of_one(block) for block in labels if block is not None]
        return cls.joined([*parts, cls(others=others)])

    @classmethod
    def joined(cls, parts: Iterable[Targets]) -> Targets:
        """What several say together."""
        whole = cls()
        for part in parts:
            shape = part.shape if whole.shape is None else whole.shape
            lowest = min(whole.lowest, part.lowest)
            highest = max(whole.highest, part.highest)
            whole = cls(shape, lowest, highest, whole.others or part.others)
        return whole

    @property
    def are_binary(self) -> bool:
        """Whether all labels are 0 and 1."""
        return self.shape is not None and self.lowest >= 0 and self.highest in (0, 1)

    def to_text(self) -> str:
        """As a text that other processes read by :meth:`from_text`.

        Example:
            >>> Targets.from_text(Targets((), 0, 9).to_text())
            Targets(shape=(), lowest=0, highest=9, others='')
        """
        return json.dumps([self.shape, self.lowest, self.highest, self.others])

    @classmethod
    def from_text(cls, text: str) -> Targets:
        """What another process has said."""
        shape, lowest, highest, others = json.loads(text)
        if shape is not None:
            shape = tuple(shape)
        return cls(shape, lowest, highest, others)


def _of_one(labels: Tensor) -> Targets:
    shape = tuple(labels.shape[1:])
    is_class = labels != IGNORED
    if shape:
        is_class &= labels != IGNORED_PIXEL
    classes = labels[is_class]
    if classes.numel() == 0:
        return Targets(shape)
    lowest, highest = classes.aminmax()
    return Targets(shape, min(0, int(lowest)), int(highest))
