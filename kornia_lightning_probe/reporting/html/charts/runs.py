"""Several runs side by side: their latest values in one colour scale, and their embeddings over the training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from kornia_lightning_probe.reporting.html.charts.look import CURVES, KNOWN, between, specification, time_axis, where
from kornia_lightning_probe.reporting.html.naming import short_names
from kornia_lightning_probe.reporting.html.runs import RunNumbers

# The sides of a cell in pixels.
_WIDEST, _NARROWEST, _ALL = 44, 14, 300
_HIGHEST, _LOWEST, _DOWN = 22, 8, 360
_ROOM = (26, 13)
_BESIDE = 3
_LONGEST, _LONGEST_ACROSS = 22, 18


def run_charts(runs: RunNumbers) -> dict[str, dict[str, Any]]:
    """The specifications by name: "runs", and "run_curves" where a run has several results; their rows are in them."""
    found = {"runs": _heat(runs)}
    if any(row["x"] != runs.curves[0]["x"] for row in runs.curves):
        found["run_curves"] = _curves(runs)
    return found


def _heat(runs: RunNumbers) -> dict[str, Any]:
    across = min(_WIDEST, max(_NARROWEST, _ALL // len(runs.augmentations)))
    down = min(_HIGHEST, max(_LOWEST, _DOWN // len(runs.layers)))
    base = alt.Chart(alt.NamedData(name="runs")).transform_filter(KNOWN)
    base = base.transform_calculate(
        layer="layer_names[datum.j]", augmentation="augmentation_names[datum.k]", run="run_names[datum.r]"
    )
    tips = [
        alt.Tooltip("run:N"),
        alt.Tooltip("layer:N"),
        alt.Tooltip("augmentation:N"),
        alt.Tooltip("y:Q", title="value", format=".3r"),
        alt.Tooltip("s:Q", title="standard error", format=".2r"),
    ]
    x = alt.X(
        "k:O",
        title=None,
        axis=alt.Axis(labelExpr="augmentation_labels[datum.value]", labelAngle=-40, labelLimit=0),
    )
    y = alt.Y("j:O", title=None, axis=alt.Axis(labelExpr="layer_labels[datum.value]", labelLimit=0))
    scale = alt.Scale(scheme="viridis", domain=between("ends[0]", "ends[1]"))
    cells = base.mark_rect().encode(x=x, y=y, color=alt.Color("y:Q", title=None, scale=scale), tooltip=tips)
    layers = [cells]
    if across >= _ROOM[0] and down >= _ROOM[1]:
        bright = where("datum.y > ends[0] + 0.6 * (ends[1] - ends[0])", "black", "white")
        words = base.transform_calculate(text="format(datum.y, '.2f')").mark_text(fontSize=10)
        layers.append(words.encode(x=x, y=y, text="text:N", color=bright))
    sized = alt.layer(*layers).properties(width=alt.Step(across), height=alt.Step(down))
    header = alt.Header(labelExpr="run_names[datum.value]", labelFontSize=12, labelFontWeight="bold", labelLimit=320)
    chart = sized.facet(facet=alt.Facet("r:O", title=None, header=header), columns=_BESIDE)
    return _whole(chart, runs, "Value by layer and augmentation, a panel for each run", {"runs": runs.rows})


def _curves(runs: RunNumbers) -> dict[str, Any]:
    base = alt.Chart(alt.NamedData(name="curves")).transform_calculate(
        low="isValid(datum.s) && isValid(datum.y) ? datum.y - 2 * datum.s : null",
        high="isValid(datum.s) && isValid(datum.y) ? datum.y + 2 * datum.s : null",
        run="run_names[datum.r]",
        when="datum.x < 0 ? 'before training' : 'epoch ' + datum.x",
    )
    x = alt.X(
        "x:Q",
        title="epoch",
        axis=time_axis([row["x"] for row in runs.curves]),
        scale=alt.Scale(nice=False, zero=False),
    )
    legend = alt.Legend(title="run", labelExpr="run_names[datum.value]", labelLimit=240, symbolOpacity=1)
    scale = alt.Scale(domain=list(range(len(runs.names))), scheme="tableau10")
    colour = alt.Color("r:O", scale=scale, legend=legend)
    tips = [
        alt.Tooltip("run:N"),
        alt.Tooltip("when:N"),
        alt.Tooltip("y:Q", title="value", format=".3r"),
        alt.Tooltip("s:Q", title="standard error", format=".2r"),
    ]
    y = alt.Y("y:Q", title=None, scale=alt.Scale(zero=True))
    bands = base.mark_area(opacity=0.2).encode(x=x, y=alt.Y("low:Q", title=None), y2="high:Q", color=colour)
    lines = base.mark_line(strokeWidth=2).encode(x=x, y=y, color=colour)
    points = base.transform_filter(KNOWN).mark_point(filled=True, size=40, opacity=1)
    chart = alt.layer(bands, lines, points.encode(x=x, y=y, color=colour, tooltip=tips)).properties(**CURVES)
    return _whole(chart, runs, "The embedding over the training, a line for each run", {"curves": runs.curves})


def _whole(chart: Any, runs: RunNumbers, description: str, rows: dict[str, Sequence[Any]]) -> dict[str, Any]:
    names = {
        "run_names": list(runs.names),
        "layer_names": list(runs.layers),
        "layer_labels": short_names(runs.layers, _LONGEST)[0],
        "augmentation_names": list(runs.augmentations),
        "augmentation_labels": short_names(runs.augmentations, _LONGEST_ACROSS)[0],
        "ends": list(runs.ends),
    }
    spec = specification(chart, description, names)
    # Inside a chart values would be validated one by one.
    spec["datasets"] = rows
    return spec
