"""A result's numbers as a text table for a terminal of 100 columns."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from kornia_lightning_probe.reporting.text.clean import clean_text, is_of_clean_images
from kornia_lightning_probe.reporting.text.equivariance import COLUMNS, equivariance_text
from kornia_lightning_probe.reporting.text.table import BAR_CELLS, bar, named, number, side_by_side, wrapped
from kornia_lightning_probe.results.headline import HEADLINE, POOLED, SENSITIVITY, origin_of, pooled_text
from kornia_lightning_probe.results.severity import AT_IDENTITY, THRESHOLD
from kornia_lightning_probe.results.tables import pick_layers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kornia_lightning_probe.result import ProbeResult
    from kornia_lightning_probe.results.severity import SeverityRow

MOST_LISTED = 10
MOST_CURVES = 8
MEANING = {
    "sensitivity": "0: the layer does not notice; 1: it moves as far as swapping the image for another",
    "relative_change": "|augmented - clean| / |clean|",
}


def summary_text(result: ProbeResult, *, max_layers: int | None = 40) -> str:
    """Lay a result out: its headline as a table of layers x augmentations, equivariance, the others in a line each.

    Args:
        result: The result.
        max_layers: The most layers in the table, picked evenly by depth; None shows all. What isn't shown is said.

    Returns:
        The text, no line longer than 100 characters, without a line break at its end.
    """
    lay_out = clean_text if is_of_clean_images(result) else _views_text
    parts = [_head(result), *lay_out(result, max_layers=max_layers)]
    remarks = [wrapped(f"note: {note}") for note in result.metadata.get("notes") or []] + list(_left_out(result))
    if remarks:
        parts.append("\n".join(remarks))
    return "\n\n".join(parts)


def _views_text(result: ProbeResult, *, max_layers: int | None) -> Iterator[str]:
    metric = _headline(result)
    if metric is None:
        return
    yield _title(result, metric)
    yield from _table(result, metric, max_layers)
    yield "\n".join(_notes(result, metric, max_layers))
    yield from _severity(result, metric, max_layers)
    equivariance = list(equivariance_text(result, max_layers=max_layers))
    yield from equivariance
    shown = set(COLUMNS[1:]) if equivariance else set()
    titles = {SENSITIVITY: "sensitivity, flattened"} if pooled_text(result, metric) else {}
    if not titles:
        shown.add(_origin(result, metric))
    others = [_one_line(result, name, titles.get(name, name)) for name in result.metrics if name not in shown]
    if others:
        yield "\n".join(["other metrics, mean over the views", *others])


def _headline(result: ProbeResult) -> str | None:
    """The headline where it has a value, else the first metric that has one; None where nothing was measured."""
    if not result.metrics:
        return None
    names = [HEADLINE, *result.metrics]
    return next((name for name in names if not result.tensor(name).isnan().all()), HEADLINE)


def _origin(result: ProbeResult, metric: str) -> str:
    return origin_of(result.metrics, metric)


def _head(result: ProbeResult) -> str:
    counts = [int(result.table(name).num_images.max()) for name in result.metrics if result.tensor(name).numel()]
    images = result.metadata.get("num_images", max(counts, default=0))
    where = f", {result.metadata['device']}" if "device" in result.metadata else ""
    views = "" if is_of_clean_images(result) else f" x {len(result.views)} views"
    return f"{images} images{views} x {len(result.layers)} layers, {result.when}{where}"


def _title(result: ProbeResult, metric: str) -> str:
    origin = _origin(result, metric)
    meaning = f" ({MEANING[origin]})" if origin in MEANING else ""
    lines = [f"{origin}{meaning}", *_pooling(result, metric)]
    errors = result.table(metric).std_error
    errors = errors[~errors.isnan()]
    if errors.numel():
        lines.append(f"standard error: median {errors.median():.3f}, largest {errors.max():.3f}")
    return "\n".join(lines)


def _pooling(result: ProbeResult, metric: str) -> Iterator[str]:
    """What is pooled in the headline, and the sequences that are not, as they have two pooled rows."""
    pooled = pooled_text(result, metric)
    if pooled:
        flat = [layer for layer in result.table(metric).layers if f"{layer}:cls" in result.table(POOLED).layers]
        tokens = "; sequences with a class token stay flattened" if flat else ""
        yield wrapped(f"{pooled} (their spatial mean); flattened: `sensitivity` below{tokens}")


def _table(result: ProbeResult, metric: str, max_layers: int | None) -> Iterator[str]:
    layers: list[str | None] = [*pick_layers(result.table(metric).layers, max_layers), None]
    names = named("layer", ["all layers" if layer is None else layer for layer in layers])
    means = [result.value(metric, layer) for layer in layers]
    overall = [f"{'mean':>5} {'':{BAR_CELLS + 1}}", *(f"{number(mean):>5} {bar(mean)}" for mean in means)]
    left = [f"{name}  {mean}" for name, mean in zip(names, overall, strict=True)]
    columns = (
        (augmentation, [number(result.value(metric, layer, augmentation)) for layer in layers])
        for augmentation in result.augmentations
    )
    yield from side_by_side(left, columns, again=names)


def _severity(result: ProbeResult, metric: str, max_layers: int | None) -> Iterator[str]:
    """Area and onset of each curve that has two points at least, and the curves that are worst before their end."""
    rows = {(row.layer, row.augmentation): row for row in result.severity(metric) if row.start < row.end}
    augmentations = [name for name in result.augmentations if any(name == key[1] for key in rows)]
    origin = _origin(result, metric)
    if origin not in AT_IDENTITY or not augmentations:
        return
    known = result.table(metric).layers
    layers = pick_layers(known, None if max_layers is None else min(MOST_CURVES, max_layers))
    columns = [(name, [_curve(rows.get((layer, name))) for layer in layers]) for name in augmentations]
    names = named("area, onset", layers)
    share = "" if len(layers) == len(known) else f" ({len(layers)} of {len(known)} layers)"
    title = f"severity curves{share}: area under {origin} over its range; onset, where it passes {THRESHOLD:g}"
    first, *others = side_by_side(names, columns, again=names)
    yield f"{wrapped(title)}\n{first}"
    yield from others
    early = [row for row in rows.values() if row.layer in layers and row.worst_severity < row.end]
    if early:
        listed = [f"{row.layer} at {row.augmentation} {row.worst_severity:g}" for row in early[:MOST_LISTED]]
        more = f" and {len(early) - MOST_LISTED} more" if len(early) > MOST_LISTED else ""
        yield wrapped(f"worst before the highest severity: {', '.join(listed)}{more}")


def _curve(row: SeverityRow | None) -> str:
    if row is None:
        return "-"
    area = "-" if math.isnan(row.area) else f"{row.area:.3g}"
    return f"{area} {row.onset_text.replace(' ', ''):>6}"


def _notes(result: ProbeResult, metric: str, max_layers: int | None) -> Iterator[str]:
    yield "all layers: the mean without input; every augmentation: the mean over its severities"
    layers = len(result.table(metric).layers)
    if max_layers is not None and layers > max_layers:
        yield f"{max_layers} of {layers} layers are shown, evenly by depth; `summary(max_layers=None)` shows all"
    levels: dict[str, list[str]] = {name: [] for name in result.augmentations}
    for view in result.views:
        levels[view.augmentation].append(f"{view.severity:g}")
    yield wrapped("severities: " + "; ".join(f"{name} {', '.join(found)}" for name, found in levels.items()))
    if torch.isnan(result.tensor(metric)).any():
        yield "-: no value (a dead layer, or the metric does not apply); means skip it"


def _one_line(result: ProbeResult, metric: str, title: str) -> str:
    values = {layer: result.value(metric, layer) for layer in result.table(metric).layers}
    found = {layer: value for layer, value in values.items() if not math.isnan(value)}
    if len(values) <= 3:
        return wrapped(f"  {title}: " + ", ".join(f"{layer} {number(value)}" for layer, value in values.items()))
    if not found:
        return f"  {title}: no value at any of {len(values)} layers"
    low, high = min(found, key=found.__getitem__), max(found, key=found.__getitem__)
    ends = f"from {number(found[low])} ({low}) to {number(found[high])} ({high})"
    return wrapped(f"  {title}: {number(result.value(metric))}, {ends}")


def _left_out(result: ProbeResult) -> Iterator[str]:
    reasons = result.metadata.get("left_out") or {}
    for name, reason in list(reasons.items())[:MOST_LISTED]:
        yield wrapped(f"left out: {name}: {reason}")
    if len(reasons) > MOST_LISTED:
        yield f"left out: {len(reasons) - MOST_LISTED} more, in .metadata['left_out']"
