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
    measured = {name: table for name, table in numbers.tables.items() if table.attempted.any()}
    columns = {name: table for name, table in measured.items() if len(table.layers) > 1}
    meanings = {name: table.quantity.meaning for name, table in columns.items()}
    meant = [wrapped(f"{name}: {meaning}") for name, meaning in meanings.items() if meaning]
    if meant:
        yield "\n".join(meant)
    if columns:
        yield from _table(columns, max_layers)
    lines = [_line(name, table) for name, table in measured.items() if name not in columns]
    waiting = [name for name in numbers.metrics if name not in measured]
    if waiting:
        lines.append(f"{listed(waiting)}: nothing to compare with yet")
    if lines:
        yield "\n".join(wrapped(line) for line in lines)


def _line(metric: str, table: MetricTable) -> str:
    meaning = f" ({table.quantity.meaning})" if table.quantity.meaning else ""
    (layer,) = table.layers
    return f"{metric}: {layer} {number(_value(table, layer))}{meaning}"


def _table(columns: dict[str, MetricTable], max_layers: int | None) -> Iterator[str]:
    known: list[str] = []
    for table in columns.values():
        known += table.layers
    known = list(dict.fromkeys(known))
    layers = pick_layers(known, max_layers)
    cells = {name: [_value(table, layer) for layer in layers] for name, table in columns.items()}
    texts: list[tuple[str, list[str]]] = []
    for name, values in cells.items():
        scale = columns[name].scale
        texts.append((name, [f"{number(value):>5} {bar(value, scale)}" for value in values]))
    rows = named("layer", layers)
    yield from side_by_side(rows, texts, again=rows)
    if len(layers) < len(known):
        yield f"{len(layers)} of {len(known)} layers are shown, evenly by depth; `summary(max_layers=None)` shows all"
    if any(math.isnan(value) for values in cells.values() for value in values):
        yield "-: no value (a dead layer, or the metric does not apply)"


def _value(table: MetricTable, layer: str) -> float:
    if layer not in table.layers:
        return math.nan
    return float(table.value[0, table.layers.index(layer)])
