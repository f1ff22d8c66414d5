"""The numbers of a page by metric, the names that they count, and what a reader is told of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from kornia_lightning_probe.quantity import Quantity
from kornia_lightning_probe.reporting.html.cells import Changes, MetricCells, Names, cells_of
from kornia_lightning_probe.reporting.html.gathered import Probed
from kornia_lightning_probe.reporting.text.table import decimals
from kornia_lightning_probe.results.comparing.comparison import compare_numbers
from kornia_lightning_probe.results.lookup import ProbeNumbers, shown_metric
from kornia_lightning_probe.results.tables import MetricTable, ViewInfo, pick_layers
from kornia_lightning_probe.wording import counted

MOST_RESULTS = 24
MOST_LAYERS = 40
# Numbers of single views, all metrics but the first together: about a megabyte of a page.
_ROOM = 50_000
_FEWEST_RESULTS = 4
# Larger numbers are told in whole ones.
_LARGE = 100


@dataclass(frozen=True)
class PageNumbers:
    """Everything that the charts of one probe draw.

    Args:
        results: those that are shown, oldest first.
        metrics: the names, what is shown first in front.
        names: the layers, augmentations and views.
        places: where each result stands on the axis of time.
        whens: each result's time as a word.
        axis: what the axis of time counts: "epoch", "step", or "result" where neither tells them apart.
        cells: by metric its numbers.
        ends: by metric the ends of its colours, and the widest change.
        heights: by metric and augmentation the ends of the values' axis, errors included.
        reaches: by augmentation the lowest and the highest severity.
        severities: by augmentation what the axis of severity is called.
        formats: by metric how a number is written in a cell.
        meanings: by metric what it says of itself.
        directions: by metric what it means that it rises, and that it falls.
        shown_layer: the place of the layer that is chosen at first: the embedding, else the last one.
        shown_augmentation: that of the augmentation that is chosen at first: what moves that layer most.
        not_shown: sentences on what is left out to keep the page small.
    """

    results: Sequence[ProbeNumbers]
    metrics: Sequence[str]
    names: Names
    places: Sequence[int]
    whens: Sequence[str]
    axis: str
    cells: Sequence[MetricCells]
    ends: Sequence[tuple[float, float, float]]
    heights: Sequence[Sequence[tuple[float, float]]]
    reaches: Sequence[tuple[float, float]]
    severities: Sequence[str]
    formats: Sequence[str]
    meanings: Sequence[str]
    directions: Sequence[tuple[str, str]]
    shown_layer: int
    shown_augmentation: int
    not_shown: Sequence[str]

    @property
    def layers(self) -> Sequence[str]:
        """The names of the layers, by depth."""
        return self.names.layers

    @property
    def augmentations(self) -> Sequence[str]:
        """The names of the augmentations."""
        return self.names.augmentations


def page_numbers(probed: Probed) -> PageNumbers:
    """Lay the results of a probe out for its charts.

    Where there are many, results and layers are picked evenly, the first and the last among them.
    """
    picked = _picked(len(probed.results), MOST_RESULTS)
    results = [probed.results[place] for place in picked]
    axis = _axis(results)
    metrics = _metrics(results)
    every_layer = _layers(results)
    names = _names(results, every_layer)
    most = _most_of_others(results, metrics)
    cells = _cells(results, metrics, names, most, probed.baseline)
    ends = [_ends(_quantity(results, metric), each) for metric, each in zip(metrics, cells, strict=True)]
    layer = _shown_layer(results[-1], names.layers, cells[0])
    return PageNumbers(
        results=results,
        metrics=metrics,
        names=names,
        places=_places(results, axis),
        whens=_whens(probed, picked, axis),
        axis=axis,
        cells=cells,
        ends=ends,
        heights=[_heights(each, names) for each in cells],
        reaches=[_reach(views) for views in names.views],
        severities=[_severity(views) for views in names.views],
        formats=[_format(high, low) for low, high, _ in ends],
        meanings=[_meaning(results, metric) for metric in metrics],
        directions=[_directions(_quantity(results, metric)) for metric in metrics],
        shown_layer=layer,
        shown_augmentation=_moves_most(cells[0], layer),
        not_shown=list(_not_shown(probed, results, every_layer, names, len(metrics) - 1, most)),
    )


def _cells(
    results: Sequence[ProbeNumbers], metrics: Sequence[str], names: Names, most: int, baseline: ProbeNumbers | None
) -> list[MetricCells]:
    """The numbers of each metric, those behind the first at so many results at most."""
    held: dict[str, dict[int, ProbeNumbers]] = {}
    for metric in metrics:
        having = [place for place, numbers in enumerate(results) if metric in numbers.tables]
        if metric != metrics[0]:
            having = [having[place] for place in _picked(len(having), most)]
        held[metric] = {place: results[place] for place in having}
    changes: dict[int, Changes] = {}
    for place, numbers in enumerate(results):
        # A comparison takes most of the time that a page takes.
        shown = [metric for metric in metrics if place in held[metric]]
        changes[place] = _changes(baseline, numbers, shown)
    return [cells_of(metric, held[metric], names, changes) for metric in metrics]


def _names(results: Sequence[ProbeNumbers], every_layer: Sequence[str]) -> Names:
    views: dict[str, dict[tuple[int, float], ViewInfo]] = {}
    for numbers in reversed(results):
        for view in numbers.views:
            views.setdefault(view.augmentation, {}).setdefault((view.level, view.severity), view)
    ascending = [sorted(of.values(), key=lambda view: view.severity) for of in views.values()]
    return Names(_pick_layers(every_layer, results[-1].metadata.embedding), list(views), ascending)


def _pick_layers(layers: Sequence[str], embedding: str | None) -> list[str]:
    """At most 40 layers, evenly by depth, the embedding among them."""
    if len(layers) <= MOST_LAYERS or embedding not in layers:
        return pick_layers(layers, MOST_LAYERS)
    picked = {embedding, *pick_layers(layers, MOST_LAYERS - 1)}
    return [layer for layer in layers if layer in picked]


def _most_of_others(results: Sequence[ProbeNumbers], metrics: Sequence[str]) -> int:
    """How many results there is room for of each metric but the first."""
    tables = [_table(results, metric) for metric in metrics[1:]]
    each = sum(len(table.value) * min(len(table.layers), MOST_LAYERS) for table in tables)
    return max(_FEWEST_RESULTS, _ROOM // max(each, 1))


def _changes(baseline: ProbeNumbers | None, numbers: ProbeNumbers, metrics: Sequence[str]) -> Changes:
    if baseline is None or baseline is numbers:
        return {}
    try:
        rows = compare_numbers(_only(baseline, metrics), _only(numbers, metrics)).rows
    except ValueError:
        # They have nothing in common, as where a resumed training has other layers or another bank.
        return {}
    return {(row.metric, row.layer, row.augmentation): row for row in rows}


def _only(numbers: ProbeNumbers, metrics: Sequence[str]) -> ProbeNumbers:
    """A result without its other metrics."""
    return ProbeNumbers(
        layers=numbers.layers,
        views=numbers.views,
        tables={name: table for name, table in numbers.tables.items() if name in metrics},
        epoch=numbers.epoch,
        step=numbers.step,
        metadata=numbers.metadata,
        images=numbers.images,
    )


def _picked(count: int, most: int) -> list[int]:
    """At most so many places, evenly, the first and the last among them."""
    places = [str(place) for place in range(count)]
    return [int(place) for place in pick_layers(places, most)]


def _metrics(results: Sequence[ProbeNumbers]) -> list[str]:
    every = chain.from_iterable(numbers.metrics for numbers in reversed(results))
    names = list(dict.fromkeys(every))
    shown = shown_metric(names)
    return [shown, *(name for name in names if name != shown)]


def _layers(results: Sequence[ProbeNumbers]) -> list[str]:
    depths: dict[str, int] = {}
    for numbers in reversed(results):
        for table in numbers.tables.values():
            for layer in table.layers:
                depths.setdefault(layer, numbers.layer_index(layer))
    return sorted(depths, key=depths.__getitem__)


def _axis(results: Sequence[ProbeNumbers]) -> str:
    """What tells results apart: their epoch, else their step, else only their order."""
    for axis in ("epoch", "step"):
        if len({getattr(numbers, axis) for numbers in results}) == len(results):
            return axis
    return "result"


def _places(results: Sequence[ProbeNumbers], axis: str) -> list[int]:
    if axis == "result":
        return list(range(len(results)))
    return [getattr(numbers, axis) for numbers in results]


def _whens(probed: Probed, picked: Sequence[int], axis: str) -> list[str]:
    """Each result's time as a word, or its name."""
    found: list[str] = []
    for place in picked:
        numbers = probed.results[place]
        when = numbers.when
        if axis == "epoch" and numbers.epoch >= 0 and (when or len(picked) > 1):
            when = f"epoch {numbers.epoch}"
        if probed.labels and (axis == "result" or not when):
            when = probed.labels[place]
        found.append(when or f"result {place + 1}")
    return found


def _ends(quantity: Quantity, cells: MetricCells) -> tuple[float, float, float]:
    """The lowest and highest colour of a metric over all results, and its widest change."""
    values = [value for value in cells.means["y"] if value is not None]
    changes = [abs(change) for change in cells.means["c"] if change is not None]
    lowest = 0.0 if quantity.range[0] >= 0 else min(values, default=0.0)
    highest = max(values, default=1.0)
    if highest <= lowest:
        highest = lowest + 1.0
    return min(lowest, 0.0), highest, max(changes, default=0.0) or 1.0


def _heights(cells: MetricCells, names: Names) -> list[tuple[float, float]]:
    # An axis that would look for its ends in no values at all warns on the console.
    found = [(0.0, 0.0)] * len(names.augmentations)
    of_cells = [[name] * len(names.views[name]) for _, name in cells.cells]
    under = list(chain.from_iterable(of_cells)) * len(cells.results)
    for name, value, error in zip(under, cells.levels["y"], cells.levels["s"], strict=True):
        if value is not None:
            reach = 2 * (error or 0.0)
            low, high = found[name]
            found[name] = (min(low, value - reach), max(high, value + reach))
    return [_apart(*ends) for ends in found]


def _reach(views: Sequence[ViewInfo]) -> tuple[float, float]:
    severities = [view.severity for view in views if math.isfinite(view.severity)]
    return _apart(min([0.0, *severities]), max([0.0, *severities]))


def _apart(low: float, high: float) -> tuple[float, float]:
    """The ends of an axis, which must not be one number."""
    return (_short(low), _short(high)) if high > low else (low, low + 1.0)


def _short(number: float) -> float:
    return float(f"{number:.5g}")


def _severity(views: Sequence[ViewInfo]) -> str:
    """What the axis of severities is called: with their unit, where it is one and known."""
    units = {view.unit for view in views}
    if len(units) != 1 or "" in units:
        return "severity"
    return f"severity ({units.pop()})"


def _format(high: float, low: float) -> str:
    largest = max(abs(high), abs(low))
    return ".3~s" if largest >= _LARGE else f".{decimals([largest])}f"


def _shown_layer(numbers: ProbeNumbers, layers: Sequence[str], cells: MetricCells) -> int:
    embedding = numbers.metadata.embedding
    if embedding in layers:
        return layers.index(embedding)
    return max((layer for layer, _ in cells.cells), default=len(layers) - 1)


def _moves_most(cells: MetricCells, layer: int) -> int:
    """The augmentation under which the last result is largest at a layer; the first where that isn't known."""
    last = cells.means["y"][-len(cells.cells) :] if cells.cells else []
    of_layer = [(value, name) for (j, name), value in zip(cells.cells, last, strict=True) if j == layer]
    known = [(value, name) for value, name in of_layer if value is not None]
    return max(known, default=(0.0, 0))[1]


def _directions(quantity: Quantity) -> tuple[str, str]:
    """What it means that a metric rises and falls: away from what it reads where nothing moves, or towards it."""
    if quantity.at_identity is not None and quantity.at_identity == quantity.range[0]:
        return "moves more", "moves less"
    if quantity.at_identity is not None and quantity.at_identity == quantity.range[1]:
        return "moves less", "moves more"
    return "rises", "falls"


def _table(results: Sequence[ProbeNumbers], metric: str) -> MetricTable:
    return next(numbers.table(metric) for numbers in reversed(results) if metric in numbers.tables)


def _quantity(results: Sequence[ProbeNumbers], metric: str) -> Quantity:
    return _table(results, metric).quantity


def _meaning(results: Sequence[ProbeNumbers], metric: str) -> str:
    quantity = _quantity(results, metric)
    unit = f" ({quantity.unit})" if quantity.unit else ""
    return f"{quantity.meaning}{unit}"


def _not_shown(
    probed: Probed, shown: Sequence[ProbeNumbers], layers: Sequence[str], names: Names, others: int, most: int
) -> Iterator[str]:
    if len(shown) < len(probed.results):
        yield f"{len(shown)} of {len(probed.results)} results are shown, picked evenly; probe.json holds all"
    if len(names.layers) < len(layers):
        yield f"{len(names.layers)} of {len(layers)} layers are shown, picked evenly by depth; probe.json holds all"
    if others and most < len(shown):
        yield (
            f"to keep the page small, {counted(others, 'other metric')} can be chosen at {most} of {len(shown)} "
            "results only, picked evenly, the first and the last among them; probe.json holds all"
        )
