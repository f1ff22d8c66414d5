"""A plain function as a metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from kornia_lightning_probe.activations.about import About
from kornia_lightning_probe.metrics.base import ProbeMetric


class FunctionMetric(ProbeMetric):
    """A plain function of (clean, augmented) as a metric: its mean over images.

    Args:
        function: takes two tensors (B, ...) and returns one scalar per image, (B,).
        name: default: the function's name.

    Raises:
        TypeError: where the function has no name and none is given.
    """

    statistics = ("value",)

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], *, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        chosen = name or getattr(function, "__name__", "")
        if not chosen or chosen == "<lambda>":
            raise TypeError(
                f"a metric needs a name: FunctionMetric({function!r}, name=...), from kornia_lightning_probe.metrics"
            )
        self.name = chosen
        self.function = function

    def measure(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:  # noqa: ARG002
        """The function's value of each image."""
        return {"value": self.function(clean, augmented)}
