"""Several runs in one page: what their charts and their table show, beside each other."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from kornia_lightning_probe.reporting.html.gathered import Probed
from kornia_lightning_probe.reporting.html.wording import with_error
from kornia_lightning_probe.results.lookup import ProbeNumbers, shown_metric
from kornia_lightning_probe.results.tables import pick_layers

_MOST_LAYERS = 40
# Of the output, means over all views: a line of the table each.
_ALSO = ("accuracy", "accuracy_drop", "flip_rate")

_Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class RunNumbers:
    """The runs of a page, each the results of a probe.

    Args:
        metric: what is shown.
        names: of the runs.
        layers: of all of them, by depth.
        augmentations: likewise.
        rows: of the latest results: run, layer and augmentation, value and error of the mean over levels.
        curves: run, epoch, value and error of the mean over all views at the embedding.
        ends: of the colours.
        heads: of the table's columns.
        table: a row for each run.
    """

    metric: str
    names: Sequence[str]
    layers: Sequence[str]
    augmentations: Sequence[str]
    rows: _Rows
    curves: _Rows
    ends: tuple[float, float]
    heads: Sequence[str]
    table: Sequence[Sequence[str]]


def run_numbers(probes: Sequence[Probed]) -> RunNumbers | None:
    """Lay runs out side by side: the probes of the stage that most of them have; None for less than two."""
    shown = [probed for probed in probes if not probed.is_drift]
    if not shown:
        return None
    stage = Counter(probed.stage for probed in shown).most_common(1)[0][0]
    metric = shown_metric(shown[0].latest.metrics)
    runs = [probed for probed in shown if probed.stage == stage and metric in probed.latest.tables]
    if len(runs) < 2:
        return None
    latest = [probed.latest for probed in runs]
    layers = pick_layers(_by_depth(latest, metric), _MOST_LAYERS)
    names = chain.from_iterable(numbers.augmentations for numbers in latest)
    augmentations = list(dict.fromkeys(names))
    rows: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    for place, probed in enumerate(runs):
        rows += _rows(place, probed.latest, metric, layers, augmentations)
        curves += _curve(place, probed, metric)
    values = [row["y"] for row in rows if row["y"] is not None]
    lowest = 0.0 if latest[0].table(metric).quantity.range[0] >= 0 else min(0.0, *values)
    measured = set(chain.from_iterable(numbers.metrics for numbers in latest))
    also = [name for name in _ALSO if name in measured]
    return RunNumbers(
        metric=metric,
        names=[probed.title for probed in runs],
        layers=layers,
        augmentations=augmentations,
        rows=rows,
        curves=curves,
        ends=(lowest, max([lowest + 1e-9, *values])),
        heads=["run", "model", "probed epochs", "embedding", f"{metric} at first", "now", *also],
        table=[list(_line(probed, metric, also)) for probed in runs],
    )


def _by_depth(results: Sequence[ProbeNumbers], metric: str) -> list[str]:
    depths: dict[str, int] = {}
    for numbers in results:
        for layer in numbers.table(metric).layers:
            # What only one run has in front of a layer stands in front of it.
            depths[layer] = max(numbers.layer_index(layer), depths.get(layer, 0))
    return sorted(depths, key=depths.__getitem__)


def _rows(
    place: int, numbers: ProbeNumbers, metric: str, layers: Sequence[str], augmentations: Sequence[str]
) -> Iterator[dict[str, Any]]:
    places = {name: number for number, name in enumerate(augmentations)}
    for layer in numbers.table(metric).layers:
        if layer in layers:
            for name in numbers.augmentations:
                value = numbers.value(metric, layer, name)
                error = numbers.std_error(metric, layer, name)
                where = {"r": place, "j": layers.index(layer), "k": places[name]}
                yield {**where, "y": _rounded(value), "s": _rounded(error)}


def _curve(place: int, probed: Probed, metric: str) -> Iterator[dict[str, Any]]:
    # Of several probes in an epoch the last one.
    of_epochs = {numbers.epoch: numbers for numbers in probed.results if metric in numbers.tables}
    for epoch, numbers in of_epochs.items():
        layer = _embedding(numbers, metric)
        value, error = numbers.value(metric, layer), numbers.std_error(metric, layer)
        yield {"r": place, "x": epoch, "y": _rounded(value), "s": _rounded(error)}


def _embedding(numbers: ProbeNumbers, metric: str) -> str:
    """The embedding, or the last layer that the metric has."""
    layers = numbers.table(metric).layers
    inner = [layer for layer in layers if layer in numbers.layers]
    embedding = numbers.metadata.embedding
    return embedding if embedding in layers else (inner or layers)[-1]


def _line(probed: Probed, metric: str, also: Sequence[str]) -> Iterator[str]:
    latest = probed.latest
    layer = _embedding(latest, metric)
    yield probed.title
    yield probed.model or "-"
    yield str(probed.num_epochs)
    yield layer
    first = probed.baseline
    if first is None or metric not in first.tables or layer not in first.table(metric).layers:
        yield "-"
    else:
        yield with_error(first.value(metric, layer), first.std_error(metric, layer))
    yield with_error(latest.value(metric, layer), latest.std_error(metric, layer))
    for name in also:
        if name in latest.tables:
            yield with_error(latest.value(name), latest.std_error(name))
        else:
            yield "-"


def _rounded(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None
