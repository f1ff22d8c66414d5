"""The picture of an epoch: the depth profiles of several probes beside the heatmap of the last one."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from kornia_lightning_probe.reporting.figures import drawing
from kornia_lightning_probe.reporting.figures.cells import cells_print, draw_cells
from kornia_lightning_probe.reporting.figures.lines import draw_profile
from kornia_lightning_probe.results.lookup import ProbeNumbers


def plot_epoch(results: Mapping[str, ProbeNumbers], *, metric: str | None = None) -> Figure:
    """Draw the depth profiles of several probes beside the heatmap of the last one, row by row the same layers.

    Args:
        results: The results by name, oldest first: `{"start": ..., "previous": ..., "now": ...}`.
        metric: The metric's name; None is sensitivity, or the first metric where that was not measured.

    Returns:
        The figure.

    Raises:
        ValueError: If there is no result, the metric is unknown, or not all results would show the same metric.
    """
    named = drawing.by_name(results)
    metric = metric or drawing.common_metric(named)
    latest, last = list(named.items())[-1]
    layers = last.table(metric).layers
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
