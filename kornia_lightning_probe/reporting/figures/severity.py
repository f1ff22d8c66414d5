"""Severity curves: a metric over the severity, one panel for each augmentation."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kornia_lightning_probe.reporting.figures import drawing
from kornia_lightning_probe.reporting.figures.lines import SMALL_PRINT, draw_line, draw_mark, show_zero
from kornia_lightning_probe.reporting.text.moving import moving_text
from kornia_lightning_probe.reporting.text.table import elided
from kornia_lightning_probe.results.lookup import ProbeNumbers, shown_metric
from kornia_lightning_probe.results.tables import pick_layers

_MOST_COLUMNS = 4
_MOST_TICKS = 7
_LONGEST_TITLE = 26


def plot_severity(result: ProbeNumbers, *, metric: str | None = None, layers: Sequence[str] | None = None) -> Figure:
    """Draw a metric over the severity, one panel for each augmentation, one line for each layer.

    Args:
        result: The result.
        metric: The metric's name; None is sensitivity, or the first metric where that was not measured.
        layers: The layers to show; None picks at most ten, evenly by depth.

    Returns:
        The figure; lines run from dark (near the input) to light (deep).

    Raises:
        ValueError: If a name is unknown.
    """
    metric = metric or shown_metric(result.metrics)
    table = result.table(metric)
    chosen = pick_layers(table.layers) if layers is None else list(layers)
    augmentations = result.augmentations
    columns, rows = _grid_of(len(augmentations))
    with drawing.house_look():
        is_full = columns * rows == len(augmentations)
        wide = 2.2 * columns + (2.0 if is_full else 0.6)
        figure = drawing.NotebookFigure(figsize=(wide, 2.1 * rows + 0.7), layout="constrained")
        panels = figure.subplots(
            rows,
            columns,
            sharey=True,
            squeeze=False,
        ).flatten()
        for panel, augmentation in zip(panels, augmentations, strict=False):
            _draw_curves(panel, result, metric, augmentation, chosen)
        holes = panels[len(augmentations) :]
        for panel in holes:
            panel.set_axis_off()
        lines = panels[0].get_lines()[: len(chosen)]
        show_zero(panels[0])
        marks = [draw_mark(panel, table.quantity) for panel in panels[: len(augmentations)]]
        figure.supylabel(drawing.with_unit(metric, table), fontsize=9)
        names = drawing.shown(chosen)[0]
        if is_full:
            drawing.legend(figure, lines, names, loc="outside right upper", title="layer")
        else:
            # Where there is a place left over, the legend is what fills it.
            drawing.legend(holes[0], lines, names, loc="center left", title="layer")
        parts = [result.when, f"{SMALL_PRINT}{marks[0]}"]
        if len(chosen) < len(table.layers):
            parts.append(f"{len(chosen)} of {len(table.layers)} layers")
        drawing.small_print(figure, *parts, moving_text(result, metric))
        return figure


def _grid_of(count: int) -> tuple[int, int]:
    """Columns and rows for so many panels, of three or four columns those with the fewest places left over."""
    if count <= _MOST_COLUMNS:
        return count, 1
    choices = [(-count % columns, -columns) for columns in (3, _MOST_COLUMNS)]
    columns = -min(choices)[1]
    return columns, math.ceil(count / columns)


def _draw_curves(ax: Axes, result: ProbeNumbers, metric: str, augmentation: str, layers: Sequence[str]) -> None:
    views = [view for view in result.views if view.augmentation == augmentation]
    severities = [view.severity for view in views]
    # Corners are no curve, so that nothing lies between two of them.
    is_curve = result.is_curve(augmentation)
    style = "-" if is_curve else "none"
    for i, layer in enumerate(layers):
        colour = drawing.depth_colour(i, len(layers))
        values = [result.value(metric, layer, augmentation, view.level) for view in views]
        errors = [math.nan] * len(views)
        if is_curve:
            errors = [result.std_error(metric, layer, augmentation, view.level) for view in views]
        draw_line(ax, severities, values, errors, color=colour, marker="o", linestyle=style)
    ax.set_title(elided(augmentation, _LONGEST_TITLE))
    ax.set_xlabel(drawing.severity_label(views) if is_curve else "view")
    # More numbers than fit would lie on one another.
    shown = severities[:: math.ceil(len(severities) / _MOST_TICKS)]
    ax.set_xticks(shown, [f"{severity:g}" for severity in shown])
    ax.grid(axis="y")
