"""A chart for each reference of a drift probe: how alike each layer is to itself, over the training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import altair as alt

from kornia_lightning_probe.reporting.html.charts.look import CURVES, KNOWN, depth_colour, specification, time_axis
from kornia_lightning_probe.reporting.html.naming import short_names
from kornia_lightning_probe.results.lookup import ProbeNumbers


def drift_charts(results: Sequence[ProbeNumbers]) -> dict[str, dict[str, Any]]:
    """The specifications by metric; their rows are in them."""
    found: dict[str, dict[str, Any]] = {}
    for metric in results[-1].metrics:
        if metric.startswith("cka_"):
            found[metric] = _drift(results, metric)
    return found


def _drift(results: Sequence[ProbeNumbers], metric: str) -> dict[str, Any]:
    having = [numbers for numbers in results if metric in numbers.tables]
    names = chain.from_iterable(numbers.table(metric).layers for numbers in having)
    layers = list(dict.fromkeys(names))
    x = alt.X(
        "x:Q",
        title="epoch",
        axis=time_axis([numbers.epoch for numbers in having]),
        scale=alt.Scale(nice=False, zero=False),
    )
    tips = [alt.Tooltip("layer:N"), alt.Tooltip("when:N"), alt.Tooltip("y:Q", format=".3f", title="CKA")]
    when = "datum.x < 0 ? 'before training' : 'epoch ' + datum.x"
    base = alt.Chart(alt.NamedData(name="drift")).transform_calculate(layer="layer_names[datum.j]", when=when)
    base = base.encode(x=x, y=alt.Y("y:Q", title="CKA"), color=depth_colour(len(layers)))
    points = base.transform_filter(KNOWN).mark_point(filled=True, size=30).encode(tooltip=tips)
    chart = alt.layer(base.mark_line(), points).properties(**CURVES)
    known = {"layer_names": layers, "layer_labels": short_names(layers)[0]}
    spec = specification(chart, metric, known)
    spec["datasets"] = {"drift": _rows(having, metric, layers)}
    return spec


def _rows(results: Sequence[ProbeNumbers], metric: str, layers: Sequence[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for numbers in results:
        table = numbers.table(metric)
        for column, layer in enumerate(table.layers):
            value = float(table.value[0, column])
            known = round(value, 4) if math.isfinite(value) else None
            rows.append({"x": numbers.epoch, "j": layers.index(layer), "y": known})
    return rows
