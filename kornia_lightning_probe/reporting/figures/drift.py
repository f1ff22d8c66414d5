"""A drift history as a matplotlib figure: lines over the epochs, and a heatmap of layers x epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib import colormaps
from matplotlib.figure import Figure

from kornia_lightning_probe.reporting.figures import drawing
from kornia_lightning_probe.results.tables import pick_layers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from kornia_lightning_probe.result import ProbeResult

_WORDS = {"previous": "to the previous probe", "first": "to the first probe"}
_MOST_LABELS, _MOST_MARKERS = 12, 50


def plot_drift(history: Sequence[ProbeResult], *, references: Sequence[str] | None = None) -> Figure:
    """Draw how similar each layer stays to its past: a row for each reference, lines beside a heatmap.

    Args:
        history: the results of a DriftProbe, oldest first.
        references: "previous", "first" or both; None is all that the last result has.

    Returns:
        The figure: debiased CKA over the epochs, lines from dark (near the input) to light (deep), at most ten of them,
        evenly by depth; in the heatmap all layers, from 0 to 1. A probe that has nothing to be compared with is left
        out; a layer without a value is grey.

    Raises:
        ValueError: where there are no results, or a reference was not measured.
    """
    if not history:
        raise ValueError("there is no result to draw; a DriftProbe has one after its first probe")
    last = history[-1]
    names = references or [metric.removeprefix("cka_") for metric in last.metrics if metric.startswith("cka_")]
    layers = last.table(f"cka_{names[0]}").layers
    with drawing.house_look():
        figure = Figure(figsize=(9.6, 0.4 + len(names) * max(2.3, drawing.height(layers) - 1.4)), layout="constrained")
        panels = figure.subplots(len(names), 2, squeeze=False)
        for (left, right), name in zip(panels, names, strict=True):
            _draw_row(left, right, history, name, layers)
        shown = pick_layers(layers)
        lines = [line for line in panels[0, 0].get_lines() if line.get_label() in shown]
        figure.legend(lines, drawing.shown(shown)[0], loc="outside right upper", title="layer")
        drawing.small_print(figure, f"{last.when}; {_images(last, names[0])}; 1: the same up to rotation and scale")
        return figure


def _draw_row(left: Axes, right: Axes, history: Sequence[ProbeResult], name: str, layers: Sequence[str]) -> None:
    metric = f"cka_{name}"
    compared = [result for result in history if not result.tensor(metric).isnan().all()] or list(history[-1:])
    places = range(len(compared))
    columns = [dict(zip(r.table(metric).layers, r.tensor(metric)[0].tolist(), strict=True)) for r in compared]
    for layer in pick_layers(layers):
        depth = layers.index(layer) / max(len(layers) - 1, 1)
        values = [column.get(layer, float("nan")) for column in columns]
        marker = "o" if len(compared) <= _MOST_MARKERS else None
        left.plot(places, values, color=drawing.depth_colour(depth), marker=marker, label=layer)
    left.set_title(f"debiased CKA {_WORDS[name]}")
    left.grid(axis="y")
    left.axhline(1.0, color="#555555", linewidth=0.9, linestyle=(0, (4, 3)), zorder=1.5)
    table = history[-1].tensor(metric).new_tensor([[c.get(layer, float("nan")) for c in columns] for layer in layers])
    _draw_heatmap(right, table.numpy(), layers)
    for ax in (left, right):
        _epoch_ticks(ax, [result.epoch for result in compared])


def _draw_heatmap(ax: Axes, table: NDArray[Any], layers: Sequence[str]) -> None:
    colours = colormaps["viridis"].with_extremes(bad="#dddddd")
    edges = [[place - 0.5 for place in range(size + 1)] for size in table.shape]
    mesh = ax.pcolormesh(edges[1], edges[0], table, cmap=colours, vmin=0.0, vmax=1.0)
    ax.invert_yaxis()
    ax.spines[:].set_visible(False)
    names, label = drawing.shown(layers)
    drawing.ticks(ax.yaxis, names)
    ax.set_ylabel(label)
    bar = drawing.figure_of(ax).colorbar(mesh, ax=ax, pad=0.02, aspect=22)
    bar.outline.set_visible(False)


def _epoch_ticks(ax: Axes, epochs: Sequence[int]) -> None:
    step = -(-len(epochs) // _MOST_LABELS)
    places = range(0, len(epochs), step)
    ax.set_xticks(list(places), ["start" if epochs[place] < 0 else str(epochs[place]) for place in places])
    ax.set_xlabel("epoch")


def _images(result: ProbeResult, reference: str) -> str:
    return f"{result.metadata.get('num_images', int(result.table(f'cka_{reference}').num_images.max()))} images"
