"""A result on clean images alone, such as a drift, as a text: a column for each metric, no views and no severities."""

from __future__ import annotations

import math
from collections.abc import Iterator

from kornia_lightning_probe.reporting.text.table import bar, named, number, side_by_side, wrapped
from kornia_lightning_probe.results.lookup import ProbeNumbers
from kornia_lightning_probe.results.tables import CLEAN, MetricTable, pick_layers
from kornia_lightning_probe.wording import listed


def is_of_clean_images(numbers: ProbeNumbers) -> bool:
    """Whether all that was looked at are the clean images."""
    return set(numbers.views) == {CLEAN}


def clean_text(numbers: ProbeNumbers, *, max_layers: int | None = 40) -> Iterator[str]:
    """Lay out a result on clean images: layers x metrics; a line for each metric of a single layer.

    Args:
        numbers: The result.
        max_layers: The most rows, picked evenly by depth; None shows all.

    Yields:
        What each metric means, the table, and lines on what has no value yet.
    """
    waiting = [name for name, table in numbers.tables.items() if not table.attempted.any()]
    measured = {name: table for name, table in numbers.tables.items() if name not in waiting}
    columns = {name: table for name, table in measured.items() if len(table.layers) > 1}
    if columns:
        yield from _meanings(columns)
        yield from _table(columns, max_layers)
    lines = [_line(name, table) for name, table in measured.items() if name not in columns]
    if waiting:
        lines.append(f"{listed(waiting)}: nothing to compare with yet")
    if lines:
        yield "\n".join(wrapped(line) for line in lines)


def _meanings(columns: dict[str, MetricTable]) -> Iterator[str]:
    meanings = {name: table.quantity.meaning for name, table in columns.items()}
    lines = [wrapped(f"{name}: {meaning}") for name, meaning in meanings.items() if meaning]
    if lines:
        yield "\n".join(lines)


def _line(metric: str, table: MetricTable) -> str:
    (layer,) = table.layers
    text = f"{metric}: {layer} {number(_value(table, layer))}"
    if table.quantity.meaning:
        text += f" ({table.quantity.meaning})"
    return text


def _table(columns: dict[str, MetricTable], max_layers: int | None) -> Iterator[str]:
    known: dict[str, None] = {}
    for table in columns.values():
        known |= dict.fromkeys(table.layers)
    layers = pick_layers(list(known), max_layers)
    texts: dict[str, list[str]] = {}
    has_gap = False
    for name, table in columns.items():
        values = [_value(table, layer) for layer in layers]
        texts[name] = [f"{number(value):>5} {bar(value, table.scale)}" for value in values]
        has_gap |= any(math.isnan(value) for value in values)
    rows = named("layer", layers)
    yield from side_by_side(rows, texts.items(), again=rows)
    if len(layers) < len(known):
        yield f"{len(layers)} of {len(known)} layers are shown, evenly by depth; `summary(max_layers=None)` shows all"
    if has_gap:
        yield "-: no value (a dead layer, or the metric does not apply)"


def _value(table: MetricTable, layer: str) -> float:
    if layer not in table.layers:
        return math.nan
    column = table.layers.index(layer)
    return float(table.value[0, column])
