"""A result's severity curves as a text table: for each layer and augmentation the area and the onset."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from kornia_lightning_probe.reporting.text.table import named, side_by_side, wrapped
from kornia_lightning_probe.results.lookup import ProbeNumbers
from kornia_lightning_probe.results.severity import THRESHOLD, SeverityRow, severity_rows
from kornia_lightning_probe.results.tables import MetricTable, pick_layers
from kornia_lightning_probe.wording import listed

MOST_CURVES = 8
MOST_LISTED = 10


def severity_text(numbers: ProbeNumbers, metric: str, *, max_layers: int | None) -> Iterator[str]:
    """Lay out each curve that has two points at least, and the curves that are worst before their end.

    Args:
        numbers: The result.
        metric: The metric; without a known value at the identity there is nothing to say.
        max_layers: The most rows, picked evenly by depth, and never more than eight; None shows all.

    Yields:
        The table, in one or more texts of several lines, and a line on early worst levels.
    """
    table = numbers.table(metric)
    every = severity_rows(numbers, metric)
    most = None if max_layers is None else min(MOST_CURVES, max_layers)
    layers = pick_layers(table.layers, most)
    rows = [row for row in every if row.start < row.end and numbers.is_curve(row.augmentation)]
    if table.quantity.at_identity is not None and rows:
        yield from _curves_text(table, metric, rows, layers)
    for augmentation in numbers.augmentations:
        if not numbers.is_curve(augmentation):
            found = [row for row in every if row.augmentation == augmentation and row.layer in layers]
            yield from _extremes_text(found, len(numbers.views_of(augmentation)))


def _curves_text(table: MetricTable, metric: str, rows: Sequence[SeverityRow], layers: Sequence[str]) -> Iterator[str]:
    few = ""
    if len(layers) < len(table.layers):
        few = f" ({len(layers)} of {len(table.layers)} layers)"
    cells = {(row.layer, row.augmentation): _curve(row) for row in rows}
    columns: dict[str, list[str]] = {}
    for augmentation in dict.fromkeys(row.augmentation for row in rows):
        columns[augmentation] = [cells.get((layer, augmentation), "-") for layer in layers]
    names = named("area, onset", layers)
    first, *others = side_by_side(names, columns.items(), again=names)
    title = f"severity curves{few}: area under {metric} over its range; onset, where it passes {THRESHOLD:g}"
    yield f"{wrapped(title)}\n{first}"
    yield from others
    early = [row for row in rows if row.layer in layers and row.worst_severity < row.end]
    if early:
        places = [f"{row.layer} at {row.augmentation} {row.worst_severity:g}" for row in early]
        yield wrapped(f"worst before the highest severity: {listed(places, most=MOST_LISTED)}")


def _extremes_text(rows: Sequence[SeverityRow], num_views: int) -> Iterator[str]:
    """What takes the place of a curve where severities are none: each image at its own worst."""
    told = [f"{row.layer} {row.worst:.3g}" for row in rows if math.isfinite(row.worst)]
    if told:
        yield wrapped(f"{rows[0].augmentation}, each image at its own worst of {num_views} views: {', '.join(told)}")


def _curve(row: SeverityRow) -> str:
    area = "-" if math.isnan(row.area) else f"{row.area:.3g}"
    onset = row.onset_text.replace(" ", "")
    return f"{area} {onset:>6}"
