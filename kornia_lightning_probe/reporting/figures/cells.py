"""A table of coloured cells, layers down and views across, and its colour bar."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from textwrap import fill
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh

from kornia_lightning_probe.reporting.figures.drawing import LONGEST_NAME, NO_VALUE, figure_of, unit_of
from kornia_lightning_probe.reporting.text.table import elided
from kornia_lightning_probe.results.lookup import ProbeNumbers
from kornia_lightning_probe.results.tables import MetricTable, ViewInfo

COLOUR_MAP = "magma"
_GAP = 0.25
_MOST_COLUMNS, _MOST_ROWS, _MOST_FLAT = 24, 14, 8
# How bright red, green and blue look.
_BRIGHTNESS = (0.3, 0.6, 0.1)
_WIDEST_MARK = 18
_EXTEND = {(True, True): "both", (True, False): "min", (False, True): "max"}


def draw_cells(ax: Axes, result: ProbeNumbers, metric: str) -> None:
    """Draw layers (down) x views (across), a gap between augmentations, and the colour bar; light is unmoved."""
    table = result.table(metric)
    low, high = table.scale
    look = {"cmap": colours_of(table), "vmin": low, "vmax": high}
    rows = [row - 0.5 for row in range(len(table.layers) + 1)]
    places: list[float] = []
    start = 0.0
    for augmentation, views in groups(result).items():
        edges = [start + i for i in range(len(views) + 1)]
        mesh = ax.pcolormesh(edges, rows, table.value[views].T.numpy(), **look)
        places += [edge + 0.5 for edge in edges[:-1]]
        unit = result.views[views[0]].unit
        head(ax, _with_unit(augmentation, unit), (start + edges[-1]) / 2)
        start = edges[-1] + _GAP
    ax.set_xlim(0, start - _GAP)
    ax.set_ylim(rows[-1], rows[0])
    name_severities(ax, places, result.views)
    bare(ax)
    if len(places) <= _MOST_COLUMNS and len(table.layers) <= _MOST_ROWS:
        _write_cells(ax, table, places, mesh)
    draw_scale(ax, mesh, metric, table)


def name_severities(ax: Axes, places: Sequence[float], views: Sequence[ViewInfo]) -> None:
    """Write the views' severities under their columns."""
    names = [f"{view.severity:g}" for view in views]
    is_crowded = len(names) > _MOST_FLAT
    ax.set_xticks(
        places,
        names,
        rotation=90 * is_crowded,
        fontsize=7,
    )
    ax.set_xlabel("severity")


def groups(result: ProbeNumbers) -> dict[str, list[int]]:
    """Each augmentation with the places of its views."""
    found: dict[str, list[int]] = {}
    for augmentation, views in groupby(range(len(result.views)), key=lambda i: result.views[i].augmentation):
        found.setdefault(augmentation, []).extend(views)
    return found


def head(ax: Axes, name: str, place: float) -> None:
    """Write an augmentation's name above its columns."""
    ax.annotate(
        name,
        (place, -0.6),
        rotation=40,
        ha="left",
        va="bottom",
        fontsize=8,
        annotation_clip=False,
    )


def _with_unit(augmentation: str, unit: str) -> str:
    """An augmentation, and what the numbers below its columns count."""
    name = elided(augmentation, LONGEST_NAME)
    if not unit:
        return name
    return f"{name}\n({unit})"


def bare(ax: Axes) -> None:
    """Take the frame and the ticks away from a table of cells."""
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)


def colours_of(table: MetricTable) -> Any:
    """Dark at the end of the scale that is far from an augmentation that does nothing."""
    low, high = table.scale
    identity = table.quantity.at_identity
    is_high_unmoved = identity is not None and abs(high - identity) < abs(identity - low)
    colours = colormaps[COLOUR_MAP]
    if not is_high_unmoved:
        colours = colours.reversed()
    return colours.with_extremes(bad=NO_VALUE)


def _write_cells(ax: Axes, table: MetricTable, places: Sequence[float], mesh: QuadMesh) -> None:
    brightness = mesh.to_rgba(table.value.numpy())[..., :3] @ _BRIGHTNESS
    for view, layer in table.value.isfinite().nonzero().tolist():
        is_dark = brightness[view, layer] < 0.5
        text = _short(float(table.value[view, layer]))
        write(ax, places[view], layer, text, color="white" if is_dark else "#333333")


def write(ax: Axes, across: float, down: float, text: str, **look: Any) -> None:
    """Write a number into a cell."""
    ax.text(
        across,
        down,
        text,
        ha="center",
        va="center",
        fontsize=6,
        **look,
    )


def _short(value: float) -> str:
    if abs(value) < 0.995:
        return f"{value:z.2f}".replace("0.", ".", 1)
    return f"{value:.1f}"


def draw_scale(ax: Axes, mesh: QuadMesh, metric: str, table: MetricTable) -> None:
    """Draw the colour bar of a metric, with its marks."""
    low, high = table.scale
    is_below = bool((table.value < low).any())
    is_above = bool((table.value > high).any())
    extend = _EXTEND.get((is_below, is_above), "neither")
    bar = colour_bar(
        ax,
        mesh,
        tall=3.2,
        aspect=22,
        extend=extend,
    )
    # Nothing keeps room for a title that is wider than the marks.
    title = f"{metric}\n{unit_of(table)}".rstrip()
    bar.ax.set_title(title, fontsize=8, pad=6)
    marks = [mark for mark in table.quantity.marks if low <= mark[0] <= high]
    if marks:
        values, texts = zip(*marks, strict=True)
        bar.set_ticks(values, labels=[fill(text, _WIDEST_MARK) for text in texts])
    line = table.quantity.line
    if line is not None and low < line < high:
        bar.ax.axhline(line, color="white", linewidth=1.2)


def colour_bar(ax: Axes, mesh: QuadMesh, *, tall: float, **options: Any) -> Any:
    """A colour bar beside the axes, at most so many inches tall."""
    figure = figure_of(ax)
    # Of a part of a figure, the whole.
    whole = figure.figure
    share = min(1.0, tall / whole.get_figheight())
    bar = figure.colorbar(
        mesh,
        ax=ax,
        shrink=share,
        anchor=(0.0, 1.0),
        pad=0.02,
        **options,
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, length=2)
    return bar


def cells_print(result: ProbeNumbers, metric: str) -> str:
    """What the small print says about a table of cells: the images, and what a grey cell is."""
    table = result.table(metric)
    text = f"{int(table.num_images.max())} images"
    if table.value.isnan().any():
        text += "; grey: no value"
    return text
