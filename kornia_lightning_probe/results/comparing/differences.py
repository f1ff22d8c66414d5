"""What two results don't have in common, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kornia_lightning_probe.results.lookup import ProbeNumbers
from kornia_lightning_probe.wording import listed


def left_out(first: ProbeNumbers, second: ProbeNumbers) -> Iterator[str]:
    """Sentences on the views, layers and metrics that only one of two results has."""
    yield from _only_in("first", first, second)
    yield from _only_in("second", second, first)


def common_embedding(first: ProbeNumbers, second: ProbeNumbers) -> str | None:
    """The layer that both call the embedding; None where they differ or have none."""
    if first.metadata.embedding != second.metadata.embedding:
        return None
    return first.metadata.embedding


def _only_in(which: str, ours: ProbeNumbers, theirs: ProbeNumbers) -> Iterator[str]:
    views_there = {view.key for view in theirs.views}
    for view in ours.views:
        if view.key not in views_there:
            yield f"view {view.label}: only in the {which} result"
    layers_there = set(all_layers(theirs))
    for layer in all_layers(ours):
        if layer not in layers_there:
            yield f"layer {layer}: only in the {which} result"
    for metric in ours.metrics:
        yield from _metric_only_in(which, metric, ours, theirs, layers_there)


def _metric_only_in(
    which: str, metric: str, ours: ProbeNumbers, theirs: ProbeNumbers, layers_there: set[str]
) -> Iterator[str]:
    if metric not in theirs.tables:
        yield f"metric {metric}: only in the {which} result"
        return
    measured_there = set(theirs.tables[metric].layers)
    for layer in ours.tables[metric].layers:
        if layer in layers_there and layer not in measured_there:
            yield f"{metric} at layer {layer}: only in the {which} result"


def banks_differ(first: ProbeNumbers, second: ProbeNumbers) -> Iterator[str]:
    """Sentences on augmentations that go by one name and differ, or were drawn under other seeds."""
    banks = [numbers.metadata.bank or {} for numbers in (first, second)]
    seeds = [bank.get("seed") for bank in banks]
    if None not in seeds and seeds[0] != seeds[1]:
        yield f"the banks' seeds differ ({seeds[0]}, {seeds[1]}); the errors don't cover the augmentations' draw"
    ours, theirs = (_transforms(bank) for bank in banks)
    for name, text in ours.items():
        if theirs.get(name, text) != text:
            yield f"{name} is not the same augmentation in both results"


def _transforms(bank: Mapping[str, Any]) -> dict[str, str]:
    """By augmentation and severity what does it, as a text."""
    found: dict[str, str] = {}
    for view in bank.get("views", ()):
        name = f"{view['augmentation']} {view['severity']:g}"
        found[name] = view["transform"]
    return found


def what_each_has(first: ProbeNumbers, second: ProbeNumbers) -> str:
    """What each of two results has, as a text."""
    return f"the first has {_what_it_has(first)}; the other has {_what_it_has(second)}"


def _what_it_has(numbers: ProbeNumbers) -> str:
    views = listed(view.label for view in numbers.views)
    metrics, layers = listed(numbers.metrics), listed(all_layers(numbers))
    return f"the views {views}, the metrics {metrics} and the layers {layers}"


def all_layers(numbers: ProbeNumbers) -> list[str]:
    """The chosen layers, and the others that a metric has."""
    names = list(numbers.layers)
    for table in numbers.tables.values():
        names += table.layers
    return list(dict.fromkeys(names))
