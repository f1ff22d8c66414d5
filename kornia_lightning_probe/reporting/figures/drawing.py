"""The parts that figures are made of: the house look, a depth profile, a heatmap, their axes and small print."""

from __future__ import annotations

import math
from itertools import groupby, takewhile
from textwrap import fill
from typing import TYPE_CHECKING, Any, cast

try:
    import matplotlib as mpl
except ImportError as error:
    raise ImportError("figures need matplotlib: pip install 'kornia-lightning-probe[plots]'") from error

from kornia_lightning_probe.results.headline import origin_of
from kornia_lightning_probe.results.severity import AT_IDENTITY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure
    from torch import Tensor

    from kornia_lightning_probe.result import ProbeResult

STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "lines.markersize": 3.5,
    "savefig.dpi": 120,
}
COLOURS = ("#8a8a8a", "#e69f00", "#0072b2", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
MARKERS = "osD^vPX"
COLOUR_MAP = "magma_r"
SWAPS = ("sensitivity", "sensitivity_pooled", "sensitivity_median", "equivariance_error", "invariance_error")
SHARES = ("flip_rate", "pixel_flip_rate", "accuracy", "channel_dominance", "shared_shift", "cka_previous", "cka_first")
SCALES = {
    **dict.fromkeys((*SWAPS, "interpolation_floor", "relative_change"), (0.0, 1.2)),
    **dict.fromkeys(SHARES, (0.0, 1.0)),
    "cosine": (-1.0, 1.0),
    "retrieval_auc": (0.5, 1.0),
    "js_divergence": (0.0, math.log(2)),
}
SWAP_MARKS = {
    0.0: "0 (unmoved)", 0.25: "0.25", 0.5: "0.5", 0.75: "0.75", 1.0: "1 (as far as\nswapping the\nimage)"
}  # fmt: skip
MARKS = {
    **dict.fromkeys(SWAPS, SWAP_MARKS),
    "cosine": {-1.0: "-1 (opposite)", 0.0: "0 (unrelated)", 1.0: "1 (one direction)"},
    "retrieval_auc": {0.5: "0.5 (chance)", 0.75: "0.75", 1.0: "1 (always found)"},
    "flip_rate": {0.0: "0 (none)", 0.5: "0.5", 1.0: "1 (every image)"},
    "pixel_flip_rate": {0.0: "0 (none)", 0.5: "0.5", 1.0: "1 (every pixel)"},
    "js_divergence": {0.0: "0 (the same)", 0.35: "0.35", math.log(2): "ln 2 (disjoint)"},
    "channel_dominance": {0.0: "0", 0.5: "0.5", 1.0: "1 (all in one)"},
    "shared_shift": {0.0: "0 (each its own)", 0.5: "0.5", 1.0: "1 (all alike)"},
}
SMALL_PRINT = "bands: ±2 standard errors over the images"
ROW, COLUMN, MOST_TICKS, LETTERS = 0.2, 0.3, 46, 21


def house_look() -> AbstractContextManager[None]:
    """Matplotlib's settings for our figures, for as long as the context is open."""
    return mpl.rc_context(STYLE)


def figure_of(ax: Axes) -> Figure:
    """The figure that holds the axes."""
    return cast("Figure", ax.figure)


def depth_colour(depth: float) -> Any:
    """The colour of a layer at a depth in [0, 1]: dark near the input, light deep down."""
    return mpl.colormaps["viridis"](0.92 * depth)


def draw_profile(
    ax: Axes,
    named: Mapping[str, ProbeResult],
    metric: str,
    augmentation: str | None,
    layers: Sequence[str],
    *,
    upright: bool = False,
) -> str:
    """Draw one line over the layers for each result, with its band; `upright` puts the depth on the y axis.

    Returns what the small print says about it.
    """
    places = list(range(len(layers)))
    colours = COLOURS[2:3] if len(named) == 1 else COLOURS[:1] + COLOURS[2:3] if len(named) == 2 else COLOURS
    for i, (name, result) in enumerate(named.items()):
        has = result.table(metric).layers
        values = [result.value(metric, layer, augmentation) if layer in has else math.nan for layer in layers]
        errors = [result.std_error(metric, layer, augmentation) if layer in has else math.nan for layer in layers]
        look = {"color": colours[i % len(colours)], "marker": MARKERS[i % len(MARKERS)], "label": name}
        line(ax, places, values, errors, upright=upright, **look)
    ax.grid(axis="x" if upright else "y")
    if upright:
        ax.set_xlim(left=min(0.0, ax.get_xlim()[0]))
    else:
        ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
        ax.margins(x=0.02)
    if len(named) > 1:
        ax.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0, columnspacing=1.2, handlelength=1.6
        )
    return SMALL_PRINT + mark_swap(ax, _origin(named, metric), upright=upright)


def line(
    ax: Axes,
    places: Sequence[float],
    values: Sequence[float],
    errors: Sequence[float],
    *,
    upright: bool = False,
    **look: Any,
) -> None:
    """Draw a line with a band of two standard errors to each side."""
    low = [value - 2 * error for value, error in zip(values, errors, strict=True)]
    high = [value + 2 * error for value, error in zip(values, errors, strict=True)]
    if upright:
        ax.plot(values, places, **look)
        ax.fill_betweenx(places, low, high, color=look["color"], alpha=0.2, linewidth=0)
    else:
        ax.plot(places, values, **look)
        ax.fill_between(places, low, high, color=look["color"], alpha=0.2, linewidth=0)


def mark_swap(ax: Axes, metric: str, *, upright: bool = False) -> str:
    """Mark a sensitivity of 1 where the axis comes near it; returns what the small print says about the mark.

    Takes a measured metric's name; the headline's is that of its origin.
    """
    limits = ax.get_xlim() if upright else ax.get_ylim()
    if metric not in SWAPS or limits[1] < 0.9:
        return ""
    draw, limit = (ax.axvline, ax.set_xlim) if upright else (ax.axhline, ax.set_ylim)
    draw(1.0, color="#555555", linewidth=0.9, linestyle=(0, (4, 3)), zorder=1.5)
    # Limits that were set once do not follow what is drawn later.
    limit(limits[0], max(limits[1], 1.02))
    return "; dashed: as far as swapping the image"


def draw_heatmap(ax: Axes, result: ProbeResult, metric: str) -> None:
    """Draw layers (down) x views (across), a gap between augmentations, and the colour bar; light is unmoved."""
    table, origin = result.tensor(metric), origin_of(result.metrics, metric)
    low, high = SCALES.get(origin, _range(table.nan_to_num(0.0).flatten().tolist()))
    colours = mpl.colormaps[_colour_map(origin)].with_extremes(bad="#dddddd")
    edges = [row - 0.5 for row in range(table.shape[1] + 1)]
    places: list[float] = []
    meshes: list[QuadMesh] = []
    start = 0.0
    for augmentation, views in groups(result):
        ends = [start + i for i in range(len(views) + 1)]
        meshes.append(ax.pcolormesh(ends, edges, table[views].T.numpy(), cmap=colours, vmin=low, vmax=high))
        places += [end + 0.5 for end in ends[:-1]]
        middle = (start + ends[-1]) / 2
        ax.annotate(
            augmentation, (middle, -0.6), rotation=40, ha="left", va="bottom", fontsize=8, annotation_clip=False
        )
        start = ends[-1] + 0.25
    ax.set_xlim(0, start - 0.25)
    ax.set_ylim(edges[-1], edges[0])
    ax.set_xticks(
        places, [f"{view.severity:g}" for view in result.views], rotation=90 if len(places) > 8 else 0, fontsize=7
    )
    ax.set_xlabel("severity")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    if len(result.views) <= 24 and table.shape[1] <= 14:
        _write_cells(ax, table.T, places, meshes[0])
    _draw_scale(ax, meshes[0], origin, bool((table < low).any()), bool((table > high).any()))


def groups(result: ProbeResult) -> Iterator[tuple[str, list[int]]]:
    """Each augmentation with the places of its views."""
    for augmentation, views in groupby(range(len(result.views)), key=lambda i: result.views[i].augmentation):
        yield augmentation, list(views)


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(0.0, *values), max(0.0, *values)
    return (low, high) if high > low else (low, low + 1.0)


def _colour_map(metric: str) -> str:
    """Dark at the end of the scale that is far from an augmentation that does nothing."""
    return COLOUR_MAP.removesuffix("_r") if AT_IDENTITY.get(metric) == 1.0 else COLOUR_MAP


def _write_cells(ax: Axes, table: Tensor, places: Sequence[float], mesh: QuadMesh) -> None:
    shades = mesh.to_rgba(table.numpy())
    for row, (cells, colours) in enumerate(zip(table.tolist(), shades.tolist(), strict=True)):
        for place, cell, (red, green, blue, _) in zip(places, cells, colours, strict=True):
            if not math.isnan(cell):
                text = f"{cell:z.2f}".replace("0.", ".", 1) if abs(cell) < 0.995 else f"{cell:.1f}"
                colour = "white" if 0.3 * red + 0.6 * green + 0.1 * blue < 0.5 else "#333333"
                ax.text(place, row, text, ha="center", va="center", fontsize=6, color=colour)


def _draw_scale(ax: Axes, mesh: QuadMesh, metric: str, below: bool, above: bool) -> None:
    figure = figure_of(ax)
    height = min(1.0, 3.2 / figure.get_figheight())
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}.get((below, above), "neither")
    bar = figure.colorbar(mesh, ax=ax, shrink=height, anchor=(0.0, 1.0), aspect=22, pad=0.02, extend=extend)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, length=2)
    bar.ax.set_title(metric, fontsize=8, pad=6)
    if metric in MARKS:
        bar.set_ticks(list(MARKS[metric]), labels=list(MARKS[metric].values()))
    if metric in SWAPS:
        bar.ax.axhline(1.0, color="white", linewidth=1.2)


def shown(layers: Sequence[str], most: int = 28) -> tuple[list[str], str]:
    """The layers' names without the module that all of them are in, and the axis label that names it."""
    inner = [layer for layer in layers if layer not in ("input", "output")]
    shared = takewhile(
        lambda parts: len(set(parts)) == 1, zip(*(layer.split(".")[:-1] for layer in inner), strict=False)
    )
    prefix = "".join(f"{parts[0]}." for parts in shared) if len(inner) > 1 else ""
    names = [layer.removeprefix(prefix) for layer in layers]
    names = [name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-most // 2 :]}" for name in names]
    return names, f"layer of {prefix[:-1]}" if prefix else "layer"


def ticks(axis: Axis, names: Sequence[str], rotation: int = 0) -> None:
    """Write the names along an axis; where they are too many, every second (third, ...) one."""
    step = math.ceil(len(names) / MOST_TICKS)
    axis.set_ticks(range(0, len(names), step), labels=names[::step], rotation=rotation)
    axis.set_tick_params(length=0)


def quantity(named: Mapping[str, ProbeResult], metric: str, augmentation: str | None) -> str:
    """The axis label of a metric: its name, and the augmentation, or that it is the mean over all views."""
    augmentations = {name for result in named.values() for name in result.augmentations}
    only = augmentation or (next(iter(augmentations)) if len(augmentations) == 1 else "mean over views")
    return f"{_origin(named, metric)}, {only}"


def _origin(named: Mapping[str, ProbeResult], metric: str) -> str:
    return origin_of(next(iter(named.values())).metrics, metric)


def height(layers: Sequence[str]) -> float:
    """The height in inches of a figure with one row for each layer."""
    return min(max(ROW * len(layers), 1.2), 10.0) + 2.0


def width(result: ProbeResult) -> float:
    """The width in inches of a heatmap of the result's views."""
    return min(max(COLUMN * len(result.views), 1.2), 16.0)


def small_print(figure: Figure, *parts: str) -> None:
    """Write what there is to say in small grey letters under the figure, in lines that it has room for."""
    text = fill("; ".join(filter(None, parts)), int(LETTERS * figure.get_figwidth()))
    figure.supxlabel(text, x=0.01, ha="left", fontsize=6.5, color="#777777")


def heatmap_print(result: ProbeResult, metric: str) -> str:
    """What the small print says about a heatmap: the images, and what a grey cell is."""
    grey = "; grey: no value" if result.tensor(metric).isnan().any() else ""
    return f"{int(result.table(metric).num_images.max())} images{grey}"


def draw_images(panels: Iterable[Axes], images: Tensor, title: str) -> None:
    """Draw (B, C, H, W) images in [0, 1] into B axes; of other than three channels the first is shown."""
    for i, (panel, image) in enumerate(zip(panels, images.cpu(), strict=True)):
        picture = image.permute(1, 2, 0) if len(image) == 3 else image[0]
        panel.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        if i == 0:
            panel.set_title(title, fontsize=7.5, loc="center", pad=3)
