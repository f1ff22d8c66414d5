"""The axis of epochs, and the table of layers over epochs, which the pictures of a training share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from torch import Tensor

from kornia_lightning_probe.reporting.figures import drawing
from kornia_lightning_probe.results.tables import MetricTable

MOST_LABELS, MOST_MARKERS = 12, 50


def marker_of(count: int) -> str | None:
    """The marker of a line of so many probes; None where they would lie on one another."""
    return "o" if count <= MOST_MARKERS else None


def epoch_ticks(ax: Axes, epochs: Sequence[int], *, start: str = "start", most: int = MOST_LABELS) -> None:
    """Write the epochs of the probes, of which each is one step of the axis.

    Args:
        ax: the axes.
        epochs: of each probe; -1 is before training.
        start: what that one is called.
        most: how many labels there is room for.
    """
    step = math.ceil(len(epochs) / most)
    names = [start if epoch < 0 else str(epoch) for epoch in epochs]
    ax.set_xticks(range(0, len(epochs), step), names[::step])
    ax.set_xlabel("epoch")


def draw_layers_over_epochs(ax: Axes, values: Tensor, table: MetricTable, colours: Any) -> QuadMesh:
    """Draw (layers, probes) values as a table of colours, layers downwards; returns it for its colour bar."""
    low, high = table.scale
    down, across = ([place - 0.5 for place in range(size + 1)] for size in values.shape)
    mesh = ax.pcolormesh(
        across,
        down,
        values.numpy(),
        cmap=colours,
        vmin=low,
        vmax=high,
    )
    ax.invert_yaxis()
    ax.spines[:].set_visible(False)
    drawing.name_layers(ax.yaxis, table.layers)
    return mesh
