"""The two heatmaps, layers downwards and augmentations across: the value now, and its change since the baseline."""

from __future__ import annotations

from typing import Any

import altair as alt

from kornia_lightning_probe.reporting.html.charts.look import KNOWN, between, named, tips, where, whole
from kornia_lightning_probe.reporting.html.numbers import PageNumbers

# The sides of a cell in pixels.
_WIDEST, _NARROWEST, _ALL = 64, 15, 430
_HIGHEST, _LOWEST, _DOWN = 24, 9, 420
# A number needs so much.
_ROOM = (26, 13)
_BELOW: dict[str, Any] = {
    "orient": "bottom",
    "direction": "horizontal",
    "gradientLength": 220,
    "gradientThickness": 12,
    "offset": 8,
}
# Directions differ by metric, so that the ends of the colours say what they mean.
_ENDS = "[-widest[metric], 0, widest[metric]]"
_END = (
    "datum.value > 0 ? format(datum.value, '+.2f') + ' ' + rises[metric] : "
    "datum.value < 0 ? format(datum.value, '+.2f') + ' ' + falls[metric] : '0'"
)


def now_chart(numbers: PageNumbers) -> dict[str, Any]:
    """The values of a result; a star marks a mean of which a level has no value."""
    base = heat_base(numbers)
    colour = alt.Color(
        "y:Q",
        legend=alt.Legend(title=None, **_BELOW),
        scale=alt.Scale(scheme="viridis", domain=between("lows[metric]", "highs[metric]")),
    )
    known = base.transform_filter(KNOWN)
    cells = known.mark_rect().encode(color=colour)
    bright = "datum.y > lows[metric] + 0.6 * (highs[metric] - lows[metric])"
    words = known.transform_calculate(text="format(datum.y, formats[metric]) + (datum.q > 0 ? '*' : '')")
    layers = [_unmeasured(base), cells]
    if has_room(numbers):
        layers.append(_written(words, bright=bright))
    else:
        layers.append(_pointed(known.transform_filter("datum.q > 0"), "cross", bright=bright))
    return whole(alt.layer(*layers, _chosen(base)), numbers, "Value by layer and augmentation")


def change_chart(numbers: PageNumbers) -> dict[str, Any]:
    """The changes since the baseline; only what is decided has a number."""
    base = heat_base(numbers)
    colour = alt.Color(
        "c:Q",
        legend=alt.Legend(title=None, values=alt.expr(_ENDS), labelExpr=_END, labelLimit=0, **_BELOW),
        scale=alt.Scale(
            scheme="purpleorange",
            reverse=True,
            domain=between("-widest[metric]", "widest[metric]"),
        ),
    )
    known = base.transform_filter("isValid(datum.c)")
    cells = known.mark_rect().encode(color=colour)
    decided = known.transform_filter("datum.d == 1")
    bright = "abs(datum.c) < 0.6 * widest[metric]"
    layers = [_unmeasured(base), cells]
    if has_room(numbers):
        words = decided.transform_calculate(text="format(datum.c, '+.2f') + (datum.q > 0 ? '*' : '')")
        layers.append(_written(words, bright=bright, size=9))
    else:
        layers.append(_pointed(decided, "circle", bright=bright))
    return whole(alt.layer(*layers, _chosen(base)), numbers, "Change by layer and augmentation")


def has_room(numbers: PageNumbers) -> bool:
    """Whether a number can be written into each cell."""
    across, down = _sides(numbers)
    return across >= _ROOM[0] and down >= _ROOM[1]


def heat_base(numbers: PageNumbers) -> Any:
    """The cells of the chosen metric and result, each at its place."""
    across, down = _sides(numbers)
    data = named(alt.Chart(alt.NamedData(name="means")).transform_filter("datum.e == when"))
    x = alt.X(
        "k:O",
        title=None,
        axis=alt.Axis(labelExpr="augmentation_labels[datum.value]", labelAngle=-40, labelLimit=0, orient="top"),
    )
    y = alt.Y("j:O", title=None, axis=alt.Axis(labelExpr="layer_labels[datum.value]", labelLimit=0))
    size = {"width": alt.Step(across), "height": alt.Step(down)}
    return data.encode(x=x, y=y, tooltip=tips(view=False)).properties(**size)


def _sides(numbers: PageNumbers) -> tuple[int, int]:
    across = min(_WIDEST, max(_NARROWEST, _ALL // len(numbers.augmentations)))
    down = min(_HIGHEST, max(_LOWEST, _DOWN // len(numbers.layers)))
    return across, down


def _unmeasured(base: Any) -> Any:
    return base.mark_rect(color="#888", opacity=0.18)


def _written(base: Any, *, bright: str, size: int = 10) -> Any:
    return base.mark_text(fontSize=size).encode(text="text:N", color=where(bright, "black", "white"))


def _pointed(base: Any, shape: str, *, bright: str) -> Any:
    points = base.mark_point(shape=shape, filled=True, size=12, opacity=1)
    return points.encode(color=where(bright, "black", "white"))


def _chosen(base: Any) -> Any:
    here = base.transform_filter("datum.j == layer && datum.k == augmentation")
    return here.mark_rect(filled=False, stroke="#e4572e", strokeWidth=3, strokeOpacity=1)
