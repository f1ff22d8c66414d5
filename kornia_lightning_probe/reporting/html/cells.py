"""One metric's numbers of several results as columns of small whole numbers: most of a page's bytes are these.

A cell is a layer under an augmentation. Columns hold a number for each result and cell, and those of single views for
each view of the cell's augmentation, too; `page.js` makes rows of them again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kornia_lightning_probe.functional.influence import combined_error
from kornia_lightning_probe.reporting.text.verdict import is_decided
from kornia_lightning_probe.results.comparing.comparison import ComparisonRow
from kornia_lightning_probe.results.lookup import ProbeNumbers
from kornia_lightning_probe.results.tables import MetricTable, ViewInfo

#: The columns of a mean over the levels of an augmentation: value, error, change, its error, whether that is decided,
#: and how many levels have no value.
MEANS = ("y", "s", "c", "t", "d", "q")
#: The columns of a view: value and error.
LEVELS = ("y", "s")
# Where one unit for a whole column would leave fewer digits than these to half of its numbers, each keeps its own four.
_FEWEST_STEPS = 100
# Of a column's largest number; of errors two to three digits are enough.
_STEPS = {"s": 200, "t": 200}
_MOST_STEPS = 2000

Changes = Mapping[tuple[str, str, str], ComparisonRow]
_Column = list[float | None]
_Key = tuple[str, int, float]


class Names(NamedTuple):
    """The names that cells count.

    Attributes:
        layers: by depth.
        augmentations: in the bank's order.
        views: by augmentation its views, by ascending severity.
    """

    layers: Sequence[str]
    augmentations: Sequence[str]
    views: Sequence[Sequence[ViewInfo]]


@dataclass(frozen=True)
class MetricCells:
    """The numbers of one metric.

    Args:
        results: the places of the results that it is shown of.
        cells: of each cell the places of its layer and its augmentation.
        means: by column of `MEANS` a number for each result and cell; None where there is none.
        levels: by column of `LEVELS` a number for each result, cell and view.
        start: what the metric reads where nothing moves; None where that is not known.
    """

    results: Sequence[int]
    cells: Sequence[tuple[int, int]]
    means: Mapping[str, _Column]
    levels: Mapping[str, _Column]
    start: float | None

    @property
    def has_changes(self) -> bool:
        """Whether a change since the baseline is known of any cell."""
        return any(change is not None for change in self.means["c"])

    def packed(self) -> dict[str, Any]:
        """Plain data in few bytes."""
        return {
            "results": self.results,
            "cells": self.cells,
            "start": self.start,
            "means": {name: packed_column(column, name) for name, column in self.means.items()},
            "levels": {name: packed_column(column, name) for name, column in self.levels.items()},
        }


def cells_of(
    metric: str, results: Mapping[int, ProbeNumbers], names: Names, changes: Mapping[int, Changes]
) -> MetricCells:
    """Lay a metric's numbers out.

    Args:
        metric: the metric's name.
        results: those that have it and are shown, by their places.
        names: what is shown.
        changes: by result's place its changes since the baseline.
    """
    means: dict[tuple[int, int, int], Sequence[float | None]] = {}
    levels: dict[tuple[int, int, int, _Key], Sequence[float | None]] = {}
    for place, numbers in results.items():
        found = _Found(numbers, metric, names)
        means |= {(place, *cell): row for cell, row in found.means(changes.get(place, {}))}
        levels |= {(place, *key): row for key, row in found.levels()}
    cells = sorted({(layer, name) for _, layer, name in means})
    shown = [(place, *cell) for place, cell in product(results, cells)]
    of_views = list(_with_views(shown, names))
    table = list(results.values())[-1].table(metric)
    return MetricCells(
        results=list(results),
        cells=cells,
        means=_columns(MEANS, [means.get(key, (None,) * 4 + (0, 0)) for key in shown]),
        levels=_columns(LEVELS, [levels.get(key, (None, None)) for key in of_views]),
        start=table.quantity.at_identity,
    )


class _Found:
    """One result's numbers of a metric, by cell."""

    def __init__(self, numbers: ProbeNumbers, metric: str, names: Names) -> None:
        self.numbers = numbers
        self.metric = metric
        self.table = numbers.table(metric)
        layers = {name: place for place, name in enumerate(names.layers)}
        self.columns = [(column, layers[name]) for column, name in enumerate(self.table.layers) if name in layers]
        places = {name: place for place, name in enumerate(names.augmentations)}
        self.groups = [(places[name], numbers.views_of(name)) for name in numbers.augmentations]

    def means(self, changes: Changes) -> Iterator[tuple[tuple[int, int], list[float | None]]]:
        """The means over the levels of each augmentation, where the metric applies."""
        value, error, missing = _means_of(self.table, [views for _, views in self.groups])
        rows = [part.tolist() for part in (value, error, missing, self._attempted())]
        for column, layer in self.columns:
            for row, (name, _) in enumerate(self.groups):
                y, s, q, is_tried = (part[row][column] for part in rows)
                if is_tried:
                    key = (self.metric, self.table.layers[column], self.numbers.augmentations[row])
                    yield (layer, name), [_finite(y), _finite(s), *_change(changes.get(key)), int(q)]

    def levels(self) -> Iterator[tuple[tuple[int, int, _Key], list[float | None]]]:
        """Each view's value and error, where the metric applies."""
        rows = [part.tolist() for part in (self.table.value, self.table.std_error)]
        for column, layer in self.columns:
            for name, views in self.groups:
                for view in views:
                    numbers = [_finite(part[view][column]) for part in rows]
                    yield (layer, name, _key(self.numbers.views[view])), numbers

    def _attempted(self) -> Tensor:
        return torch.stack([self.table.attempted[views].any(0) for _, views in self.groups])


def _key(view: ViewInfo) -> _Key:
    return view.augmentation, view.level, view.severity


def _with_views(cells: Sequence[tuple[int, int, int]], names: Names) -> Iterator[tuple[int, int, int, _Key]]:
    """Each view of each cell."""
    for place, layer, name in cells:
        for view in names.views[name]:
            yield place, layer, name, _key(view)


def _columns(names: Sequence[str], rows: Sequence[Sequence[float | None]]) -> dict[str, _Column]:
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    return {name: list(column) for name, column in zip(names, columns, strict=True)}


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


def _change(row: ComparisonRow | None) -> list[float | None]:
    if row is None:
        return [None, None, 0]
    return [_finite(row.change), _finite(row.std_error), int(is_decided(row))]


def _finite(value: float) -> float | None:
    """The number; None for what is not finite, which JSON has no number for."""
    return value if math.isfinite(value) else None


def packed_column(column: Sequence[float | None], name: str = "y") -> dict[str, Any]:
    """A column as whole numbers and what they are to be divided by; as one number where all are the same.

    Example:
        >>> packed_column([0.5, None, 0.25])
        {'per': 10000, 'numbers': [5000, None, 2500]}
        >>> packed_column([0, 0, 0])
        {'same': 0}
        >>> packed_column([1.0, 1e-3, 2e-5, 0.5e-5])  # one unit for all would leave half of them no digits
        {'per': 1, 'numbers': [1.0, 0.001, 2e-05, 5e-06]}
    """
    if len(set(column)) <= 1:
        return {"same": column[0] if column else None}
    sizes = [abs(value) for value in column if value]
    if not sizes:
        return {"per": 1, "numbers": list(column)}
    steps = _STEPS.get(name, _MOST_STEPS)
    exponent = math.ceil(math.log10(steps / max(sizes)))
    per = 10.0**exponent
    if median(sizes) * per < _FEWEST_STEPS and name not in _STEPS:
        return {"per": 1, "numbers": [_four_digits(value) for value in column]}
    whole = int(per) if exponent >= 0 else per
    return {"per": whole, "numbers": [None if value is None else round(value * per) for value in column]}


def _four_digits(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
