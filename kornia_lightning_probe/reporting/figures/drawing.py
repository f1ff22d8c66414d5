"""What all figures share: the house look, names and sizes of axes, legends, the small print, pixels."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from textwrap import fill
from typing import Any, cast

try:
    import matplotlib as mpl
except ImportError as error:
    raise ImportError("figures need matplotlib: pip install matplotlib (the extra [plots])") from error

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from kornia_lightning_probe.reporting.text.moving import moving_text
from kornia_lightning_probe.reporting.text.table import elided
from kornia_lightning_probe.results.lookup import ProbeNumbers, shown_metric
from kornia_lightning_probe.results.tables import INPUT, OUTPUT, MetricTable, ViewInfo
from kornia_lightning_probe.wording import common_module, listed

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
    # A name is drawn as it is: a "$" in it begins no formula.
    "text.parse_math": False,
    "text.usetex": False,
}
#: The same for texts that were there before our look: those of a user's own axes.
AS_IT_IS: Any = {"parse_math": False, "usetex": False}
COLOURS = ("#8a8a8a", "#e69f00", "#0072b2", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
NO_VALUE = "#dddddd"
MARK = "#555555"
DASHES = (0, (4, 3))
ROW, COLUMN, MOST_TICKS, LETTERS, LONGEST_NAME = 0.2, 0.3, 46, 20, 28
SMALL = 6.5
#: A picture that is shown at a width of 350 pixels: its width in inches, and its pixels per inch.
CARD_WIDTH, CARD_DPI = 4.4, 160


class NotebookFigure(Figure):
    """A figure that no window holds, and that a notebook shows without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", bbox_inches="tight")
        return buffer.getvalue()


def house_look() -> AbstractContextManager[None]:
    """Matplotlib's settings for our figures, for as long as the context is open."""
    return mpl.rc_context(STYLE)


def figure_of(ax: Axes) -> Figure:
    """The figure that holds the axes."""
    return cast("Figure", ax.figure)


def figure_pixels(figure: Figure) -> NDArray[np.uint8]:
    """Render a figure.

    Returns:
        (H, W, 3), red, green and blue from 0 to 255.
    """
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba(), dtype=np.uint8)[..., :3]


def depth_colour(place: int, count: int) -> Any:
    """The colour of one of so many layers: dark near the input, light deep down."""
    depth = place / max(count - 1, 1)
    return mpl.colormaps["viridis"](0.92 * depth)


def by_name(results: Sequence[ProbeNumbers] | Mapping[str, ProbeNumbers]) -> dict[str, ProbeNumbers]:
    """The results by name; those of a sequence are named by their epochs.

    Raises:
        ValueError: If there is none.
    """
    if not results:
        raise ValueError("there is no result to draw; give one or more ProbeResults")
    if isinstance(results, Mapping):
        return dict(results)
    epochs = [_epoch_name(result.epoch) for result in results]
    named: dict[str, ProbeNumbers] = {}
    for i, (name, result) in enumerate(zip(epochs, results, strict=True)):
        if epochs.count(name) > 1:
            name = f"{name} ({epochs[: i + 1].count(name)})"
        named[name] = result
    return named


def _epoch_name(epoch: int) -> str:
    if epoch < 0:
        return "before training"
    return f"epoch {epoch}"


def common_metric(named: Mapping[str, ProbeNumbers]) -> str:
    """The metric that is shown where none is asked for, if it is one in all results.

    Raises:
        ValueError: If it is not; the message shows what it is in each.
    """
    shown = {name: shown_metric(result.metrics) for name, result in named.items()}
    if len(set(shown.values())) > 1:
        found = listed(f"{name} ({metric})" for name, metric in shown.items())
        raise ValueError(f"not all results have the metric that is shown first; give metric=...; it is {found}")
    return next(iter(shown.values()))


def moving_in_each(named: Mapping[str, ProbeNumbers], metric: str, augmentation: str | None = None) -> str:
    """What is said of views that move pixels, once where it is the same in all results."""
    texts = [moving_text(result, metric, augmentation=augmentation) for result in named.values()]
    if len(set(texts)) == 1:
        return texts[0]
    said = [text or "no view moves pixels" for text in texts]
    return "; ".join(f"{name}: {text}" for name, text in zip(named, said, strict=True))


def shown(layers: Sequence[str]) -> tuple[list[str], str]:
    """The layers' names without the module that all of them are in, and the axis label that names it."""
    inner = [layer for layer in layers if layer not in (INPUT, OUTPUT)]
    module = common_module(inner)
    names = [elided(layer.removeprefix(f"{module}."), LONGEST_NAME) for layer in layers]
    label = f"layer of {module}" if module else "layer"
    return names, label


def name_layers(axis: Axis, layers: Sequence[str], rotation: int = 0) -> None:
    """Write the layers' names along an axis; where they are too many, every second (third, ...) one."""
    names, label = shown(layers)
    step = math.ceil(len(names) / MOST_TICKS) or 1
    places = range(0, len(names), step)
    axis.set_ticks(
        places,
        labels=names[::step],
        rotation=rotation,
        **AS_IT_IS,
    )
    axis.set_tick_params(length=0)
    axis.set_label_text(label, **AS_IT_IS)


def legend(owner: Axes | Figure, lines: Sequence[Line2D], names: Sequence[str], **options: Any) -> Legend:
    """A legend of these names; also of those with an underscore in front, which matplotlib would leave out."""
    found = owner.legend(lines, [str(i) for i in range(len(lines))], **options)
    for text, name in zip(found.get_texts(), names, strict=True):
        text.set_text(name)
    return found


def label_of(named: Mapping[str, ProbeNumbers], metric: str, augmentation: str | None = None) -> str:
    """The axis label of a metric: its name, and the augmentation, or that it is the mean over all views."""
    known: list[str] = []
    for result in named.values():
        known += result.augmentations
    first = next(iter(named.values()))
    only = known[0] if len(set(known)) == 1 else "mean over views"
    return f"{with_unit(metric, first.table(metric))}, {augmentation or only}"


def with_unit(metric: str, table: MetricTable) -> str:
    """A metric's name, and its unit where it has one."""
    return f"{metric} {unit_of(table)}".rstrip()


def severity_label(views: Sequence[ViewInfo]) -> str:
    """The label of an axis of severities: with their unit, where it is one and known."""
    units = {view.unit for view in views}
    if len(units) != 1 or "" in units:
        return "severity"
    return f"severity ({units.pop()})"


def unit_of(table: MetricTable) -> str:
    """A metric's unit in brackets; "" where it has none."""
    if not table.quantity.unit:
        return ""
    return f"({table.quantity.unit})"


def height(layers: Sequence[str]) -> float:
    """The height in inches of a figure with one row for each layer."""
    return min(max(ROW * len(layers), 1.2), 10.0) + 2.0


def width(result: ProbeNumbers) -> float:
    """The width in inches of a heatmap of the result's views."""
    return min(max(COLUMN * len(result.views), 1.2), 16.0)


def title(figure: Figure, text: str) -> None:
    """Write what a figure shows above it."""
    figure.suptitle(
        text,
        x=0.01,
        ha="left",
        fontsize=10,
        fontweight="bold",
    )


def small_print(figure: Figure, *parts: str, size: float = SMALL) -> None:
    """Write what there is to say in small grey letters under the figure, in lines that it has room for."""
    letters = int(LETTERS * figure.get_figwidth() * SMALL / size)
    text = fill("; ".join(part for part in parts if part), letters)
    figure.supxlabel(
        text,
        x=0.01,
        ha="left",
        fontsize=size,
        color="#777777",
    )
