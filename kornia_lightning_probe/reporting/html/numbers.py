"""The numbers of a page as rows of plain data, and the names that the rows count."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kornia_lightning_probe.functional.influence import combined_error
from kornia_lightning_probe.quantity import Quantity
from kornia_lightning_probe.reporting.html.gathered import Probed
from kornia_lightning_probe.reporting.text.verdict import is_decided
from kornia_lightning_probe.results.comparing.comparison import ComparisonRow, compare_numbers
from kornia_lightning_probe.results.lookup import ProbeNumbers, shown_metric
from kornia_lightning_probe.results.tables import MetricTable, pick_layers

#: The columns of a mean over the levels of an augmentation: places of metric, result, layer and augmentation, value,
#: error, change, its error, whether that is decided, and how many levels have no value.
MEANS = ("m", "e", "j", "k", "y", "s", "c", "t", "d", "q")
#: The columns of a view's value: the four places, severity, value, error, and whether the severities are a curve.
LEVELS = ("m", "e", "j", "k", "x", "y", "s", "o")
MOST_RESULTS = 24
MOST_LAYERS = 40

_Changes = dict[tuple[str, str, str], ComparisonRow]


@dataclass(frozen=True)
class PageNumbers:
    """Everything that the charts of one probe draw.

    Args:
        results: those that are shown, oldest first.
        metrics: the names, what is shown first in front.
        layers: the names of the layers, by depth.
        augmentations: the names.
        places: where each result stands on the axis of time.
        whens: each result's time as a word.
        by_step: whether the axis of time counts steps and not epochs.
        means: rows of `MEANS`.
        levels: rows of `LEVELS`.
        ends: by metric the ends of its colours, and the widest change.
        heights: by metric and augmentation the ends of the values' axis, errors included.
        reaches: by augmentation the lowest and the highest severity.
        meanings: by metric what it says of itself.
        directions: by metric what it means that it rises, and that it falls.
        shown_layer: the place of the layer that is chosen at first: the embedding, else the last one.
        not_shown: sentences on what is left out to keep the page small.
    """

    results: Sequence[ProbeNumbers]
    metrics: Sequence[str]
    layers: Sequence[str]
    augmentations: Sequence[str]
    places: Sequence[int]
    whens: Sequence[str]
    by_step: bool
    means: Sequence[Sequence[float | None]]
    levels: Sequence[Sequence[float | None]]
    ends: Sequence[tuple[float, float, float]]
    heights: Sequence[Sequence[tuple[float, float]]]
    reaches: Sequence[tuple[float, float]]
    meanings: Sequence[str]
    directions: Sequence[tuple[str, str]]
    shown_layer: int
    not_shown: Sequence[str]


def page_numbers(probed: Probed) -> PageNumbers:
    """Lay the results of a probe out for its charts.

    Where there are many, results and layers are picked evenly, the first and the last among them.
    """
    results = _picked(probed.results)
    metrics = _metrics(results)
    every_layer = _layers(results)
    layers = pick_layers(every_layer, MOST_LAYERS)
    augmentations = list(dict.fromkeys(name for numbers in reversed(results) for name in numbers.augmentations))
    names = _Names(metrics, layers, augmentations)
    means: list[list[float | None]] = []
    levels: list[list[float | None]] = []
    for place, numbers in enumerate(results):
        changes = _changes(probed.baseline, numbers)
        for metric in numbers.metrics:
            means += names.means(numbers, metric, place, changes)
            levels += names.levels(numbers, metric, place)
    by_step = len({numbers.epoch for numbers in results}) < len(results)
    return PageNumbers(
        results=results,
        metrics=metrics,
        layers=layers,
        augmentations=augmentations,
        places=[numbers.step if by_step else numbers.epoch for numbers in results],
        whens=[_when(numbers, by_step=by_step) for numbers in results],
        by_step=by_step,
        means=means,
        levels=levels,
        ends=[_ends(results[-1].tables.get(name), means, place) for place, name in enumerate(metrics)],
        heights=_heights(levels, len(metrics), len(augmentations)),
        reaches=[_reach(results, name) for name in augmentations],
        meanings=[_meaning(results, metric) for metric in metrics],
        directions=[_directions(results, metric) for metric in metrics],
        shown_layer=_shown_layer(results[-1], layers),
        not_shown=list(_not_shown(probed.results, results, every_layer, layers)),
    )


class _Names:
    """The names that rows count, and the rows of one result and metric."""

    def __init__(self, metrics: Sequence[str], layers: Sequence[str], augmentations: Sequence[str]) -> None:
        self.metrics = {name: place for place, name in enumerate(metrics)}
        self.layers = {name: place for place, name in enumerate(layers)}
        self.augmentations = {name: place for place, name in enumerate(augmentations)}

    def means(self, numbers: ProbeNumbers, metric: str, place: int, changes: _Changes) -> Iterator[list[float | None]]:
        """The means over the levels of each augmentation, where the metric applies."""
        table = numbers.table(metric)
        groups = [numbers.views_of(name) for name in numbers.augmentations]
        value, error, missing = _means_of(table, groups)
        for column, layer in self._columns(table):
            for row, name in enumerate(numbers.augmentations):
                if not table.attempted[groups[row], column].any():
                    continue
                where = [self.metrics[metric], place, self.layers[layer], self.augmentations[name]]
                means = [_plain(value[row, column]), _plain(error[row, column])]
                change = _change(changes.get((metric, layer, name)))
                yield [*where, *means, *change, int(missing[row, column])]

    def levels(self, numbers: ProbeNumbers, metric: str, place: int) -> Iterator[list[float | None]]:
        """Each view's value, and the identity where severities begin there."""
        table = numbers.table(metric)
        start = table.quantity.at_identity
        for name in numbers.augmentations:
            views = numbers.views_of(name)
            on_curve = int(numbers.is_curve(name))
            from_identity = start is not None and all(numbers.views[view].from_identity for view in views)
            for column, layer in self._columns(table):
                if not table.attempted[views, column].any():
                    continue
                where = [self.metrics[metric], place, self.layers[layer], self.augmentations[name]]
                if from_identity and on_curve:
                    yield [*where, 0.0, start, 0.0, 1]
                for view in views:
                    values = [_plain(table.value[view, column]), _plain(table.std_error[view, column])]
                    yield [*where, _plain(numbers.views[view].severity), *values, on_curve]

    def _columns(self, table: MetricTable) -> list[tuple[int, str]]:
        return [(column, layer) for column, layer in enumerate(table.layers) if layer in self.layers]


def _means_of(table: MetricTable, groups: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Value, error and number of missing values of the means over groups of views, (G, L) each."""
    known = table.value.isfinite()
    member = torch.zeros(len(groups), len(known), 1, dtype=torch.float64)
    for row, group in enumerate(groups):
        member[row, list(group)] = 1.0
    chosen = member * known
    counts = chosen.sum(1)
    weights = chosen / counts.unsqueeze(1).clamp(min=1)
    value = torch.einsum("gvl,vl->gl", weights, table.value.masked_fill(~known, 0.0))
    value = torch.where(counts > 0, value, torch.nan)
    # All views show the same images: their errors are not independent.
    error = combined_error(weights, table.std_error, table.shares(range(len(known))))
    missing = (member * table.attempted).sum(1) - counts
    return value, torch.where(counts > 0, error, torch.nan), missing.clamp(min=0)


def _changes(baseline: ProbeNumbers | None, numbers: ProbeNumbers) -> _Changes:
    if baseline is None or baseline is numbers:
        return {}
    try:
        rows = compare_numbers(baseline, numbers).rows
    except ValueError:
        # They have nothing in common, as where a resumed training has other layers or another bank.
        return {}
    return {(row.metric, row.layer, row.augmentation): row for row in rows}


def _change(row: ComparisonRow | None) -> list[float | None]:
    if row is None:
        return [None, None, 0]
    return [_plain(row.change), _plain(row.std_error), int(is_decided(row))]


def _plain(number: Any) -> float | None:
    """Four digits; None for what is not finite, which JSON has no number for."""
    value = float(number)
    return float(f"{value:.4g}") if math.isfinite(value) else None


def _picked(results: Sequence[ProbeNumbers]) -> list[ProbeNumbers]:
    chosen = pick_layers([str(place) for place in range(len(results))], MOST_RESULTS)
    return [results[int(place)] for place in chosen]


def _metrics(results: Sequence[ProbeNumbers]) -> list[str]:
    names = list(dict.fromkeys(name for numbers in reversed(results) for name in numbers.metrics))
    shown = shown_metric(names)
    return [shown, *(name for name in names if name != shown)]


def _layers(results: Sequence[ProbeNumbers]) -> list[str]:
    depths: dict[str, int] = {}
    for numbers in reversed(results):
        for table in numbers.tables.values():
            for layer in table.layers:
                depths.setdefault(layer, numbers.layer_index(layer))
    return sorted(depths, key=depths.__getitem__)


def _when(numbers: ProbeNumbers, *, by_step: bool) -> str:
    if numbers.epoch < 0 or by_step:
        return numbers.when
    return f"epoch {numbers.epoch}"


def _ends(table: MetricTable | None, means: Sequence[Sequence[float | None]], place: int) -> tuple[float, float, float]:
    """The lowest and highest colour of a metric over all results, and its widest change."""
    rows = [row for row in means if row[0] == place]
    values = [row[4] for row in rows if row[4] is not None]
    changes = [abs(row[6]) for row in rows if row[6] is not None]
    lowest = min(values, default=0.0)
    if table is not None and table.quantity.range[0] >= 0:
        lowest = 0.0
    highest = max(values, default=1.0)
    if highest <= lowest:
        highest = lowest + 1.0
    return min(lowest, 0.0), highest, max(changes, default=0.0) or 1.0


def _heights(rows: Sequence[Sequence[float | None]], metrics: int, names: int) -> list[list[tuple[float, float]]]:
    # An axis that would look for its ends in no values at all warns on the console.
    found: list[list[tuple[float, float]]] = [[(0.0, 0.0)] * names for _ in range(metrics)]
    for metric, _, _, name, _, value, error, _ in rows:
        if value is not None and metric is not None and name is not None:
            reach = 2 * (error or 0.0)
            low, high = found[int(metric)][int(name)]
            found[int(metric)][int(name)] = (min(low, value - reach), max(high, value + reach))
    return [[ends if ends[1] > ends[0] else (ends[0], ends[0] + 1.0) for ends in row] for row in found]


def _reach(results: Sequence[ProbeNumbers], augmentation: str) -> tuple[float, float]:
    views = [view for numbers in results for view in numbers.views if view.augmentation == augmentation]
    severities = [view.severity for view in views if math.isfinite(view.severity)]
    low = min([0.0, *severities])
    high = max([0.0, *severities])
    return (low, high) if high > low else (low, low + 1.0)


def _shown_layer(numbers: ProbeNumbers, layers: Sequence[str]) -> int:
    embedding = numbers.metadata.embedding
    return layers.index(embedding) if embedding in layers else len(layers) - 1


def _directions(results: Sequence[ProbeNumbers], metric: str) -> tuple[str, str]:
    """What it means that a metric rises and falls: away from what it reads where nothing moves, or towards it."""
    quantity = _quantity(results, metric)
    if quantity.at_identity is not None and quantity.at_identity == quantity.range[0]:
        return "moves more", "moves less"
    if quantity.at_identity is not None and quantity.at_identity == quantity.range[1]:
        return "moves less", "moves more"
    return "rises", "falls"


def _quantity(results: Sequence[ProbeNumbers], metric: str) -> Quantity:
    return next(numbers.table(metric).quantity for numbers in reversed(results) if metric in numbers.tables)


def _meaning(results: Sequence[ProbeNumbers], metric: str) -> str:
    quantity = _quantity(results, metric)
    unit = f" ({quantity.unit})" if quantity.unit else ""
    return f"{quantity.meaning}{unit}"


def _not_shown(
    results: Sequence[ProbeNumbers], shown: Sequence[ProbeNumbers], layers: Sequence[str], shown_layers: Sequence[str]
) -> Iterator[str]:
    if len(shown) < len(results):
        yield f"{len(shown)} of {len(results)} results are shown, picked evenly; probe.json holds all"
    if len(shown_layers) < len(layers):
        yield f"{len(shown_layers)} of {len(layers)} layers are shown, picked evenly by depth; probe.json holds all"
