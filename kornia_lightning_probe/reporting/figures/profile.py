"""The profile: a metric over the depth of the network, one line for each result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kornia_lightning_probe.reporting.figures import drawing
from kornia_lightning_probe.reporting.figures.lines import draw_profile
from kornia_lightning_probe.results.lookup import ProbeNumbers

_LETTERS_AN_INCH = 9


def plot_profile(
    results: Sequence[ProbeNumbers] | Mapping[str, ProbeNumbers],
    *,
    metric: str | None = None,
    augmentation: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw how a metric runs through the depth of the network, one line for each result.

    Args:
        results: The results by name, such as `{"start": ..., "now": ...}`; a sequence is named by epoch.
        metric: The metric's name; None is sensitivity, or the first metric where that was not measured.
        augmentation: Show the mean over its levels; None shows the mean over all views.
        ax: Axes to draw into; None makes a figure.

    Returns:
        The figure: layers in order of depth, `input` first, with bands of two standard errors to each side.

    Raises:
        ValueError: If there is no result, a name is unknown, or not all results would show the same metric.
    """
    named = drawing.by_name(results)
    metric = metric or drawing.common_metric(named)
    layers = _all_layers(named, metric)
    with drawing.house_look():
        if ax is None:
            wide = min(max(4.8, 1.6 + 0.22 * len(layers)), 12)
            names = drawing.shown(layers)[0]
            room = 0.0
            if sum(map(len, names)) > _LETTERS_AN_INCH * wide:
                # They stand upright below the axis.
                room = 0.075 * max(map(len, names))
            figure = drawing.NotebookFigure(figsize=(wide, 3.8 + room), layout="constrained")
            ax = figure.subplots()
            legend = draw_profile(ax, named, metric, augmentation, layers)
            drawing.small_print(figure, legend, drawing.moving_in_each(named, metric, augmentation))
        else:
            draw_profile(ax, named, metric, augmentation, layers)
        letters = sum(len(name) for name in drawing.shown(layers)[0])
        is_crowded = letters > _LETTERS_AN_INCH * drawing.figure_of(ax).get_figwidth()
        drawing.name_layers(ax.xaxis, layers, rotation=90 if is_crowded else 0)
        ax.set_ylabel(drawing.label_of(named, metric, augmentation), **drawing.AS_IT_IS)
        return drawing.figure_of(ax)


def _all_layers(named: Mapping[str, ProbeNumbers], metric: str) -> list[str]:
    """The layers of all results, those of the newest first."""
    layers: list[str] = []
    for result in reversed(list(named.values())):
        layers += result.table(metric).layers
    return list(dict.fromkeys(layers))
