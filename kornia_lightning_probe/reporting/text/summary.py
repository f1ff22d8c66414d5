"""A result's numbers as a text table for a terminal of 100 columns."""

from __future__ import annotations

import math
from collections.abc import Iterator

from kornia_lightning_probe.reporting.text.clean import clean_text, is_of_clean_images
from kornia_lightning_probe.reporting.text.equivariance import COLUMNS, equivariance_text
from kornia_lightning_probe.reporting.text.moving import moving_text
from kornia_lightning_probe.reporting.text.severity import severity_text
from kornia_lightning_probe.reporting.text.table import BLANK_BAR, bar, named, number, side_by_side, wrapped
from kornia_lightning_probe.results.lookup import ProbeNumbers, shown_metric
from kornia_lightning_probe.results.tables import pick_layers

MOST_LISTED = 10
_FEW = 3


def summary_text(numbers: ProbeNumbers, *, max_layers: int | None = 40) -> str:
    """Lay a result out: sensitivity as a table of layers x augmentations, equivariance, the others in a line each.

    Args:
        numbers: The result.
        max_layers: The most layers in the table, picked evenly by depth; None shows all. What isn't shown is said.

    Returns:
        The text, no line longer than 100 characters, without a line break at its end.
    """
    parts = [_head(numbers)]
    if is_of_clean_images(numbers):
        parts += clean_text(numbers, max_layers=max_layers)
    elif numbers.metrics:
        parts += _of_views(numbers, max_layers)
    remarks = [wrapped(f"note: {note}") for note in numbers.metadata.notes]
    remarks += _left_out(numbers)
    if remarks:
        parts.append("\n".join(remarks))
    return "\n\n".join(parts)


def _of_views(numbers: ProbeNumbers, max_layers: int | None) -> Iterator[str]:
    metric = _shown(numbers)
    yield _title(numbers, metric)
    yield from _table(numbers, metric, max_layers)
    yield "\n".join(_notes(numbers, metric, max_layers))
    yield from severity_text(numbers, metric, max_layers=max_layers)
    equivariance = list(equivariance_text(numbers, max_layers=max_layers))
    yield from equivariance
    already = {metric}
    if equivariance:
        already |= set(COLUMNS[1:])
    others = [_one_line(numbers, name) for name in numbers.metrics if name not in already]
    if others:
        yield "\n".join(["other metrics, mean over the views", *others])


def _shown(numbers: ProbeNumbers) -> str:
    """The metric that is shown where it has a value, else the first metric that has one."""
    first = shown_metric(numbers.metrics)
    with_value = [name for name in (first, *numbers.metrics) if not numbers.tensor(name).isnan().all()]
    return with_value[0] if with_value else first


def _head(numbers: ProbeNumbers) -> str:
    images = numbers.metadata.num_images
    if images is None:
        counts = [int(table.num_images.max()) for table in numbers.tables.values() if table.value.numel()]
        images = max(counts, default=0)
    where = f", {numbers.metadata.device}" if numbers.metadata.device else ""
    views = "" if is_of_clean_images(numbers) else f" x {len(numbers.views)} views"
    return f"{images} images{views} x {len(numbers.layers)} layers, {numbers.when}{where}"


def _title(numbers: ProbeNumbers, metric: str) -> str:
    table = numbers.table(metric)
    meaning = table.quantity.meaning
    lines = [wrapped(f"{metric} ({meaning})" if meaning else metric)]
    moving = moving_text(numbers, metric)
    if moving:
        lines.append(wrapped(moving))
    errors = table.std_error[~table.std_error.isnan()]
    if errors.numel():
        lines.append(f"standard error: median {errors.median():.3f}, largest {errors.max():.3f}")
    return "\n".join(lines)


def _table(numbers: ProbeNumbers, metric: str, max_layers: int | None) -> Iterator[str]:
    scale = numbers.table(metric).scale
    layers: list[str | None] = [*pick_layers(numbers.table(metric).layers, max_layers), None]
    names = named("layer", [layer or "all layers" for layer in layers])
    left = [f"{names[0]}  {'mean':>5} {BLANK_BAR}"]
    for name, layer in zip(names[1:], layers, strict=True):
        mean = numbers.value(metric, layer)
        left.append(f"{name}  {number(mean):>5} {bar(mean, scale)}")
    columns: list[tuple[str, list[str]]] = []
    for augmentation in numbers.augmentations:
        means = [numbers.value(metric, layer, augmentation) for layer in layers]
        columns.append((augmentation, [number(mean) for mean in means]))
    yield from side_by_side(left, columns, again=names)


def _notes(numbers: ProbeNumbers, metric: str, max_layers: int | None) -> Iterator[str]:
    yield "all layers: the mean without input; every augmentation: the mean over its severities"
    layers = len(numbers.table(metric).layers)
    if max_layers is not None and layers > max_layers:
        yield f"{max_layers} of {layers} layers are shown, evenly by depth; `summary(max_layers=None)` shows all"
    ladders: list[str] = []
    for name in numbers.augmentations:
        severities = [f"{view.severity:g}" for view in numbers.views if view.augmentation == name]
        ladders.append(f"{name} {', '.join(severities)}")
    yield wrapped(f"severities: {'; '.join(ladders)}")
    if numbers.tensor(metric).isnan().any():
        yield "-: no value (a dead layer, or the metric does not apply); means skip it"


def _one_line(numbers: ProbeNumbers, metric: str) -> str:
    values = {layer: numbers.value(metric, layer) for layer in numbers.table(metric).layers}
    if len(values) <= _FEW:
        each = [f"{layer} {number(value)}" for layer, value in values.items()]
        return wrapped(f"  {metric}: {', '.join(each)}")
    found = {layer: value for layer, value in values.items() if not math.isnan(value)}
    if not found:
        return f"  {metric}: no value at any of {len(values)} layers"
    low = min(found, key=found.__getitem__)
    high = max(found, key=found.__getitem__)
    ends = f"from {number(found[low])} ({low}) to {number(found[high])} ({high})"
    return wrapped(f"  {metric}: {number(numbers.value(metric))}, {ends}")


def _left_out(numbers: ProbeNumbers) -> list[str]:
    reasons = numbers.metadata.left_out
    lines = [wrapped(f"left out: {name}: {reason}") for name, reason in reasons.items()]
    if len(lines) <= MOST_LISTED:
        return lines
    return [*lines[:MOST_LISTED], f"left out: {len(lines) - MOST_LISTED} more, in .metadata['left_out']"]
