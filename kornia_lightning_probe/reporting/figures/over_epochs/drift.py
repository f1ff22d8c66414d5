"""A drift history: how similar each layer stays to its past, lines over the epochs beside a heatmap."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from kornia_lightning_probe.reporting.figures import drawing
from kornia_lightning_probe.reporting.figures.lines import draw_mark
from kornia_lightning_probe.reporting.figures.over_epochs.axis import draw_layers_over_epochs, epoch_ticks, marker_of
from kornia_lightning_probe.results.lookup import ProbeNumbers
from kornia_lightning_probe.results.tables import MetricTable, pick_layers

_WORDS = {"previous": "to the previous probe", "first": "to the first probe"}


def plot_drift(history: Sequence[ProbeNumbers], *, references: Sequence[str] | None = None) -> Figure:
    """Draw how similar each layer stays to its past: a row for each reference, lines beside a heatmap.

    Args:
        history: the results of a DriftProbe, oldest first.
        references: "previous", "first" or both; None is all that the last result has.

    Returns:
        The figure: debiased CKA over the epochs, lines from dark (near the input) to light (deep), at most ten of them,
        evenly by depth; in the heatmap all layers. A probe that has nothing to be compared with is left out; a layer
        without a value is grey.

    Raises:
        ValueError: where there are no results, or a reference was not measured.
    """
    if not history:
        raise ValueError("there is no result to draw; a DriftProbe has one after its first probe")
    last = history[-1]
    measured = [metric.removeprefix("cka_") for metric in last.metrics if metric.startswith("cka_")]
    names = measured if references is None else list(references)
    layers = last.table(f"cka_{names[0]}").layers
    with drawing.house_look():
        tall = max(2.3, drawing.height(layers) - 1.4)
        figure = drawing.NotebookFigure(figsize=(9.6, 0.4 + len(names) * tall), layout="constrained")
        panels = figure.subplots(len(names), 2, squeeze=False)
        for (left, right), name in zip(panels, names, strict=True):
            mark = _draw_row(left, right, history, name)
        few = pick_layers(layers)
        lines = panels[0, 0].get_lines()[: len(few)]
        drawing.legend(
            figure,
            lines,
            drawing.shown(few)[0],
            # On the right it would stand beside the colour bar, whose colours are others.
            loc="outside left upper",
            title="layer",
        )
        drawing.small_print(figure, last.when, f"{_num_images(last)} images{mark}")
        return figure


def _draw_row(left: Axes, right: Axes, history: Sequence[ProbeNumbers], name: str) -> str:
    """Draw one reference's lines and heatmap; returns what the small print says about the mark."""
    metric = f"cka_{name}"
    table = history[-1].table(metric)
    compared = [result for result in history if not result.tensor(metric).isnan().all()]
    compared = compared or list(history[-1:])
    values = _over_epochs(compared, metric, table.layers)
    _draw_lines(left, values, table)
    left.set_title(f"debiased CKA {_WORDS[name]}")
    mark = draw_mark(left, table.quantity)
    _draw_heatmap(right, values, table)
    epochs = [result.epoch for result in compared]
    epoch_ticks(left, epochs)
    epoch_ticks(right, epochs)
    return mark


def _draw_lines(ax: Axes, values: Tensor, table: MetricTable) -> None:
    places = range(values.shape[1])
    marker = marker_of(len(places))
    for layer in pick_layers(table.layers):
        row = table.layers.index(layer)
        colour = drawing.depth_colour(row, len(table.layers))
        ax.plot(
            places,
            values[row].tolist(),
            color=colour,
            marker=marker,
            label=layer,
        )
    ax.grid(axis="y")


def _over_epochs(history: Sequence[ProbeNumbers], metric: str, layers: Sequence[str]) -> Tensor:
    """The values of the layers over the probes, (layers, probes); NaN where a probe has no such layer."""
    columns: list[list[float]] = []
    for result in history:
        table = result.table(metric)
        found = dict(zip(table.layers, table.value[0].tolist(), strict=True))
        columns.append([found.get(layer, math.nan) for layer in layers])
    return torch.tensor(columns, dtype=torch.float64).T


def _draw_heatmap(ax: Axes, values: Tensor, table: MetricTable) -> None:
    colours = colormaps["viridis"].with_extremes(bad=drawing.NO_VALUE)
    mesh = draw_layers_over_epochs(ax, values, table, colours)
    bar = drawing.figure_of(ax).colorbar(
        mesh,
        ax=ax,
        pad=0.02,
        aspect=22,
    )
    bar.outline.set_visible(False)


def _num_images(result: ProbeNumbers) -> int:
    if result.metadata.num_images is not None:
        return result.metadata.num_images
    return max(int(table.num_images.max()) for table in result.tables.values())
