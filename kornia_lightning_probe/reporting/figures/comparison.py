"""A comparison of two results as a matplotlib figure: the change over layers and augmentations."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from kornia_lightning_probe.reporting.figures import drawing
from kornia_lightning_probe.reporting.text.table import decimals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from kornia_lightning_probe.results.comparison import Comparison, ComparisonRow

# Red against blue, white in the middle, is told apart in every common form of colour blindness.
COLOUR_MAP = "RdBu_r"
CELL = 0.46


def plot_comparison(comparison: Comparison, *, metric: str = "sensitivity", ax: Axes | None = None) -> Figure:
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
            width = max(CELL * len(augmentations), 1.4) + 3.4
            figure = Figure(figsize=(width, drawing.height(layers) + 0.3), layout="constrained")
            ax = figure.subplots()
            figure.suptitle(
                f"{metric}: {comparison.title}",
                x=0.01, ha="left", fontsize=10, fontweight="bold",
            )  # fmt: skip
            paired = "paired by image" if all(row.paired for row in rows) else "not paired"
            grey = "; grey: no value" if any(math.isnan(row.change) for row in rows) else ""
            drawing.small_print(figure, f"hatched: within {comparison.z_limit:g} standard errors, {paired}{grey}")
        _draw_cells(ax, rows, layers, augmentations)
        names, label = drawing.shown(layers)
        drawing.ticks(ax.yaxis, names)
        ax.set_ylabel(label)
        ax.set_xticks([])
        for place, augmentation in enumerate(augmentations):
            ax.annotate(
                augmentation, (place, -0.6), rotation=40, ha="left", va="bottom", fontsize=8, annotation_clip=False
            )
        return drawing.figure_of(ax)


def _draw_cells(ax: Axes, rows: Sequence[ComparisonRow], layers: list[str], augmentations: list[str]) -> None:
    table = np.full((len(layers), len(augmentations)), math.nan)
    places = [(layers.index(row.layer), augmentations.index(row.augmentation)) for row in rows]
    for place, row in zip(places, rows, strict=True):
        table[place] = row.change
    largest = float(np.nanmax(np.abs(table))) if np.isfinite(table).any() else 0.0
    limit = largest or 1.0
    edges = [np.arange(count + 1) - 0.5 for count in (len(augmentations), len(layers))]
    colours = colormaps[COLOUR_MAP].with_extremes(bad="#dddddd")
    mesh = ax.pcolormesh(*edges, table, cmap=colours, vmin=-limit, vmax=limit, edgecolors="white", linewidth=0.6)
    digits = decimals(row.change for row in rows)
    few = table.size <= 24 * 14
    for (row_place, column), row in zip(places, rows, strict=True):
        if not row.beyond and not math.isnan(row.change):
            corner = (column - 0.5, row_place - 0.5)
            ax.add_patch(Rectangle(corner, 1, 1, fill=False, hatch="////", edgecolor="#bbbbbb", linewidth=0))
        if few and not math.isnan(row.change):
            _write_change(ax, column, row_place, row, digits=digits, dark=abs(row.change) > 0.6 * limit)
    ax.set_ylim(len(layers) - 0.5, -0.5)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    figure = drawing.figure_of(ax)
    height = min(1.0, 2.6 / figure.get_figheight())
    bar = figure.colorbar(mesh, ax=ax, shrink=height, anchor=(0.0, 1.0), aspect=18, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, length=2)
    bar.ax.set_title("change", fontsize=8, pad=6)


def _write_change(ax: Axes, column: int, place: int, row: ComparisonRow, *, digits: int, dark: bool) -> None:
    text = f"{row.change:+.{digits}f}".replace("0.", ".", 1) if abs(row.change) < 1 else f"{row.change:+.1f}"
    colour = "#777777" if not row.beyond else "white" if dark else "#222222"
    weight = "bold" if row.beyond else "normal"
    box = None if row.beyond else {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.6}
    ax.text(column, place, text, ha="center", va="center", fontsize=6, color=colour, fontweight=weight, bbox=box)
