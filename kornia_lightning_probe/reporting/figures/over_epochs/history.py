"""The history of a training: how each layer's value runs over the epochs, a panel for each augmentation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from kornia_lightning_probe.reporting.figures import drawing
from kornia_lightning_probe.reporting.figures.cells import colours_of, draw_scale
from kornia_lightning_probe.reporting.figures.lines import SMALL_PRINT, draw_line, draw_mark, show_zero
from kornia_lightning_probe.reporting.figures.over_epochs.axis import draw_layers_over_epochs, epoch_ticks, marker_of
from kornia_lightning_probe.reporting.text.moving import moving_text
from kornia_lightning_probe.reporting.text.table import elided
from kornia_lightning_probe.results.lookup import ProbeNumbers, shown_metric
from kornia_lightning_probe.results.tables import INPUT, pick_layers

START = "before\ntraining"
_MOST_PANELS, _MOST_ON_CARD = 23, 3
_LETTER = 0.075
_MOST_LINES, _LINES_ON_CARD = 10, 5
_PANEL_WIDTH, _PANEL_HEIGHT = 2.1, 1.9
_CARD_HEIGHT = 3.9
_LONGEST_TITLE, _LONGEST_ON_CARD = 26, 20


class _Shown(NamedTuple):
    """What a history shows: the probes, the metric, and of it these layers and augmentations."""

    history: Sequence[ProbeNumbers]
    metric: str
    layers: Sequence[str]
    augmentations: Sequence[str]
    is_card: bool

    @property
    def last(self) -> ProbeNumbers:
        return self.history[-1]

    @property
    def epochs(self) -> list[int]:
        return [result.epoch for result in self.history]


def plot_history(
    history: Sequence[ProbeNumbers],
    *,
    metric: str | None = None,
    layers: Sequence[str] | None = None,
    card: bool = False,
) -> Figure:
    """Draw a metric over the epochs: a panel for each augmentation, and beside them all layers as a heatmap.

    Args:
        history: The results of a training, oldest first; what a probe has not measured is a gap.
        metric: The metric's name; None is sensitivity, or the first metric where that was not measured.
        layers: The layers that have a line; None picks at most ten, evenly by depth.
        card: Whether it is to be read at a width of 350 pixels: then of the three augmentations that move most, five
            layers, and no heatmap.

    Returns:
        The figure: lines from dark (near the input) to light (deep), with bands of two standard errors to each side. In
        the heatmap the mean over the views; a layer without a value is grey.

    Raises:
        ValueError: If there is no result, or the metric or a layer is unknown in the last of them.
    """
    if not history:
        raise ValueError("there is no result to draw; a SensitivityProbe has one after its first probe")
    last = history[-1]
    metric = metric or shown_metric(last.metrics)
    drawn = _Shown(history, metric, _lines(last, metric, layers, card=card), _panels(last, metric, card=card), card)
    with drawing.house_look():
        if card:
            return _draw_card(drawn)
        return _draw_whole(drawn)


def _lines(last: ProbeNumbers, metric: str, layers: Sequence[str] | None, *, card: bool) -> list[str]:
    if layers is not None:
        for layer in layers:
            # One that is unknown is an error here.
            last.value(metric, layer)
        return list(layers)
    # No training moves the pixels.
    known = [layer for layer in last.table(metric).layers if layer != INPUT]
    return pick_layers(known, _LINES_ON_CARD if card else _MOST_LINES)


def _panels(last: ProbeNumbers, metric: str, *, card: bool) -> list[str]:
    """The augmentations that have a panel: those that move most, in the order of the bank."""
    most = _MOST_ON_CARD if card else _MOST_PANELS
    moved = {name: last.value(metric, augmentation=name) for name in last.augmentations}
    ranked = sorted(moved, key=lambda name: -_or_lowest(moved[name]))
    return [name for name in last.augmentations if name in ranked[:most]]


def _or_lowest(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _draw_whole(shown: _Shown) -> Figure:
    table = shown.last.table(shown.metric)
    # The legend has a place among the panels, so that they leave no hole.
    columns, rows = _grid_of(len(shown.augmentations) + 1)
    # The names of layers and the colour bar stand beside the cells.
    beside = 2.0 + _LETTER * max(map(len, drawing.shown(table.layers)[0]))
    wide = (_PANEL_WIDTH * columns + 0.5, beside + max(1.2, 0.12 * len(shown.history)))
    tall = max(_PANEL_HEIGHT * rows, drawing.ROW * min(len(table.layers), drawing.MOST_TICKS) + 0.6)
    figure = drawing.NotebookFigure(figsize=(min(sum(wide), 19.0), min(tall, 9.0) + 0.8), layout="constrained")
    parts: Any = figure.subfigures(1, 2, width_ratios=wide)
    left, right = parts
    mark = _draw_panels(left, shown, columns=columns, rows=rows)
    _draw_heatmap(right, shown)
    drawing.title(figure, f"{shown.metric} over the training")
    drawing.small_print(figure, *_small_print(shown, mark), moving_text(shown.last, shown.metric))
    return figure


def _draw_card(shown: _Shown) -> Figure:
    figure = drawing.NotebookFigure(
        figsize=(drawing.CARD_WIDTH, _CARD_HEIGHT), dpi=drawing.CARD_DPI, layout="constrained"
    )
    # Whatever there is room for is drawn in the same size of type.
    columns = min(2, len(shown.augmentations) + 1)
    rows = math.ceil((len(shown.augmentations) + 1) / columns)
    mark = _draw_panels(figure, shown, columns=columns, rows=rows)
    left_out = len(shown.last.augmentations) - len(shown.augmentations)
    title = shown.metric
    if left_out:
        title = f"{shown.metric}: what moves most ({left_out} not shown)"
    drawing.title(figure, title)
    drawing.small_print(figure, f"±2 standard errors{mark}", size=8)
    return figure


def _grid_of(count: int) -> tuple[int, int]:
    """Columns and rows for so many panels, of three to five columns those with the fewest places left over."""
    if count <= 3:
        return count, 1
    choices = [(-count % columns, -columns) for columns in (3, 4, 5)]
    columns = -min(choices)[1]
    return columns, math.ceil(count / columns)


def _draw_panels(figure: Figure | SubFigure, shown: _Shown, *, columns: int, rows: int) -> str:
    """Draw a panel for each augmentation and the legend behind them; returns what is said of the mark."""
    grid = figure.add_gridspec(rows, columns)
    panels: list[Axes] = []
    for place, augmentation in enumerate(shown.augmentations):
        row, column = divmod(place, columns)
        panel = figure.add_subplot(grid[row, column], sharey=panels[0] if panels else None)
        _draw_curves(panel, shown, augmentation)
        # The legend, which is below the last ones, has no axis.
        is_lowest = place + columns >= len(shown.augmentations)
        panel.tick_params(labelleft=column == 0, labelbottom=is_lowest)
        if is_lowest:
            panel.set_xlabel("epoch")
        panels.append(panel)
    show_zero(panels[0])
    marks = [draw_mark(panel, shown.last.table(shown.metric).quantity) for panel in panels]
    row, column = divmod(len(panels), columns)
    _draw_legend(figure.add_subplot(grid[row, column:]), panels[0], shown)
    figure.supylabel(drawing.with_unit(shown.metric, shown.last.table(shown.metric)), fontsize=9)
    return marks[0]


def _draw_curves(ax: Axes, shown: _Shown, augmentation: str) -> None:
    places = range(len(shown.history))
    for i, layer in enumerate(shown.layers):
        points = [_point(result, shown.metric, layer, augmentation) for result in shown.history]
        values, errors = zip(*points, strict=True)
        draw_line(
            ax,
            places,
            values,
            errors,
            color=drawing.depth_colour(i, len(shown.layers)),
            marker=marker_of(len(places)),
            linewidth=1.3,
        )
    longest = _LONGEST_ON_CARD if shown.is_card else _LONGEST_TITLE
    ax.set_title(elided(augmentation, longest))
    epoch_ticks(ax, shown.epochs, start=START, most=5)
    ax.set_xlabel("")
    ax.tick_params(axis="x", labelsize=7)
    ax.grid(axis="y")


def _point(result: ProbeNumbers, metric: str, layer: str, augmentation: str | None) -> tuple[float, float]:
    """A value and its error; NaN where a probe of the history has no such thing."""
    is_known = metric in result.metrics and layer in result.table(metric).layers
    if augmentation is not None:
        is_known = is_known and augmentation in result.augmentations
    if not is_known:
        return math.nan, math.nan
    return result.value(metric, layer, augmentation), result.std_error(metric, layer, augmentation)


def _draw_legend(ax: Axes, panel: Axes, shown: _Shown) -> None:
    ax.set_axis_off()
    names, label = drawing.shown(shown.layers)
    if shown.is_card:
        names = [elided(name, _LONGEST_ON_CARD) for name in names]
        label = elided(label, _LONGEST_TITLE)
    found = drawing.legend(
        ax,
        panel.get_lines()[: len(shown.layers)],
        names,
        loc="center left",
        title=elided(label, 34),
        fontsize=8 if shown.is_card else 7.5,
        labelspacing=0.3,
        borderaxespad=0,
    )
    found.get_title().set_fontsize(8)
    found.set_alignment("left")


def _draw_heatmap(figure: SubFigure, shown: _Shown) -> None:
    table = shown.last.table(shown.metric)
    ax = figure.subplots()
    mesh = draw_layers_over_epochs(ax, _over_epochs(shown, table.layers), table, colours_of(table))
    epoch_ticks(ax, shown.epochs, start=START, most=6)
    ax.tick_params(axis="x", labelsize=7, length=0)
    ax.set_title("mean over the views")
    draw_scale(ax, mesh, shown.metric, table)


def _over_epochs(shown: _Shown, layers: Sequence[str]) -> Tensor:
    """The means over the views, (layers, probes); NaN where a probe has no such layer."""
    rows: list[list[float]] = []
    for layer in layers:
        points = [_point(result, shown.metric, layer, None) for result in shown.history]
        rows.append([value for value, _ in points])
    return torch.tensor(rows, dtype=torch.float64)


def _small_print(shown: _Shown, mark: str) -> list[str]:
    parts = [f"{SMALL_PRINT}{mark}"]
    measured = [layer for layer in shown.last.table(shown.metric).layers if layer != INPUT]
    if len(shown.layers) < len(measured):
        parts.append(f"lines: {len(shown.layers)} of {len(measured)} layers")
    if len(shown.augmentations) < len(shown.last.augmentations):
        left_out = len(shown.last.augmentations) - len(shown.augmentations)
        parts.append(f"{left_out} augmentations that move least are not shown")
    return parts
