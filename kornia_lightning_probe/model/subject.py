"""The model under probe: its chosen layers, its device, and how it is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Subject:
    """The model under probe, and how it is called.

    Args:
        model: the module whose flags, buffers and hooks are put back.
        forward: takes inputs on ``device`` and returns the model's output.
        layers: the chosen modules by name.
        device: where the model is.
        exact: those of the layers that were named exactly, and so must fire.
        embedding: the layer called the embedding; None is the last layer that isn't the output itself.
    """

    model: nn.Module
    forward: Callable[[Any], Any]
    layers: dict[str, nn.Module]
    device: torch.device
    exact: frozenset[str] = frozenset()
    embedding: str | None = None
