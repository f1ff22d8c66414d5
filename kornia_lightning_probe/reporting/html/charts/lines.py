"""Curves of the chosen augmentation over the training and over severity, a line for each layer."""

from __future__ import annotations

from typing import Any

import altair as alt

from kornia_lightning_probe.reporting.html.charts.look import (
    CURVES,
    KNOWN,
    TIME,
    between,
    depth_colour,
    named,
    time_axis,
    tips,
    where,
    whole,
)
from kornia_lightning_probe.reporting.html.numbers import PageNumbers

_UNDER = "datum.k == augmentation"
_IS_CHOSEN = "datum.j == layer"


def curves_chart(numbers: PageNumbers) -> dict[str, Any]:
    """The means over levels of each result; a line marks the result that is chosen."""
    # Results without a time go by their names.
    label = "whens[datum.value]" if numbers.axis == "result" else TIME
    x = alt.X(
        "place:Q",
        title=numbers.axis,
        axis=time_axis(numbers.places, label),
        scale=alt.Scale(domain=[numbers.places[0], numbers.places[-1]], nice=False, zero=False),
    )
    data = alt.Chart(alt.NamedData(name="means")).transform_filter(_UNDER)
    data = data.transform_calculate(place="places[datum.e]")
    here = data.transform_filter(f"datum.e == when && {_IS_CHOSEN}").mark_rule(strokeDash=[3, 3], color="#888")
    lines = _lines(data, x, numbers, view=False)
    return whole(alt.layer(here.encode(x=x), *lines).properties(**CURVES), numbers, "Value over the training")


def severity_chart(numbers: PageNumbers) -> dict[str, Any]:
    """The views of the chosen result; where severities are no curve, points without a line."""
    data = alt.Chart(alt.NamedData(name="levels")).transform_filter(f"{_UNDER} && datum.e == when")
    reach = between("reaches[augmentation][0]", "reaches[augmentation][1]")
    x = alt.X("x:Q", title=None, axis=alt.Axis(grid=False), scale=alt.Scale(domain=reach))
    lines = _lines(data, x, numbers, line="datum.o == 1", view=True)
    # An axis can't be called by an expression, a chart can.
    title = alt.Title(text=alt.expr("severities[augmentation]"), orient="bottom", anchor="middle", offset=4)
    chart = alt.layer(*lines).properties(**CURVES, title=title)
    return whole(chart, numbers, "Value over severity")


def _lines(data: Any, x: Any, numbers: PageNumbers, *, line: str = "true", view: bool) -> list[Any]:
    """A line and a band of two errors for each layer, the chosen one thick; a missing value breaks its line."""
    data = named(data).transform_calculate(
        low="isValid(datum.y) && isValid(datum.s) ? datum.y - 2 * datum.s : null",
        high="isValid(datum.y) && isValid(datum.s) ? datum.y + 2 * datum.s : null",
    )
    colour = depth_colour(len(numbers.layers))
    # Where no value is to be shown, an axis would have no ends.
    ends = between("heights[metric][augmentation][0]", "heights[metric][augmentation][1]")
    height = alt.Scale(domain=ends, nice=True)
    y = alt.Y("y:Q", title=None, scale=height)
    low = alt.Y("low:Q", title=None, scale=height)
    joined = data.transform_filter(line)
    bands = joined.mark_area().encode(x=x, y=low, y2="high:Q", color=colour, opacity=where(_IS_CHOSEN, 0.35, 0.08))
    thick = {"strokeWidth": where(_IS_CHOSEN, 4, 1.2), "opacity": where(_IS_CHOSEN, 1, 0.75)}
    points = data.transform_filter(KNOWN).mark_point(filled=True)
    size = where(_IS_CHOSEN, 70, 20)
    return [
        bands,
        joined.mark_line().encode(x=x, y=y, color=colour, **thick),
        points.encode(x=x, y=y, color=colour, size=size, opacity=alt.value(1), tooltip=tips(view=view)),
    ]
