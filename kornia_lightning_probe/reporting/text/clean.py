"""A result on clean images alone, such as a drift, as a text: a column for each metric, no views and no severities."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kornia_lightning_probe.reporting.text.table import bar, named, number, side_by_side, wrapped
from kornia_lightning_probe.results.tables import CLEAN, pick_layers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kornia_lightning_probe.result import ProbeResult

MEANING = {
    "cka_previous": "debiased CKA with the previous probe, 1: the same up to rotation and scale",
    "cka_first": "debiased CKA with the first probe",
    "rankme": "how many directions the images spread over",
}


def is_of_clean_images(result: ProbeResult) -> bool:
    """Whether all that was looked at are the clean images."""
    return set(result.views) == {CLEAN}


def clean_text(result: ProbeResult, *, max_layers: int | None = 40) -> Iterator[str]:
    """Lay out a result on clean images: layers x metrics; a line for each metric of a single layer.

    Args:
        result: The result.
        max_layers: The most rows, picked evenly by depth; None shows all.

    Yields:
        What each metric means, the table, and lines on what has no value yet.
    """
    measured = [name for name in result.metrics if result.table(name).attempted.any()]
    single = [name for name in measured if len(result.table(name).layers) == 1]
    columns = [name for name in measured if name not in single]
    meanings = [wrapped(f"{name}: {MEANING[name]}") for name in columns if name in MEANING]
    if meanings:
        yield "\n".join(meanings)
    if columns:
        yield from _table(result, columns, max_layers)
    lines = [_line(result, name) for name in single]
    waiting = [name for name in result.metrics if name not in measured]
    if waiting:
        lines.append(f"{', '.join(waiting)}: nothing to compare with yet")
    if lines:
        yield "\n".join(map(wrapped, lines))


def _line(result: ProbeResult, metric: str) -> str:
    (layer,) = _layers(result, metric)
    meaning = f" ({MEANING[metric]})" if metric in MEANING else ""
    return f"{metric}: {layer} {number(result.value(metric, layer))}{meaning}"


def _table(result: ProbeResult, columns: list[str], max_layers: int | None) -> Iterator[str]:
    known = list(dict.fromkeys(layer for name in columns for layer in _layers(result, name)))
    layers = pick_layers(known, max_layers)
    rows = named("layer", layers)
    cells = {name: [_value(result, name, layer) for layer in layers] for name in columns}
    yield from side_by_side(
        rows, ((name, [f"{number(value):>5} {bar(value)}" for value in cells[name]]) for name in columns), again=rows
    )
    if len(layers) < len(known):
        yield f"{len(layers)} of {len(known)} layers are shown, evenly by depth; `summary(max_layers=None)` shows all"
    if any(math.isnan(value) for column in cells.values() for value in column):
        yield "-: no value (a dead layer, or the metric does not apply)"


def _layers(result: ProbeResult, metric: str) -> tuple[str, ...]:
    return result.table(metric).layers


def _value(result: ProbeResult, metric: str, layer: str) -> float:
    return result.value(metric, layer) if layer in _layers(result, metric) else math.nan
