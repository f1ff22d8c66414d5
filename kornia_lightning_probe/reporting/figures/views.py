"""Results and banks as matplotlib figures; no figure belongs to a window, so none has to be closed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kornia_lightning_probe.reporting.figures import drawing
from kornia_lightning_probe.results.headline import HEADLINE, common_headline, origin_of, pooled_text
from kornia_lightning_probe.results.tables import pick_layers as pick_layers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from torch import Tensor

    from kornia_lightning_probe.bank.bank import AugmentationBank
    from kornia_lightning_probe.bank.views import View
    from kornia_lightning_probe.result import ProbeResult


def plot_profile(
    results: Sequence[ProbeResult] | Mapping[str, ProbeResult],
    *,
    metric: str | None = None,
    augmentation: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw how a metric runs through the depth of the network, one line for each result.

    Args:
        results: The results by name, such as `{"start": ..., "now": ...}`; a sequence is named by epoch.
        metric: The metric's name; None is the headline, see `ProbeResult.table`.
        augmentation: Show the mean over its levels; None shows the mean over all views.
        ax: Axes to draw into; None makes a figure.

    Returns:
        The figure: layers in order of depth, `input` first, with bands of two standard errors to each side.

    Raises:
        ValueError: If there is no result, a name is unknown, or the headline is not one metric in all results.
    """
    named = _named(results)
    metric = metric or common_headline(named)
    with drawing.house_look():
        layers = _all_layers(named, metric)
        if ax is None:
            figure = Figure(figsize=(min(max(4.8, 1.6 + 0.22 * len(layers)), 12), 3.8), layout="constrained")
            ax = figure.subplots()
            legend = drawing.draw_profile(ax, named, metric, augmentation, layers)
            drawing.small_print(figure, legend, _pooled(named, metric, augmentation))
        else:
            drawing.draw_profile(ax, named, metric, augmentation, layers)
        names, label = drawing.shown(layers)
        crowded = sum(map(len, names)) > 9 * drawing.figure_of(ax).get_figwidth()
        drawing.ticks(ax.xaxis, names, rotation=90 if crowded else 0)
        ax.set_xlabel(label)
        ax.set_ylabel(drawing.quantity(named, metric, augmentation))
        return drawing.figure_of(ax)


def plot_heatmap(result: ProbeResult, *, metric: str | None = None, ax: Axes | None = None) -> Figure:
    """Draw a metric over layers (in order of depth, `input` on top) and views (grouped by augmentation).

    Args:
        result: The result.
        metric: The metric's name; None is the headline. A metric with a known range has that as its fixed scale
            (sensitivity 0 to 1.2), so that figures can be compared; the lighter, the less has changed.
        ax: Axes to draw into; None makes a figure.

    Returns:
        The figure; a cell without a value is grey.

    Raises:
        ValueError: If the metric is unknown.
    """
    metric = metric or HEADLINE
    layers = result.table(metric).layers
    with drawing.house_look():
        if ax is None:
            figure = Figure(figsize=(drawing.width(result) + 3.4, drawing.height(layers)), layout="constrained")
            ax = figure.subplots()
            pooled = pooled_text(result, metric)
            drawing.small_print(figure, result.when, drawing.heatmap_print(result, metric), pooled)
        names, label = drawing.shown(layers)
        drawing.draw_heatmap(ax, result, metric)
        drawing.ticks(ax.yaxis, names)
        ax.set_ylabel(label)
        return drawing.figure_of(ax)


def plot_epoch(results: Mapping[str, ProbeResult], *, metric: str | None = None) -> Figure:
    """Draw the depth profiles of several probes beside the heatmap of the last one, row by row the same layers.

    Args:
        results: The results by name, oldest first: `{"start": ..., "previous": ..., "now": ...}`.
        metric: The metric's name; None is the headline.

    Returns:
        The figure.

    Raises:
        ValueError: If there is no result, the metric is unknown, or the headline is not one metric in all results.
    """
    named = _named(results)
    metric = metric or common_headline(named)
    last = list(named.values())[-1]
    layers = last.table(metric).layers
    with drawing.house_look():
        widths = (3.2, drawing.width(last) + 1.6)
        figure = Figure(figsize=(sum(widths) + 1.6, drawing.height(layers)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=widths)
        drawing.draw_heatmap(right, last, metric)
        legend = drawing.draw_profile(left, named, metric, None, layers, upright=True)
        names, label = drawing.shown(layers)
        drawing.ticks(left.yaxis, names)
        right.tick_params(left=False, labelleft=False)
        left.set_ylabel(label)
        left.set_xlabel(drawing.quantity(named, metric, None))
        figure.suptitle(
            f"{origin_of(last.metrics, metric)}, {last.when}", x=0.01, ha="left", fontsize=10, fontweight="bold"
        )
        pooled = _pooled(named, metric, None)
        drawing.small_print(figure, legend, f"heatmap: {list(named)[-1]}", drawing.heatmap_print(last, metric), pooled)
        return figure


def plot_severity(result: ProbeResult, *, metric: str | None = None, layers: Sequence[str] | None = None) -> Figure:
    """Draw a metric over the severity, one panel for each augmentation, one line for each layer.

    Args:
        result: The result.
        metric: The metric's name; None is the headline.
        layers: The layers to show; None picks at most ten, evenly by depth.

    Returns:
        The figure; lines run from dark (near the input) to light (deep).

    Raises:
        ValueError: If a name is unknown.
    """
    metric = metric or HEADLINE
    origin = origin_of(result.metrics, metric)
    known = result.table(metric).layers
    chosen = pick_layers(known) if layers is None else list(layers)
    augmentations = result.augmentations
    columns = min(4, len(augmentations))
    rows = math.ceil(len(augmentations) / columns)
    with drawing.house_look():
        figure = Figure(figsize=(2.2 * columns + 2.0, 2.1 * rows + 0.7), layout="constrained")
        panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
        for panel, augmentation in zip(panels, augmentations, strict=False):
            _draw_severity(panel, result, metric, augmentation, chosen)
        for panel in panels[len(augmentations) :]:
            panel.set_visible(False)
        panels[0].set_ylim(bottom=min(0.0, panels[0].get_ylim()[0]))
        marks = {drawing.mark_swap(panel, origin) for panel in panels}
        figure.supylabel(origin, fontsize=9)
        names = drawing.shown(chosen)[0]
        figure.legend(panels[0].get_lines()[: len(chosen)], names, loc="outside right upper", title="layer")
        left_out = "" if len(chosen) == len(known) else f"{len(chosen)} of {len(known)} layers"
        pooled = pooled_text(result, metric, chosen)
        drawing.small_print(figure, result.when, f"{drawing.SMALL_PRINT}{marks.pop()}", left_out, pooled)
        return figure


def _draw_severity(ax: Axes, result: ProbeResult, metric: str, augmentation: str, layers: Sequence[str]) -> None:
    views = [view for view in result.views if view.augmentation == augmentation]
    severities = [view.severity for view in views]
    for i, layer in enumerate(layers):
        colour = drawing.depth_colour(i / max(len(layers) - 1, 1))
        values = [result.value(metric, layer, augmentation, view.level) for view in views]
        errors = [result.std_error(metric, layer, augmentation, view.level) for view in views]
        drawing.line(ax, severities, values, errors, color=colour, marker="o")
    ax.set_title(augmentation)
    ax.set_xlabel("severity")
    ax.set_xticks(severities, [f"{severity:g}" for severity in severities])
    ax.grid(axis="y")


def plot_bank(bank: AugmentationBank, images: Tensor, *, max_images: int = 4) -> Figure:
    """Show what every view does to a few images: one row for each image, the clean one first.

    Args:
        bank: The bank.
        images: (B, C, H, W), as the loader gives them. Given the probe's first block, the pictures are those that the
            probe uses: an augmentation is drawn for a block as a whole.
        max_images: How many of the images to show.

    Returns:
        The figure. Where the views don't fit beside each other they go on below, each time with the clean images.
    """
    bands = list(_bands(list(bank)))
    few = min(max_images, len(images))
    columns = 1 + max(map(len, bands))
    tall = 0.95 * min(max(images.shape[-2] / images.shape[-1], 0.5), 2.0) + 0.1
    levels = Counter(view.augmentation for view in bank)
    with drawing.house_look():
        figure = Figure(figsize=(0.95 * columns + 0.2, len(bands) * (tall * few + 0.45) + 0.1), layout="constrained")
        rows = figure.subfigures(len(bands), 1, squeeze=False)[:, 0]
        for row, band in zip(rows, bands, strict=True):
            panels = row.subplots(few, columns, squeeze=False)
            for panel in panels.flatten():
                panel.set_axis_off()
            drawing.draw_images(panels[:, 0], bank.pixels.to_unit(images[:few]), "clean")
            for column, view in enumerate(band, start=1):
                severity = f"\n{view.severity:g}" if levels[view.augmentation] > 1 else ""
                augmented = bank.augment(view, images, block=0).images[0][:few]
                drawing.draw_images(panels[:, column], bank.pixels.to_unit(augmented), view.augmentation + severity)
        return figure


def figure_pixels(figure: Figure) -> NDArray[np.uint8]:
    """Render a figure.

    Returns:
        (H, W, 3), red, green and blue from 0 to 255.
    """
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba(), dtype=np.uint8)[..., :3]


def _bands(views: list[View], most: int = 10) -> Iterator[list[View]]:
    band: list[View] = []
    for _, group in groupby(views, key=lambda view: view.augmentation):
        levels = list(group)
        if band and len(band) + len(levels) > most:
            yield band
            band = []
        band += levels
        while len(band) > most:
            yield band[:most]
            band = band[most:]
    yield band


def _named(results: Sequence[ProbeResult] | Mapping[str, ProbeResult]) -> dict[str, ProbeResult]:
    named = dict(results) if isinstance(results, Mapping) else dict(zip(_epochs(results), results, strict=True))
    if not named:
        raise ValueError("there is no result to draw; give one or more ProbeResults")
    return named


def _pooled(named: Mapping[str, ProbeResult], metric: str, augmentation: str | None) -> str:
    """What is pooled in each result; said once where it is the same in all."""
    texts = {name: pooled_text(result, metric, augmentation=augmentation) for name, result in named.items()}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"{name}: {text or 'nothing pooled'}" for name, text in texts.items())


def _epochs(results: Sequence[ProbeResult]) -> Iterator[str]:
    names = ["before training" if result.epoch < 0 else f"epoch {result.epoch}" for result in results]
    for i, name in enumerate(names):
        yield name if names.count(name) == 1 else f"{name} ({names[: i + 1].count(name)})"


def _all_layers(named: Mapping[str, ProbeResult], metric: str) -> tuple[str, ...]:
    newest_first = reversed(list(named.values()))
    return tuple(dict.fromkeys(layer for result in newest_first for layer in result.table(metric).layers))
