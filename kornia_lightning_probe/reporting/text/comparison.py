"""A comparison's changes as a text table for a terminal of 100 columns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from kornia_lightning_probe.reporting.text.table import decimals, named, side_by_side, wrapped
from kornia_lightning_probe.reporting.text.verdict import comparison_verdict
from kornia_lightning_probe.results.comparing.comparison import ComparisonNumbers, ComparisonRow
from kornia_lightning_probe.results.lookup import shown_metric

MOST_LISTED = 10


def comparison_text(comparison: ComparisonNumbers, metric: str | None = None) -> str:
    """Lay a comparison out: one metric as a table of layers x augmentations, the others in a line each.

    Args:
        comparison: The comparison.
        metric: The metric of the table; None takes sensitivity, or else the first, and gives a line to each other.

    Returns:
        The text, no line longer than 100 characters, without a line break at its end.
    """
    if metric is None and not comparison.rows:
        return "\n\n".join([f"nothing to compare: {comparison.title}", _remarks(comparison)])
    chosen = metric or shown_metric(comparison.metrics)
    rows = comparison.rows_of(chosen)
    parts = ["\n".join(map(wrapped, comparison_verdict(comparison).splitlines()))] if metric is None else []
    parts.append(f"change of {chosen}: {comparison.title}")
    parts += _table(rows)
    parts.append(_legend(rows, comparison.z_limit))
    others = [name for name in comparison.metrics if name != chosen]
    if metric is None and others:
        lines = [_one_line(name, comparison.rows_of(name)) for name in others]
        parts.append("\n".join(["other metrics", *lines]))
    parts.append(_remarks(comparison))
    return "\n\n".join(filter(None, parts))


def _table(rows: Sequence[ComparisonRow]) -> Iterator[str]:
    digits = decimals(row.change for row in rows)
    cells = {(row.layer, row.augmentation): _cell(row, digits) for row in rows}
    layers = dict.fromkeys(row.layer for row in rows)
    columns: dict[str, list[str]] = {}
    for augmentation in dict.fromkeys(row.augmentation for row in rows):
        # Where the metric does not apply there is no row.
        columns[f"{augmentation} "] = [cells.get((layer, augmentation), "- ") for layer in layers]
    names = named("layer", list(layers))
    return side_by_side(names, columns.items(), again=names)


def _remarks(comparison: ComparisonNumbers) -> str:
    remarks = [f"note: {note}" for note in comparison.notes]
    remarks += [f"left out: {sentence}" for sentence in comparison.left_out[:MOST_LISTED]]
    more = len(comparison.left_out) - MOST_LISTED
    if more > 0:
        remarks.append(f"left out: {more} more, in .left_out")
    return "\n".join(wrapped(remark) for remark in remarks)


def _legend(rows: Sequence[ComparisonRow], z_limit: float) -> str:
    known = [row for row in rows if not math.isnan(row.std_error)]
    by_chance = len(known) * math.erfc(z_limit / math.sqrt(2))
    return wrapped(
        f"*: beyond sampling error, more than {z_limit:g} standard errors: {_beyond(known)} "
        f"(about {by_chance:.1f} would be by chance)"
    )


def _beyond(rows: Sequence[ComparisonRow]) -> str:
    return f"{sum(row.beyond for row in rows)} of {len(rows)} cells"


def _cell(row: ComparisonRow, digits: int) -> str:
    mark = "*" if row.beyond else " "
    if math.isnan(row.change):
        return f"-{mark}"
    if abs(row.change) < 100:
        return f"{row.change:+.{digits}f}{mark}"
    return f"{row.change:+.3g}{mark}"


def _one_line(metric: str, rows: Sequence[ComparisonRow]) -> str:
    found = [row for row in rows if not math.isnan(row.change)]
    if not found:
        return f"  {metric}: no value in both results"
    known = [row for row in found if not math.isnan(row.std_error)]
    beyond = f"{_beyond(known)} beyond" if known else "no standard errors"
    largest = max(found, key=lambda row: abs(row.change))
    change = _cell(largest, decimals([largest.change])).strip()
    return wrapped(f"  {metric}: {beyond}; the largest change {change} ({largest.layer}, {largest.augmentation})")
