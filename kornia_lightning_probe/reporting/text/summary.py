"""A result's numbers as a text table for a terminal of 100 columns."""

from __future__ import annotations

import math
from collections.abc import Iterator

from kornia_lightning_probe.activations.site import OUTPUT
from kornia_lightning_probe.checks import whole_number
from kornia_lightning_probe.reporting.text.clean import clean_text, is_of_clean_images
from kornia_lightning_probe.reporting.text.equivariance import COLUMNS, equivariance_text
from kornia_lightning_probe.reporting.text.moving import moving_text
from kornia_lightning_probe.reporting.text.severity import severity_text
from kornia_lightning_probe.reporting.text.table import BLANK_BAR, bar, named, number, side_by_side, wrapped
from kornia_lightning_probe.reporting.text.verdict import verdict_text
from kornia_lightning_probe.results.lookup import ProbeNumbers, shown_metric
from kornia_lightning_probe.results.tables import pick_layers
from kornia_lightning_probe.wording import counted, ladder

MOST_LISTED = 10
_FEW = 3
_KINDS = {
    "logit": ", a logit of the second of two classes",
    "probability": ", a probability of the second of two classes",
}


def summary_text(numbers: ProbeNumbers, *, max_layers: int | None = 40, full: bool = False) -> str:
    """Lay a result out: the verdict, and sensitivity as a table of layers x augmentations.

    Args:
        numbers: The result.
        max_layers: The most layers in the table, picked evenly by depth; None shows all. What isn't shown is said.
        full: Whether severity curves, equivariance and a line for each other metric follow.

    Returns:
        The text, no line longer than 100 characters, without a line break at its end.

    Raises:
        ValueError: for less than one layer.
    """
    if max_layers is not None:
        whole_number("max_layers", max_layers, least=1)
    parts = ["\n".join([_head(numbers), *_output(numbers)])]
    if is_of_clean_images(numbers):
        parts += clean_text(numbers, max_layers=max_layers)
    elif numbers.metrics:
        parts += _of_views(numbers, max_layers, full=full)
    remarks = [wrapped(f"note: {note}") for note in numbers.metadata.notes]
    remarks += _left_out(numbers)
    if remarks:
        parts.append("\n".join(remarks))
    return "\n\n".join(parts)


def _of_views(numbers: ProbeNumbers, max_layers: int | None, *, full: bool) -> Iterator[str]:
    metric = _shown(numbers)
    verdict = verdict_text(numbers)
    if verdict:
        yield "\n".join(map(wrapped, verdict.splitlines()))
    yield _title(numbers, metric)
    yield from _table(numbers, metric, max_layers)
    yield "\n".join(_notes(numbers, metric, max_layers))
    if full:
        yield from _rest(numbers, metric, max_layers)
    else:
        others = len(numbers.metrics) - 1
        also = f"and {others} other metrics" if others else "and no other metric"
        yield f"severity curves, {also}: summary(full=True)"


def _rest(numbers: ProbeNumbers, metric: str, max_layers: int | None) -> Iterator[str]:
    """What the one table does not say."""
    yield from severity_text(numbers, metric, max_layers=max_layers)
    equivariance = list(equivariance_text(numbers, max_layers=max_layers))
    yield from equivariance
    already = {metric}
    if equivariance:
        already |= set(COLUMNS[1:])
    others = [_one_line(numbers, name) for name in numbers.metrics if name not in already]
    others += _beside_head_share(numbers)
    if others:
        yield "\n".join(["other metrics, mean over the views", *others])


def _shown(numbers: ProbeNumbers) -> str:
    """The metric that is shown where it has a value, else the first metric that has one."""
    first = shown_metric(numbers.metrics)
    with_value = [name for name in (first, *numbers.metrics) if not numbers.tensor(name).isnan().all()]
    return with_value[0] if with_value else first


def _head(numbers: ProbeNumbers) -> str:
    size = [counted(_num_images(numbers), "image")]
    if not is_of_clean_images(numbers):
        size.append(counted(len(numbers.views), "view"))
    size.append(counted(len(numbers.layers), "layer"))
    parts = [" x ".join(size)]
    if numbers.when:
        parts.append(numbers.when)
    if numbers.metadata.embedding:
        parts.append(f"embedding {numbers.metadata.embedding}")
    if numbers.metadata.device:
        parts.append(numbers.metadata.device)
    return ", ".join(parts)


def _output(numbers: ProbeNumbers) -> list[str]:
    """What of the output is measured as class scores, where that is a choice."""
    metadata = numbers.metadata
    kind = _KINDS.get(metadata.output_kind or "", "")
    if metadata.output is None or (metadata.output == OUTPUT and not kind):
        return []
    return [wrapped(f"class scores: {metadata.output}{kind}")]


def _num_images(numbers: ProbeNumbers) -> int:
    if numbers.metadata.num_images is not None:
        return numbers.metadata.num_images
    most = [int(table.num_images.max()) for table in numbers.tables.values() if table.num_images.numel()]
    return max(most, default=0)


def _title(numbers: ProbeNumbers, metric: str) -> str:
    table = numbers.table(metric)
    meaning = table.quantity.meaning
    lines = [f"{metric} ({meaning})" if meaning else metric]
    lines.append(moving_text(numbers, metric, most=len(numbers.views)))
    errors = table.std_error[~table.std_error.isnan()]
    if errors.numel():
        lines.append(f"standard error: median {errors.median():.3f}, largest {errors.max():.3f}")
    return "\n".join(wrapped(line) for line in lines if line)


def _table(numbers: ProbeNumbers, metric: str, max_layers: int | None) -> Iterator[str]:
    table = numbers.table(metric)
    layers: list[str | None] = [*pick_layers(table.layers, max_layers), None]
    names = named("layer", [layer or "all layers" for layer in layers])
    left = [f"{names[0]}  {'mean':>5} {BLANK_BAR}"]
    for name, layer in zip(names[1:], layers, strict=True):
        mean = numbers.value(metric, layer)
        left.append(f"{name}  {number(mean):>5} {bar(mean, table.scale)}")
    columns: dict[str, list[str]] = {}
    for augmentation in numbers.augmentations:
        means = [numbers.value(metric, layer, augmentation) for layer in layers]
        columns[augmentation] = [number(mean) for mean in means]
    yield from side_by_side(left, columns.items(), again=names)


def _notes(numbers: ProbeNumbers, metric: str, max_layers: int | None) -> Iterator[str]:
    yield "all layers: the mean without input; every augmentation: the mean over its severities"
    layers = len(numbers.table(metric).layers)
    if max_layers is not None and layers > max_layers:
        yield f"{max_layers} of {layers} layers are shown, evenly by depth; `summary(max_layers=None)` shows all"
    ladders: list[str] = []
    for name in numbers.augmentations:
        views = [view for view in numbers.views if view.augmentation == name]
        ladders.append(ladder(name, [view.severity for view in views], views[0].unit))
    yield wrapped(f"severities: {'; '.join(ladders)}")
    if numbers.tensor(metric).isnan().any():
        yield "-: no value (a dead layer, or the metric does not apply); means skip it"


def _one_line(numbers: ProbeNumbers, metric: str) -> str:
    layers = numbers.table(metric).layers
    values = {layer: numbers.value(metric, layer) for layer in layers}
    if len(layers) <= _FEW:
        each = [f"{layer} {number(value)}" for layer, value in values.items()]
        return wrapped(f"  {metric}: {', '.join(each)}")
    found = [layer for layer in layers if not math.isnan(values[layer])]
    if not found:
        return f"  {metric}: no value at any of {len(layers)} layers"
    low = min(found, key=values.__getitem__)
    high = max(found, key=values.__getitem__)
    mean = numbers.value(metric)
    ends = f"from {number(values[low])} ({low}) to {number(values[high])} ({high})"
    return wrapped(f"  {metric}: {number(mean)}, {ends}")


def _beside_head_share(numbers: ProbeNumbers) -> Iterator[str]:
    """What the head's share of the movement is to be held against."""
    head = numbers.metadata.head
    if head is not None and "head_share" in numbers.metrics:
        between, chance = number(head["between_images"]), number(head["chance"])
        yield f"    beside head_share: {between} of the differences between images; chance: {chance}"


def _left_out(numbers: ProbeNumbers) -> list[str]:
    reasons = numbers.metadata.left_out
    lines = [f"left out: {name}: {reason}" for name, reason in reasons.items()]
    more = len(lines) - MOST_LISTED
    if more > 0:
        lines = [*lines[:MOST_LISTED], f"left out: {more} more, in .metadata['left_out']"]
    return [wrapped(line) for line in lines]
