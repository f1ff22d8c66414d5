"""The tables and remarks of a page, which need no script: before and after, drift, what to know, metadata."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from kornia_lightning_probe.reporting.html.gathered import Probed
from kornia_lightning_probe.reporting.html.wording import fact_text, with_error
from kornia_lightning_probe.reporting.text.table import decimals
from kornia_lightning_probe.reporting.text.verdict import is_decided
from kornia_lightning_probe.results.comparing.comparison import compare_numbers
from kornia_lightning_probe.results.lookup import ProbeNumbers
from kornia_lightning_probe.results.tables import MetricTable
from kornia_lightning_probe.wording import ladder

# These have a place of their own.
_TOLD = ("left_out", "warnings", "warning_kinds", "notes", "noise_floor", "image_ids", "metrics_left_out", "grids")


def before_and_after(probed: Probed, metric: str) -> Iterator[list[str]]:
    """A row for each layer and augmentation: before, now and the change, with errors; a star where a level is missing.

    Yields:
        Layer, augmentation, before, now, change, and whether that is decided.
    """
    latest, baseline = probed.latest, probed.baseline
    changes = {} if baseline is None else _rows_of(baseline, latest, metric)
    table = latest.table(metric)
    digits = 1 + decimals(table.value.flatten().tolist())
    levels = {name: _levels(latest, name) for name in latest.augmentations}
    for layer in table.layers:
        for augmentation in latest.augmentations:
            row = changes.get((layer, augmentation))
            before, change, word = "", "", ""
            if row is not None and baseline is not None:
                before = _mean(baseline, metric, layer, augmentation, digits)
                change = with_error(row.change, row.std_error, sign="+", digits=digits)
                word = "decided" if is_decided(row) else "undecided"
            now = _mean(latest, metric, layer, augmentation, digits)
            yield [layer, levels[augmentation], before, now, change, word]


def drift_rows(latest: ProbeNumbers) -> Iterator[list[str]]:
    """A row for each layer and reference of a drift probe, in the columns of the other table."""
    for metric in latest.metrics:
        for layer in latest.table(metric).layers:
            value = with_error(latest.value(metric, layer), latest.std_error(metric, layer))
            yield [layer, metric, "", value, "", ""]


def remarks(latest: ProbeNumbers) -> Iterator[tuple[str, str]]:
    """What a reader should know: warnings, what was left out and why, the noise floor, notes."""
    metadata = latest.metadata
    yield from (("warning", sentence) for sentence in metadata.warnings)
    yield from (("left out", f"{name}: {why}") for name, why in metadata.left_out.items())
    yield from (("left out", f"{name}: {why}") for name, why in (metadata.metrics_left_out or {}).items())
    if metadata.noise_floor is not None:
        yield ("noise floor", f"two equal passes lie {metadata.noise_floor:.2g} apart, as a sensitivity")
    yield from (("note", sentence) for sentence in metadata.notes)


def facts(results: Sequence[ProbeNumbers]) -> Iterator[tuple[str, str]]:
    """Cost and metadata, a line each."""
    latest = results[-1].metadata
    seconds = [numbers.metadata.seconds for numbers in results if numbers.metadata.seconds is not None]
    if seconds:
        each = f", {seconds[-1]:.2g} s the last" if len(seconds) > 1 else ""
        yield ("cost", f"{sum(seconds):.3g} s in {len(seconds)} probes{each}")
    for name in latest:
        if name not in _TOLD:
            yield (name, fact_text(name, latest[name]))


def _rows_of(first: ProbeNumbers, second: ProbeNumbers, metric: str) -> dict[tuple[str, str], Any]:
    try:
        comparison = compare_numbers(first, second)
    except ValueError:
        return {}
    return {(row.layer, row.augmentation): row for row in comparison.rows if row.metric == metric}


def _levels(numbers: ProbeNumbers, augmentation: str) -> str:
    """An augmentation with its severities and their unit."""
    views = [numbers.views[place] for place in numbers.views_of(augmentation)]
    units = {view.unit for view in views}
    unit = units.pop() if len(units) == 1 else ""
    return ladder(augmentation, [view.severity for view in views], unit)


def _mean(numbers: ProbeNumbers, metric: str, layer: str, augmentation: str, digits: int) -> str:
    """The mean over an augmentation's levels, with a star where one of them has no value."""
    value = numbers.value(metric, layer, augmentation)
    text = with_error(value, numbers.std_error(metric, layer, augmentation), digits=digits)
    return f"{text} *" if _misses_a_level(numbers.table(metric), numbers, layer, augmentation) else text


def _misses_a_level(table: MetricTable, numbers: ProbeNumbers, layer: str, augmentation: str) -> bool:
    views = numbers.views_of(augmentation)
    column = table.layers.index(layer)
    values = table.value[views, column].tolist()
    tried = table.attempted[views, column].tolist()
    missing = [math.isnan(value) for value, was_tried in zip(values, tried, strict=True) if was_tried]
    return any(missing) and not all(missing)
