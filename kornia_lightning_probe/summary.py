"""A result's numbers as a text table for a terminal of 100 columns."""

from __future__ import annotations

import math
from textwrap import fill
from typing import TYPE_CHECKING

import torch

from kornia_lightning_probe.tables import pick_layers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kornia_lightning_probe.result import ProbeResult

WIDTH = 100
MOST_LISTED = 10
HEADLINE = "sensitivity"
MEANING = {
    "sensitivity": "0: the layer does not notice; 1: it moves as far as swapping the image for another",
    "relative_change": "|augmented - clean| / |clean|",
}
EIGHTHS = " ▏▎▍▌▋▊▉█"
BAR_CELLS = 6
BAR_END = 1.2


def summary_text(result: ProbeResult, *, max_layers: int | None = 40) -> str:
    """Lay a result out: its headline metric as a table of layers x augmentations, the others in a line each.

    Args:
        result: The result.
        max_layers: The most layers in the table, picked evenly by depth; None shows all. What isn't shown is said.

    Returns:
        The text, no line longer than 100 characters, without a line break at its end.
    """
    metric = _headline(result)
    parts = [_head(result)]
    if metric is not None:
        parts += [_title(result, metric), *_table(result, metric, max_layers)]
        parts.append("\n".join(_notes(result, metric, max_layers)))
    others = [_one_line(result, name) for name in result.metrics if name != metric]
    if others:
        parts.append("\n".join(["other metrics, mean over the views", *others]))
    remarks = [_wrapped(f"note: {note}") for note in result.metadata.get("notes") or []] + list(_left_out(result))
    if remarks:
        parts.append("\n".join(remarks))
    return "\n\n".join(parts)


def _headline(result: ProbeResult) -> str | None:
    names = sorted(result.metrics, key=lambda name: name != HEADLINE)
    with_values = [name for name in names if not result.tensor(name).isnan().all()]
    return next(iter(with_values or names), None)


def _head(result: ProbeResult) -> str:
    counts = [int(result.table(name).num_images.max()) for name in result.metrics if result.tensor(name).numel()]
    images = result.metadata.get("num_images", max(counts, default=0))
    where = f", {result.metadata['device']}" if "device" in result.metadata else ""
    return f"{images} images x {len(result.views)} views x {len(result.layers)} layers, {result.when}{where}"


def _title(result: ProbeResult, metric: str) -> str:
    meaning = f" ({MEANING[metric]})" if metric in MEANING else ""
    errors = result.table(metric).std_error
    errors = errors[~errors.isnan()]
    title = f"{metric}{meaning}"
    if not errors.numel():
        return title
    return f"{title}\nstandard error: median {errors.median():.3f}, largest {errors.max():.3f}"


def _table(result: ProbeResult, metric: str, max_layers: int | None) -> Iterator[str]:
    layers: list[str | None] = [*pick_layers(result.table(metric).layers, max_layers), None]
    names = [_elided("all layers" if layer is None else layer, 40) for layer in layers]
    margin = max(len("layer"), *map(len, names))
    means = [result.value(metric, layer) for layer in layers]
    lines = [f"{name:<{margin}}  {_number(mean):>5} {_bar(mean)}" for name, mean in zip(names, means, strict=True)]
    left = [f"{'layer':<{margin}}  {'mean':>5} {'':{BAR_CELLS + 1}}", *lines]
    for block in _blocks(result.augmentations, WIDTH - len(left[0]), WIDTH - margin):
        for augmentation in block:
            title = _elided(augmentation, 24)
            cells = [title, *(_number(result.value(metric, layer, augmentation)) for layer in layers)]
            left = [f"{line}  {cell:>{max(len(title), 4)}}" for line, cell in zip(left, cells, strict=True)]
        yield "\n".join(line.rstrip() for line in left)
        left = [f"{name:<{margin}}" for name in ("layer", *names)]


def _blocks(augmentations: Sequence[str], first_room: int, room: int) -> Iterator[list[str]]:
    block: list[str] = []
    left = first_room
    for augmentation in augmentations:
        width = max(len(_elided(augmentation, 24)), 4) + 2
        if width > left:
            yield block
            block, left = [], room
        block.append(augmentation)
        left -= width
    yield block


def _notes(result: ProbeResult, metric: str, max_layers: int | None) -> Iterator[str]:
    yield "all layers: the mean without input; every augmentation: the mean over its severities"
    layers = len(result.table(metric).layers)
    if max_layers is not None and layers > max_layers:
        yield f"{max_layers} of {layers} layers are shown, evenly by depth; `summary(max_layers=None)` shows all"
    levels: dict[str, list[str]] = {name: [] for name in result.augmentations}
    for view in result.views:
        levels[view.augmentation].append(f"{view.severity:g}")
    yield _wrapped("severities: " + "; ".join(f"{name} {', '.join(found)}" for name, found in levels.items()))
    if torch.isnan(result.tensor(metric)).any():
        yield "-: no value (a dead layer, or the metric does not apply); means skip it"


def _one_line(result: ProbeResult, metric: str) -> str:
    values = {layer: result.value(metric, layer) for layer in result.table(metric).layers}
    found = {layer: value for layer, value in values.items() if not math.isnan(value)}
    if len(values) <= 3:
        return _wrapped(f"  {metric}: " + ", ".join(f"{layer} {_number(value)}" for layer, value in values.items()))
    if not found:
        return f"  {metric}: no value at any of {len(values)} layers"
    low, high = min(found, key=found.__getitem__), max(found, key=found.__getitem__)
    ends = f"from {_number(found[low])} ({low}) to {_number(found[high])} ({high})"
    return _wrapped(f"  {metric}: {_number(result.value(metric))}, {ends}")


def _left_out(result: ProbeResult) -> Iterator[str]:
    reasons = result.metadata.get("left_out") or {}
    for name, reason in list(reasons.items())[:MOST_LISTED]:
        yield _wrapped(f"left out: {name}: {reason}")
    if len(reasons) > MOST_LISTED:
        yield f"left out: {len(reasons) - MOST_LISTED} more, in .metadata['left_out']"


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.2f}" if abs(value) < 100 else f"{value:.3g}"


def _bar(value: float) -> str:
    if math.isnan(value):
        return " " * (BAR_CELLS + 1)
    eighths = round(8 * BAR_CELLS * min(max(value / BAR_END, 0.0), 1.0))
    rest = EIGHTHS[eighths % 8] if eighths % 8 else ""
    return f"{'█' * (eighths // 8) + rest:<{BAR_CELLS}}" + ("+" if value > BAR_END else " ")


def _elided(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[len(text) - (most - most // 2) :]}"


def _wrapped(text: str) -> str:
    return fill(text, WIDTH, subsequent_indent="    ")
