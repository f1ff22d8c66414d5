"""The picture of an epoch: the depth profiles of several probes beside the heatmap of the last one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from kornia_lightning_probe.reporting.figures import drawing
from kornia_lightning_probe.reporting.figures.cells import cells_print, draw_cells
from kornia_lightning_probe.reporting.figures.lines import draw_profile
from kornia_lightning_probe.results.lookup import ProbeNumbers
from kornia_lightning_probe.results.tables import pick_layers

_LAYERS_ON_CARD, _CARD_HEIGHT = 12, 3.6


def plot_epoch(results: Mapping[str, ProbeNumbers], *, metric: str | None = None, card: bool = False) -> Figure:
    """Draw the depth profiles of several probes beside the heatmap of the last one, row by row the same layers.

    Args:
        results: The results by name, oldest first: `{"start": ..., "previous": ..., "now": ...}`.
        metric: The metric's name; None is sensitivity, or the first metric where that was not measured.
        card: Draw it to be read at a width of 350 pixels: the profiles alone, of at most twelve layers.

    Returns:
        The figure.

    Raises:
        ValueError: If there is no result, the metric is unknown, or not all results would show the same metric.
    """
    named = drawing.by_name(results)
    metric = metric or drawing.common_metric(named)
    latest, last = list(named.items())[-1]
    layers = last.table(metric).layers
    if card:
        return _card(named, metric, pick_layers(layers, _LAYERS_ON_CARD))
    with drawing.house_look():
        widths = (3.2, drawing.width(last) + 1.6)
        figure = drawing.NotebookFigure(figsize=(sum(widths) + 1.6, drawing.height(layers)), layout="constrained")
        left, right = figure.subplots(
            1,
            2,
            sharey=True,
            width_ratios=widths,
        )
        draw_cells(right, last, metric)
        legend = draw_profile(left, named, metric, None, layers, upright=True)
        drawing.name_layers(left.yaxis, layers)
        right.tick_params(left=False, labelleft=False)
        left.set_xlabel(drawing.label_of(named, metric))
        drawing.title(figure, ", ".join(filter(None, [metric, last.when])))
        moving = drawing.moving_in_each(named, metric)
        drawing.small_print(figure, legend, f"heatmap: {latest}", cells_print(last, metric), moving)
        return figure


def _card(named: Mapping[str, ProbeNumbers], metric: str, layers: Sequence[str]) -> Figure:
    with drawing.house_look():
        size = (drawing.CARD_WIDTH, _CARD_HEIGHT)
        figure = drawing.NotebookFigure(figsize=size, dpi=drawing.CARD_DPI, layout="constrained")
        ax = figure.subplots()
        draw_profile(ax, named, metric, None, layers, upright=True)
        drawing.name_layers(ax.yaxis, layers)
        ax.set_xlabel(drawing.label_of(named, metric))
        return figure
