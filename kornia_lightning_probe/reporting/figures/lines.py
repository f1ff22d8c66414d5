"""Lines with bands of errors: the profile of a metric over depth, and the mark at one of its values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from kornia_lightning_probe.quantity import Quantity
from kornia_lightning_probe.reporting.figures.drawing import COLOURS, DASHES, MARK, legend
from kornia_lightning_probe.results.lookup import ProbeNumbers

#: Of two results the first is grey and the last blue.
_FEW = {1: COLOURS[2:3], 2: (COLOURS[0], COLOURS[2])}
MARKERS = "osD^vPX"
BAND: Any = {"alpha": 0.2, "linewidth": 0}
SMALL_PRINT = "bands: ±2 standard errors over the images"
# A mark is drawn where the axis ends less than this share of its length before it, and lies so far inside.
_NEAR, _INSIDE = 0.1, 0.02


def draw_profile(
    ax: Axes,
    named: Mapping[str, ProbeNumbers],
    metric: str,
    augmentation: str | None,
    layers: Sequence[str],
    *,
    upright: bool = False,
) -> str:
    """Draw one line over the layers for each result, with its band; `upright` puts the depth on the y axis.

    Returns what the small print says about it.
    """
    colours = _FEW.get(len(named), COLOURS)
    lines: list[Line2D] = []
    for i, (name, result) in enumerate(named.items()):
        values, errors = profile_of(result, metric, augmentation, layers)
        line = draw_line(
            ax,
            range(len(layers)),
            values,
            errors,
            upright=upright,
            color=colours[i % len(colours)],
            marker=MARKERS[i % len(MARKERS)],
            label=name,
        )
        lines.append(line)
    ax.grid(axis="x" if upright else "y")
    show_zero(ax, upright=upright)
    if not upright:
        ax.margins(x=0.02)
    if len(named) > 1:
        options = {
            "ncols": 3,
            "borderaxespad": 0,
            "columnspacing": 1.2,
            "handlelength": 1.6,
        }
        legend(
            ax,
            lines,
            list(named),
            loc="lower left",
            bbox_to_anchor=(0, 1),
            **options,
        )
    quantity = next(iter(named.values())).table(metric).quantity
    return f"{SMALL_PRINT}{draw_mark(ax, quantity, upright=upright)}"


def profile_of(
    result: ProbeNumbers, metric: str, augmentation: str | None, layers: Sequence[str]
) -> tuple[list[float], list[float]]:
    """A metric's values at the layers and their errors; NaN at a layer that it does not have."""
    known = result.table(metric).layers
    values: list[float] = []
    errors: list[float] = []
    for layer in layers:
        if layer in known:
            values.append(result.value(metric, layer, augmentation))
            errors.append(result.std_error(metric, layer, augmentation))
        else:
            values.append(math.nan)
            errors.append(math.nan)
    return values, errors


def show_zero(ax: Axes, *, upright: bool = False) -> None:
    """Let the axis of the values begin at zero, or below."""
    if upright:
        ax.set_xlim(left=min(0.0, ax.get_xlim()[0]))
    else:
        ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))


def draw_line(
    ax: Axes,
    places: Sequence[float],
    values: Sequence[float],
    errors: Sequence[float],
    *,
    upright: bool = False,
    **look: Any,
) -> Line2D:
    """Draw a line with a band of two standard errors to each side."""
    middle, band = np.array(values), 2 * np.array(errors)
    low, high = middle - band, middle + band
    if upright:
        (line,) = ax.plot(values, places, **look)
        ax.fill_betweenx(
            places,
            low,
            high,
            color=look["color"],
            **BAND,
        )
    else:
        (line,) = ax.plot(places, values, **look)
        ax.fill_between(
            places,
            low,
            high,
            color=look["color"],
            **BAND,
        )
    return line


def draw_mark(ax: Axes, quantity: Quantity, *, upright: bool = False) -> str:
    """Draw a quantity's line where the axis comes near it; returns what the small print says about it."""
    if quantity.line is None:
        return ""
    low, high = ax.get_xlim() if upright else ax.get_ylim()
    near, inside = _NEAR * (high - low), _INSIDE * (high - low)
    if not low - near <= quantity.line <= high + near:
        return ""
    # Limits that were set once do not follow what is drawn later.
    limits = (min(low, quantity.line - inside), max(high, quantity.line + inside))
    look: Any = {
        "color": MARK,
        "linewidth": 0.9,
        "linestyle": DASHES,
        "zorder": 1.5,
    }
    if upright:
        ax.axvline(quantity.line, **look)
        ax.set_xlim(limits)
    else:
        ax.axhline(quantity.line, **look)
        ax.set_ylim(limits)
    text = dict(quantity.marks).get(quantity.line, f"{quantity.line:g}")
    return f"; dashed: {text}"
