"""The charts of a page as Vega-Lite specifications; each is one chart of its own, so that no two share a colour scale.

Names and numbers come from the page's data, never from the text of an expression: what a layer is called is not code.
The choice (metric, result, layer, augmentation) is four parameters, which the page sets; it hands each chart the rows
of the chosen metric, as the datasets "means" and "levels".
"""

from __future__ import annotations

from typing import Any

from kornia_lightning_probe.reporting.html.charts.drift import drift_charts
from kornia_lightning_probe.reporting.html.charts.heat import change_chart, now_chart
from kornia_lightning_probe.reporting.html.charts.lines import curves_chart, severity_chart
from kornia_lightning_probe.reporting.html.charts.runs import run_charts
from kornia_lightning_probe.reporting.html.numbers import PageNumbers

__all__ = ["charts_of", "drift_charts", "run_charts"]


def charts_of(numbers: PageNumbers) -> dict[str, dict[str, Any]]:
    """The specifications by name: "now", "severity", and where there is something to compare "change" and "curves"."""
    found = {"now": now_chart(numbers)}
    if any(cells.has_changes for cells in numbers.cells):
        found["change"] = change_chart(numbers)
    if len(numbers.results) > 1:
        found["curves"] = curves_chart(numbers)
    found["severity"] = severity_chart(numbers)
    return found
