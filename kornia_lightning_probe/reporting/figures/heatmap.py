"""The heatmap: a metric over layers and views."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kornia_lightning_probe.reporting.figures import drawing
from kornia_lightning_probe.reporting.figures.cells import cells_print, draw_cells
from kornia_lightning_probe.reporting.text.moving import moving_text
from kornia_lightning_probe.results.lookup import ProbeNumbers, shown_metric


def plot_heatmap(result: ProbeNumbers, *, metric: str | None = None, ax: Axes | None = None) -> Figure:
    """Draw a metric over layers (in order of depth, `input` on top) and views (grouped by augmentation).

    Args:
        result: The result.
        metric: The metric's name; None is sensitivity, or the first metric where that was not measured. A metric that
            knows its scale has that (sensitivity 0 to 1.2), so that figures can be compared; the lighter, the less has
            changed.
        ax: Axes to draw into; None makes a figure.

    Returns:
        The figure; a cell without a value is grey.

    Raises:
        ValueError: If the metric is unknown.
    """
    metric = metric or shown_metric(result.metrics)
    layers = result.table(metric).layers
    with drawing.house_look():
        if ax is None:
            figure = drawing.NotebookFigure(
                figsize=(drawing.width(result) + 3.4, drawing.height(layers)), layout="constrained"
            )
            ax = figure.subplots()
            drawing.small_print(figure, result.when, cells_print(result, metric), moving_text(result, metric))
        draw_cells(ax, result, metric)
        drawing.name_layers(ax.yaxis, layers)
        return drawing.figure_of(ax)
