"""A comparison of two results: the change over layers and augmentations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from kornia_lightning_probe.reporting.figures import drawing
from kornia_lightning_probe.reporting.figures.cells import bare, colour_bar, head, write
from kornia_lightning_probe.reporting.text.table import decimals
from kornia_lightning_probe.results.comparing.comparison import ComparisonNumbers, ComparisonRow
from kornia_lightning_probe.results.lookup import SENSITIVITY

# Red against blue, white in the middle, is told apart in every common form of colour blindness.
COLOUR_MAP = "RdBu_r"
CELL = 0.46
_MOST_WRITTEN = 24 * 14


def plot_comparison(comparison: ComparisonNumbers, *, metric: str = SENSITIVITY, ax: Axes | None = None) -> Figure:
    """Draw the change of a metric over layers (in order of depth) and augmentations.

    Args:
        comparison: The comparison.
        metric: The metric's name.
        ax: Axes to draw into; None makes a figure.

    Returns:
        The figure: red where the second result is larger, blue where it is smaller; a cell within sampling error is
        hatched, one without a value is grey.

    Raises:
        ValueError: If the metric wasn't compared.
    """
    rows = comparison.rows_of(metric)
    layers = list(dict.fromkeys(row.layer for row in rows))
    augmentations = list(dict.fromkeys(row.augmentation for row in rows))
    with drawing.house_look():
        if ax is None:
            wide = max(CELL * len(augmentations), 1.4) + 3.4
            figure = drawing.NotebookFigure(figsize=(wide, drawing.height(layers) + 0.3), layout="constrained")
            ax = figure.subplots()
            drawing.title(figure, f"{metric}: {comparison.title}")
            drawing.small_print(figure, *_legend(rows, comparison.z_limit))
        _draw_changes(ax, rows, layers, augmentations)
        drawing.name_layers(ax.yaxis, layers)
        ax.set_xticks([])
        for place, augmentation in enumerate(augmentations):
            head(ax, augmentation, place)
        return drawing.figure_of(ax)


def _legend(rows: Sequence[ComparisonRow], z_limit: float) -> list[str]:
    paired = "paired by image" if all(row.paired for row in rows) else "not paired"
    parts = [f"hatched: within {z_limit:g} standard errors, {paired}"]
    if any(math.isnan(row.change) for row in rows):
        parts.append("grey: no value")
    return parts


def _draw_changes(ax: Axes, rows: Sequence[ComparisonRow], layers: list[str], augmentations: list[str]) -> None:
    table = np.full((len(layers), len(augmentations)), math.nan)
    places = [(layers.index(row.layer), augmentations.index(row.augmentation)) for row in rows]
    for place, row in zip(places, rows, strict=True):
        table[place] = row.change
    known = np.abs(table[np.isfinite(table)])
    limit = float(known.max(initial=0.0)) or 1.0
    across = np.arange(len(augmentations) + 1) - 0.5
    down = np.arange(len(layers) + 1) - 0.5
    colours = colormaps[COLOUR_MAP].with_extremes(bad=drawing.NO_VALUE)
    look: Any = {
        "cmap": colours,
        "vmin": -limit,
        "vmax": limit,
        "edgecolors": "white",
        "linewidth": 0.6,
    }
    mesh = ax.pcolormesh(across, down, table, **look)
    digits = decimals(row.change for row in rows)
    for (layer, augmentation), row in zip(places, rows, strict=True):
        if math.isnan(row.change):
            continue
        if not row.beyond:
            _hatch(ax, augmentation, layer)
        if table.size <= _MOST_WRITTEN:
            how = _look(row, is_dark=abs(row.change) > 0.6 * limit)
            write(ax, augmentation, layer, _short(row.change, digits), **how)
    ax.set_ylim(len(layers) - 0.5, -0.5)
    bare(ax)
    bar = colour_bar(
        ax,
        mesh,
        tall=2.6,
        aspect=18,
    )
    bar.ax.set_title("change", fontsize=8, pad=6)


def _hatch(ax: Axes, across: int, down: int) -> None:
    corner = (across - 0.5, down - 0.5)
    cell = Rectangle(
        corner,
        1,
        1,
        fill=False,
        hatch="////",
        edgecolor="#bbbbbb",
        linewidth=0,
    )
    ax.add_patch(cell)


def _short(change: float, digits: int) -> str:
    if abs(change) < 1:
        return f"{change:+.{digits}f}".replace("0.", ".", 1)
    return f"{change:+.1f}"


def _look(row: ComparisonRow, *, is_dark: bool) -> dict[str, Any]:
    """How the number of a cell is written: within sampling error pale, on a white ground."""
    if row.beyond:
        return {"color": "white" if is_dark else "#222222", "fontweight": "bold"}
    ground = {
        "facecolor": "white",
        "alpha": 0.7,
        "linewidth": 0,
        "pad": 0.6,
    }
    return {"color": "#777777", "bbox": ground}
