"""One architecture: how it is made, what it is given, and how it is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kornia_lightning_probe import AugmentationBank


@dataclass(frozen=True)
class Entry:
    """An architecture of the zoo.

    Args:
        make: makes it, or skips the test where its library is missing.
        shape: of one image.
        forward: how it is called, where that isn't `model(images)`.
        keys: the names of its image entries, where it takes several.
        layout: what the axes of an image are.
        is_small: whether it belongs to the default run.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = (3, 64, 64)
    forward: Callable[[Any, Any], Any] | None = None
    keys: tuple[str, ...] = ()
    layout: str = "image"
    is_small: bool = False

    def inputs(self, count: int) -> Any:
        """So many images in [0, 1], or a dictionary of entries of them."""
        random = torch.Generator().manual_seed(0)
        if not self.keys:
            return torch.rand(count, *self.shape, generator=random)
        return {key: torch.rand(count, *self.shape, generator=random) for key in self.keys}

    def bank(self) -> AugmentationBank:
        """One view that moves no pixel."""
        return AugmentationBank({"dark": halved}, layout=self.layout)

    def run(self, model: nn.Module, inputs: Any) -> Any:
        """One forward pass."""
        if self.forward is not None:
            return self.forward(model, inputs)
        return model(inputs)


def halved(images: Tensor) -> Tensor:
    """Half as bright."""
    return images * 0.5
