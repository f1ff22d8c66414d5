"""`compare`: what has changed between two saved results, and whether that is more than a test allows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kornia_lightning_probe.cli.files import one_result
from kornia_lightning_probe.cli.telling import ABOVE, FINE, CommandError, remark, say
from kornia_lightning_probe.result import Comparison, ProbeResult, ProbeRow
from kornia_lightning_probe.results.comparing.comparison import ROUNDING, ComparisonRow
from kornia_lightning_probe.results.tables import INPUT
from kornia_lightning_probe.wording import counted, unknown

_MOST_SHOWN = 5


def compare(given: Any) -> int:
    """Compare two results; the exit status says whether a metric has grown by more than is allowed.

    Args:
        given: first, second, fail_above, errors, metric.
    """
    allowed = [_allowed(text) for text in given.fail_above]
    if not (math.isfinite(given.errors) and given.errors > 0):
        raise CommandError(f"--errors must be a positive number of standard errors, got {given.errors}")
    first, second = one_result(Path(given.first)), one_result(Path(given.second))
    comparison = first.result.compare(second.result)
    lines = [f"from {first.path} to {second.path}", comparison.summary(given.metric)]
    status = FINE
    for metric, change in allowed:
        refuse_lost(first.result, second.result, metric)
        above = cells_above(comparison, metric, change=change, errors=given.errors)
        lines += _told(metric, change, above)
        if above:
            status = ABOVE
    # Only now: what can't be judged is an error without half an answer in front.
    for line in lines:
        say(line)
    return status


def _allowed(text: str) -> tuple[str, float]:
    """A metric, and by how much it may grow.

    Raises:
        CommandError: where it is no METRIC=CHANGE.
    """
    metric, _, number = text.partition("=")
    try:
        change = float(number)
    except ValueError:
        change = math.nan
    if not (metric and math.isfinite(change)):
        raise CommandError(f"--fail-above takes METRIC=CHANGE such as sensitivity=0.05, got {text!r}")
    return metric, change


def refuse_lost(first: ProbeResult, second: ProbeResult, metric: str) -> None:
    """Refuse a second result that tried to measure what the first has a value for, and has none: NaN is no pass.

    Raises:
        CommandError: with the first such cell.
    """
    valued = {_place(row) for row in first.rows if row.metric == metric and math.isfinite(row.value)}
    for row in second.rows:
        if row.metric == metric and not math.isfinite(row.value) and _place(row) in valued:
            raise CommandError(
                f"--fail-above {metric}: the second result has no value at layer {row.layer} under {row.augmentation} "
                f"{row.severity:g}, where the first has one, so it can't be judged"
            )


def _place(row: ProbeRow) -> tuple[str, str, float]:
    return row.layer, row.augmentation, row.severity


def cells_above(comparison: Comparison, metric: str, *, change: float, errors: float) -> list[ComparisonRow]:
    """The cells in which a metric has grown by more than is allowed, beyond error, the furthest above first.

    A cell is a layer under an augmentation, as a mean over its levels or at one of them. The pixels are no part of a
    model.

    Args:
        comparison: of two results.
        metric: the metric's name.
        change: what is allowed.
        errors: a change is beyond error where it is above that by more than so many standard errors.

    Raises:
        CommandError: where the metric isn't in both results, or has no error at any cell.
    """
    if metric not in comparison.metrics:
        named = unknown("metric", metric, comparison.metrics, place="comparison")
        raise CommandError(f"--fail-above {metric}: {named}")
    cells = [row for row in (*comparison.rows, *comparison.view_rows) if row.metric == metric and row.layer != INPUT]
    known = [row for row in cells if not math.isnan(row.std_error)]
    if not known:
        raise CommandError(f"--fail-above {metric}: its standard error isn't known at any cell, so it can't be judged")
    if len(known) < len(cells):
        unknown_errors = counted(len(cells) - len(known), "cell")
        remark(f"note: {metric} has no standard error at {unknown_errors}, not judged")
    above = [row for row in known if row.change - change > max(errors * row.std_error, _rounding(row))]
    return sorted(above, key=lambda row: row.change, reverse=True)


def _rounding(row: ComparisonRow) -> float:
    """What two runs of one model may differ by."""
    return ROUNDING * max(abs(row.first), abs(row.second))


def _told(metric: str, change: float, above: Iterable[ComparisonRow]) -> Iterator[str]:
    rows = list(above)
    if not rows:
        yield f"passed: {metric} is nowhere more than {change:g} above the first, beyond error"
        return
    yield f"FAILED: {metric} is more than {change:g} above the first, beyond error, at {counted(len(rows), 'cell')}"
    for row in rows[:_MOST_SHOWN]:
        size = f"{row.change:+.4f} ± {row.std_error:.4f}"
        yield f"  {cell(row)}: {size} (from {row.first:.4f} to {row.second:.4f})"
    if len(rows) > _MOST_SHOWN:
        yield f"  and {len(rows) - _MOST_SHOWN} more"


def cell(row: ComparisonRow) -> str:
    """Where a row is, as a text: `layer conv1 under rotation 15`."""
    where = f"layer {row.layer} under {row.augmentation}"
    if row.level is None:
        return f"{where} (mean of its levels)"
    return f"{where} {row.severity:g}"
