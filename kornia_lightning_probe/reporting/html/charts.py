"""The charts of a page as Vega-Lite specifications; each is one chart of its own, so that no two share a colour scale.

Names and numbers come from the page's data, never from the text of an expression: what a layer is called is not code.
The choice (metric, result, layer, augmentation) is four parameters, which the page sets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import altair as alt

from kornia_lightning_probe.reporting.html.numbers import LEVELS, MEANS, PageNumbers
from kornia_lightning_probe.results.lookup import ProbeNumbers

# The sides of a heatmap's cells in pixels.
_WIDEST, _NARROWEST, _ALL = 44, 15, 420
_HIGHEST, _LOWEST, _DOWN = 24, 9, 420
# A number needs so much.
_ROOM = (26, 13)
_CURVES = {"width": 390, "height": 260}
_HERE = "datum.m == metric && datum.e == when"
_UNDER = "datum.m == metric && datum.k == augmentation"
_MOST_IN_LEGEND = 10
#: Without the dark and the bright end, which vanish on a dark and a bright page.
_DEPTHS = alt.SchemeParams(name="viridis", extent=[0.2, 0.9])
_KNOWN = "isValid(datum.y)"
_TIME = "datum.value < 0 ? ['before', 'training'] : datum.label"
# Directions differ by metric, so that the ends of the colours say what they mean.
_ENDS = "[-widest[metric], 0, widest[metric]]"
_END = "format(datum.value, '+.2f') + ' ' + (datum.value > 0 ? rises[metric] : datum.value < 0 ? falls[metric] : '')"


def charts_of(numbers: PageNumbers) -> dict[str, dict[str, Any]]:
    """The specifications by name: "now", "curves", "severity", and "change" where there is something to compare.

    They read the datasets "means" and "levels", see :func:`datasets_of`.
    """
    found = {"now": _now(numbers), "curves": _curves(numbers), "severity": _severity(numbers)}
    if any(row[6] is not None for row in numbers.means):
        found["change"] = _change(numbers)
    if len(numbers.results) < 2:
        del found["curves"]
    return {name: chart.to_dict() for name, chart in found.items()}


def datasets_of(numbers: PageNumbers) -> dict[str, dict[str, Any]]:
    """The rows by the name of their dataset, packed; the page makes an object of each row again.

    Rows that are alike in their first `shared` columns are one, which holds a list in each of the other columns: half
    the size.
    """
    # Inside a chart values would be validated one by one, which takes half a minute for a long training.
    return {"means": _packed(MEANS, 3, numbers.means), "levels": _packed(LEVELS, 4, numbers.levels)}


def _packed(columns: Sequence[str], shared: int, rows: Sequence[Sequence[float | None]]) -> dict[str, Any]:
    packed: list[list[Any]] = []
    for start, alike in groupby(rows, key=lambda row: row[:shared]):
        others = list(zip(*alike, strict=True))[shared:]
        packed.append([*start, *map(list, others)])
    return {"columns": columns, "shared": shared, "rows": packed}


def drift_charts(results: Sequence[ProbeNumbers]) -> dict[str, dict[str, Any]]:
    """A chart for each reference of a drift probe: CKA over the epochs, a line a layer; its rows are in it."""
    found: dict[str, dict[str, Any]] = {}
    for metric in results[-1].metrics:
        if metric.startswith("cka_"):
            found[metric] = _drift(results, metric)
    return found


def _now(numbers: PageNumbers) -> Any:
    base = _heat(numbers)
    colour = alt.Color(
        "y:Q",
        title=None,
        scale=alt.Scale(scheme="viridis", domain=_between("lows[metric]", "highs[metric]")),
    )
    known = base.transform_filter(_KNOWN)
    cells = known.mark_rect().encode(color=colour)
    bright = "datum.y > lows[metric] + 0.6 * (highs[metric] - lows[metric])"
    words = known.transform_calculate(text="format(datum.y, '.2f') + (datum.q > 0 ? '*' : '')")
    layers = [_unmeasured(base), cells]
    if _has_room(numbers):
        layers.append(_written(words, bright=bright))
    return _whole(alt.layer(*layers, _chosen(base)), numbers, "Value by layer and augmentation")


def _change(numbers: PageNumbers) -> Any:
    base = _heat(numbers)
    colour = alt.Color(
        "c:Q",
        legend=alt.Legend(title=None, values=alt.expr(_ENDS), labelExpr=_END, labelLimit=160),
        scale=alt.Scale(
            scheme="purpleorange",
            reverse=True,
            domain=_between("-widest[metric]", "widest[metric]"),
        ),
    )
    known = base.transform_filter("isValid(datum.c)")
    cells = known.mark_rect().encode(color=colour)
    decided = known.transform_filter("datum.d == 1").transform_calculate(text="format(datum.c, '+.2f')")
    layers = [_unmeasured(base), cells]
    if _has_room(numbers):
        layers.append(_written(decided, bright="abs(datum.c) < 0.6 * widest[metric]"))
    else:
        layers.append(decided.mark_circle(size=9, color="black"))
    return _whole(alt.layer(*layers, _chosen(base)), numbers, "Change by layer and augmentation")


def _curves(numbers: PageNumbers) -> Any:
    ticks = numbers.places if len(numbers.places) <= 16 else alt.Undefined
    title = "step" if numbers.by_step else "epoch"
    x = alt.X(
        "place:Q",
        title=title,
        axis=alt.Axis(values=ticks, labelExpr=_TIME, format="d", grid=False, labelOverlap=True),
        scale=alt.Scale(domain=[numbers.places[0], numbers.places[-1]], nice=False, zero=False),
    )
    data = alt.Chart(alt.NamedData(name="means")).transform_filter(_UNDER)
    data = data.transform_calculate(place="places[datum.e]")
    return _lines(data, x, numbers, "Value over the training")


def _severity(numbers: PageNumbers) -> Any:
    data = alt.Chart(alt.NamedData(name="levels")).transform_filter(f"{_UNDER} && datum.e == when")
    reach = _between("reaches[augmentation][0]", "reaches[augmentation][1]")
    x = alt.X("x:Q", title="severity", axis=alt.Axis(grid=False), scale=alt.Scale(domain=reach))
    return _lines(data, x, numbers, "Value over severity", line="datum.o == 1")


def _lines(data: Any, x: Any, numbers: PageNumbers, title: str, *, line: str = "true") -> Any:
    """A line and a band of two errors for each layer, the chosen one thick; a missing value breaks its line."""
    data = _named(data).transform_calculate(
        low="isValid(datum.y) && isValid(datum.s) ? datum.y - 2 * datum.s : null",
        high="isValid(datum.y) && isValid(datum.s) ? datum.y + 2 * datum.s : null",
    )
    depths = list(range(len(numbers.layers)))
    colour = alt.Color(
        "j:O",
        scale=alt.Scale(domain=depths, scheme=_DEPTHS),
        legend=alt.Legend(
            title="layer",
            values=_evenly(depths),
            labelExpr="layer_names[datum.value]",
            labelLimit=130,
            symbolType="square",
            symbolOpacity=1,
        ),
    )
    is_chosen = "datum.j == layer"
    # Where no value is to be shown, an axis would have no ends.
    height = alt.Scale(
        domain=_between("heights[metric][augmentation][0]", "heights[metric][augmentation][1]"), nice=True
    )
    y = alt.Y("y:Q", title=None, scale=height)
    bands = (
        data.transform_filter(line)
        .mark_area()
        .encode(
            x=x,
            y=alt.Y("low:Q", title=None, scale=height),
            y2="high:Q",
            color=colour,
            opacity=_if(is_chosen, 0.35, 0.08),
        )
    )
    lines = (
        data.transform_filter(line)
        .mark_line()
        .encode(x=x, y=y, color=colour, strokeWidth=_if(is_chosen, 4, 1.2), opacity=_if(is_chosen, 1, 0.75))
    )
    points = (
        data.transform_filter(_KNOWN)
        .mark_point(filled=True)
        .encode(x=x, y=y, color=colour, size=_if(is_chosen, 70, 20), opacity=alt.value(1), tooltip=_tips())
    )
    return _whole(alt.layer(bands, lines, points).properties(**_CURVES), numbers, title)


def _drift(results: Sequence[ProbeNumbers], metric: str) -> dict[str, Any]:
    layers = list(dict.fromkeys(layer for numbers in results for layer in numbers.table(metric).layers))
    x = alt.X(
        "x:Q",
        title="epoch",
        axis=alt.Axis(labelExpr=_TIME, format="d", grid=False, tickMinStep=1),
        scale=alt.Scale(nice=False, zero=False),
    )
    colour = alt.Color(
        "j:O",
        scale=alt.Scale(domain=list(range(len(layers))), scheme=_DEPTHS),
        legend=alt.Legend(
            title="layer",
            values=_evenly(range(len(layers))),
            labelExpr="layer_names[datum.value]",
            labelLimit=130,
            symbolOpacity=1,
        ),
    )
    tips = [alt.Tooltip("layer:N"), alt.Tooltip("x:Q", title="epoch"), alt.Tooltip("y:Q", format=".3f", title="CKA")]
    base = alt.Chart(alt.NamedData(name="drift")).transform_calculate(layer="layer_names[datum.j]")
    base = base.encode(x=x, y=alt.Y("y:Q", title=None), color=colour)
    points = base.transform_filter(_KNOWN).mark_point(filled=True, size=30).encode(tooltip=tips)
    chart = alt.layer(base.mark_line(), points).properties(**_CURVES)
    spec: dict[str, Any] = _dressed(chart, metric).add_params(alt.param(name="layer_names", value=layers)).to_dict()
    spec["datasets"] = {"drift": _drift_rows(results, metric, layers)}
    return spec


def _drift_rows(results: Sequence[ProbeNumbers], metric: str, layers: Sequence[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for numbers in results:
        table = numbers.table(metric)
        for column, layer in enumerate(table.layers):
            value = float(table.value[0, column])
            known = value if math.isfinite(value) else None
            rows.append({"x": numbers.epoch, "j": layers.index(layer), "y": known})
    return rows


def _heat(numbers: PageNumbers) -> Any:
    across, down = _sides(numbers)
    data = _named(alt.Chart(alt.NamedData(name="means")).transform_filter(_HERE))
    x = alt.X(
        "k:O",
        title=None,
        scale=alt.Scale(domain=list(range(len(numbers.augmentations)))),
        axis=alt.Axis(labelExpr="augmentation_names[datum.value]", labelAngle=-40, labelLimit=110, orient="top"),
    )
    y = alt.Y(
        "j:O",
        title=None,
        scale=alt.Scale(domain=list(range(len(numbers.layers)))),
        axis=alt.Axis(labelExpr="layer_names[datum.value]", labelLimit=140),
    )
    return data.encode(x=x, y=y, tooltip=_tips()).properties(width=alt.Step(across), height=alt.Step(down))


def _named(data: Any) -> Any:
    names = {
        "layer_name": "layer_names[datum.j]",
        "augmentation_name": "augmentation_names[datum.k]",
        "when_name": "whens[datum.e]",
    }
    return data.transform_calculate(**names)


def _tips() -> list[Any]:
    return [
        alt.Tooltip("layer_name:N", title="layer"),
        alt.Tooltip("augmentation_name:N", title="augmentation"),
        alt.Tooltip("when_name:N", title="when"),
        alt.Tooltip("x:Q", title="severity"),
        alt.Tooltip("y:Q", title="value", format=".3f"),
        alt.Tooltip("s:Q", title="standard error", format=".3f"),
        alt.Tooltip("c:Q", title="change", format="+.3f"),
        alt.Tooltip("t:Q", title="its standard error", format=".3f"),
        alt.Tooltip("q:Q", title="levels without a value"),
    ]


def _unmeasured(base: Any) -> Any:
    return base.mark_rect(color="#888", opacity=0.18)


def _written(base: Any, *, bright: str) -> Any:
    colour = _if(bright, "black", "white")
    return base.mark_text(fontSize=10).encode(text="text:N", color=colour)


def _chosen(base: Any) -> Any:
    here = base.transform_filter("datum.j == layer && datum.k == augmentation")
    return here.mark_rect(filled=False, stroke="#e4572e", strokeWidth=3, strokeOpacity=1)


def _whole(chart: Any, numbers: PageNumbers, description: str) -> Any:
    """A chart that knows the names and the choice."""
    lows, highs, widest = (list(ends) for ends in zip(*numbers.ends, strict=True))
    known: dict[str, Any] = {
        "metric": 0,
        "when": len(numbers.results) - 1,
        "layer": numbers.shown_layer,
        "augmentation": 0,
        "layer_names": list(numbers.layers),
        "augmentation_names": list(numbers.augmentations),
        "whens": list(numbers.whens),
        "heights": numbers.heights,
        "reaches": numbers.reaches,
        "places": list(numbers.places),
        "lows": lows,
        "highs": highs,
        "widest": widest,
        "rises": [rises for rises, _ in numbers.directions],
        "falls": [falls for _, falls in numbers.directions],
    }
    params = [alt.param(name=name, value=value) for name, value in known.items()]
    return _dressed(chart, description).add_params(*params)


def _dressed(chart: Any, description: str) -> Any:
    """Colours that are those of the page's text, in light, dark and print."""
    text = {"labelColor": "currentColor", "titleColor": "currentColor"}
    lines = {"domainColor": "#8888", "tickColor": "#8888", "gridColor": "#8883"}
    described = chart.properties(description=description, background="transparent")
    return described.configure_axis(**text, **lines).configure_legend(**text).configure_view(stroke=None)


def _between(low: str, high: str) -> list[Any]:
    return [alt.expr(low), alt.expr(high)]


def _if(test: str, then: Any, otherwise: Any) -> Any:
    return alt.condition(test, alt.value(then), alt.value(otherwise))


def _sides(numbers: PageNumbers) -> tuple[int, int]:
    across = min(_WIDEST, max(_NARROWEST, _ALL // len(numbers.augmentations)))
    down = min(_HIGHEST, max(_LOWEST, _DOWN // len(numbers.layers)))
    return across, down


def _has_room(numbers: PageNumbers) -> bool:
    across, down = _sides(numbers)
    return across >= _ROOM[0] and down >= _ROOM[1]


def _evenly(depths: Sequence[int]) -> list[int]:
    count = len(depths)
    if count <= _MOST_IN_LEGEND:
        return list(depths)
    step = (count - 1) / (_MOST_IN_LEGEND - 1)
    return [depths[round(step * place)] for place in range(_MOST_IN_LEGEND)]
