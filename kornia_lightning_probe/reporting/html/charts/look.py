"""What the charts have in common: their colours, what they know of names and of the choice, how time is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from kornia_lightning_probe.reporting.html.naming import short_names
from kornia_lightning_probe.reporting.html.numbers import PageNumbers

#: Of a chart of lines, whose width is that of its place in the page.
CURVES = {"width": "container", "height": 260}
#: Without the dark and the bright end, which vanish on a dark and a bright page.
DEPTHS = alt.SchemeParams(name="viridis", extent=[0.2, 0.9])
KNOWN = "isValid(datum.y)"
#: The label of a place on an axis of time.
TIME = "datum.value < 0 ? ['before', 'training'] : datum.label"
_MOST_IN_LEGEND = 10
_LONGEST_ACROSS = 18
_MOST_TICKS = 11


def whole(chart: Any, numbers: PageNumbers, description: str) -> dict[str, Any]:
    """The specification of a chart that knows the names and the choice."""
    lows, highs, widest = (list(ends) for ends in zip(*numbers.ends, strict=True))
    choice = {
        "metric": 0,
        "when": len(numbers.results) - 1,
        "layer": numbers.shown_layer,
        "augmentation": numbers.shown_augmentation,
    }
    names = {
        "layer_names": list(numbers.layers),
        "layer_labels": short_names(numbers.layers)[0],
        "augmentation_names": list(numbers.augmentations),
        "augmentation_labels": short_names(numbers.augmentations, _LONGEST_ACROSS)[0],
        "whens": list(numbers.whens),
        "heights": numbers.heights,
        "reaches": numbers.reaches,
        "severities": numbers.severities,
        "places": list(numbers.places),
        "formats": list(numbers.formats),
        "lows": lows,
        "highs": highs,
        "widest": widest,
        "rises": [rises for rises, _ in numbers.directions],
        "falls": [falls for _, falls in numbers.directions],
    }
    spec = specification(chart, description, names)
    spec["params"] += [{"name": name, "value": value} for name, value in choice.items()]
    return spec


def specification(chart: Any, description: str, names: dict[str, Any]) -> dict[str, Any]:
    """A chart as plain data, with those of the names that it asks for."""
    spec: dict[str, Any] = dressed(chart, description).to_dict()
    text = str(spec)
    spec["params"] = [{"name": name, "value": value} for name, value in names.items() if name in text]
    return spec


def dressed(chart: Any, description: str) -> Any:
    """Colours that are those of the page's text, in light, dark and print."""
    text = {"labelColor": "currentColor", "titleColor": "currentColor"}
    lines = {"domainColor": "#8888", "tickColor": "#8888", "gridColor": "#8883"}
    described = chart.properties(description=description, background="transparent")
    described = described.configure_axis(**text, **lines).configure_legend(**text).configure_header(**text)
    return described.configure_view(stroke=None).configure_title(color="currentColor", fontSize=11)


def named(data: Any) -> Any:
    """Data with what its places are called."""
    names = {
        "layer_name": "layer_names[datum.j]",
        "augmentation_name": "augmentation_names[datum.k]",
        "when_name": "whens[datum.e]",
    }
    return data.transform_calculate(**names)


def tips(*, view: bool) -> list[Any]:
    """What is said of a mark under the pointer: of a mean over levels, or of one view."""
    said = [
        alt.Tooltip("layer_name:N", title="layer"),
        alt.Tooltip("augmentation_name:N", title="augmentation"),
        alt.Tooltip("when_name:N", title="when"),
    ]
    value = [alt.Tooltip("y:Q", title="value", format=".3r"), alt.Tooltip("s:Q", title="standard error", format=".2r")]
    if view:
        return [*said, alt.Tooltip("x:Q", title="severity", format="~g"), *value]
    return [
        *said,
        *value,
        alt.Tooltip("c:Q", title="change", format="+.3r"),
        alt.Tooltip("t:Q", title="its standard error", format=".2r"),
        alt.Tooltip("q:Q", title="levels without a value"),
    ]


def depth_colour(layers: int) -> Any:
    """The colour of a layer's line, by depth, with a legend of at most ten, evenly."""
    return alt.Color(
        "j:O",
        scale=alt.Scale(domain=list(range(layers)), scheme=DEPTHS),
        legend=alt.Legend(
            title="layer",
            values=pick_evenly(range(layers), _MOST_IN_LEGEND),
            labelExpr="layer_labels[datum.value]",
            labelLimit=0,
            symbolType="square",
            symbolOpacity=1,
        ),
    )


def between(low: str, high: str) -> list[Any]:
    """The two ends of a scale, as expressions."""
    return [alt.expr(low), alt.expr(high)]


def where(test: str, then: Any, otherwise: Any) -> Any:
    """One value where a test holds, else another."""
    return alt.condition(test, alt.value(then), alt.value(otherwise))


def time_axis(places: Sequence[int], label: str = TIME) -> Any:
    """An axis with a tick at some of the results, and nowhere between them."""
    ticks = pick_evenly(sorted(set(places)), _MOST_TICKS)
    return alt.Axis(values=ticks, labelExpr=label, format="d", grid=False, labelOverlap="greedy")


def pick_evenly(places: Sequence[int], most: int) -> list[int]:
    """At most so many of some places, the first and the last among them."""
    count = len(places)
    if count <= most:
        return list(places)
    step = (count - 1) / (most - 1)
    return [places[round(step * place)] for place in range(most)]
