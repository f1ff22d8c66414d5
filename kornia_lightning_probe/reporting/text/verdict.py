"""What a result says, in at most five sentences, each from numbers with their errors.

A change is decided where it is larger than three standard errors and than .02; else nothing is said of it, which is not
to say that nothing has changed. One name is given where it leads the next by three errors of their difference, else the
few that lead together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch

from kornia_lightning_probe.functional.influence import combined_error
from kornia_lightning_probe.reporting.text.table import number
from kornia_lightning_probe.results.comparing.comparison import ComparisonNumbers, ComparisonRow, compare_numbers
from kornia_lightning_probe.results.lookup import SENSITIVITY, ProbeNumbers
from kornia_lightning_probe.results.tables import INPUT, OUTPUT
from kornia_lightning_probe.wording import counted, listed

_DROP = "accuracy_drop"
_ERRORS = 3.0
_SMALLEST = 0.02
# A share above this is most of it.
_MOST = 0.5
# Of fewer images one may well hold most.
_FEWEST_IMAGES = 4
# Of what leads together, so many are named.
_FEW = 3


class _Candidate(NamedTuple):
    """Something that may lead: its name and its value."""

    name: str
    value: float


def verdict_text(
    numbers: ProbeNumbers, *, before: ProbeNumbers | None = None, first: ProbeNumbers | None = None
) -> str:
    """The sentences of a result, a line each.

    Args:
        numbers: the result.
        before: the probe before training; None says nothing of it.
        first: the first trained probe, likewise.

    Returns:
        At most five lines; an empty text where nothing can be said.

    Raises:
        TypeError: where a baseline is no result.
    """
    for name, other in (("before", before), ("first", first)):
        if other is not None and not isinstance(other, ProbeNumbers):
            raise TypeError(f"{name} must be a ProbeResult or None, got a {type(other).__name__}")
    if SENSITIVITY not in numbers.tables:
        return ""
    baselines = [("before training", before), ("the first trained probe", first)]
    known = [(name, other) for name, other in baselines if other is not None and other is not numbers]
    comparisons = [(name, compare_numbers(other, numbers)) for name, other in known]
    baseline = known[0][1] if known else None
    shown = _shown_layer(numbers)
    said = [
        _what_moves_most(numbers),
        _what_changed(comparisons, shown, _called(shown, numbers.metadata.embedding)),
        _what_gained_most(comparisons),
        _what_the_outputs_do(numbers, baseline),
        _what_to_distrust(numbers, comparisons),
    ]
    return "\n".join(sentence for sentence in said if sentence)


def comparison_verdict(comparison: ComparisonNumbers) -> str:
    """The sentences of a comparison, a line each: what changed, and what changed most."""
    if SENSITIVITY not in comparison.metrics:
        return ""
    rows = comparison.rows_of(SENSITIVITY)
    shown = comparison.embedding
    if shown not in [row.layer for row in rows]:
        shown = max(rows, key=lambda row: (row.layer != OUTPUT, row.layer_index)).layer
    named = [("the first result", comparison)]
    said = [_what_changed(named, shown, _called(shown, comparison.embedding)), _what_gained_most(named)]
    return "\n".join(sentence for sentence in said if sentence)


def is_decided(row: ComparisonRow) -> bool:
    """Whether a change is larger than three standard errors and than .02."""
    return abs(row.change) > max(_ERRORS * row.std_error, _SMALLEST)


def _what_moves_most(numbers: ProbeNumbers) -> str:
    layer = _shown_layer(numbers)
    if layer is None:
        return ""
    values = [_Candidate(name, numbers.value(SENSITIVITY, layer, name)) for name in numbers.augmentations]
    leading = _leading(values, lambda one, other: _apart(numbers, (layer, one), (layer, other)))
    if not leading:
        return ""
    named = [f"{each.name} ({number(each.value)})" for each in leading]
    together = ", which lead together" if len(leading) > 1 else ""
    called = "embedding" if layer == numbers.metadata.embedding else "last layer"
    most = f"The {called}, {layer}, moves most under {listed(named, most=_FEW)}{together}"
    return f"{most}{_pixels(numbers, leading)}{_where(numbers, leading)}."


def _pixels(numbers: ProbeNumbers, leading: Sequence[_Candidate]) -> str:
    """The pixels themselves under what leads alone."""
    if len(leading) > 1 or INPUT not in numbers.table(SENSITIVITY).layers:
        return ""
    pixels = numbers.value(SENSITIVITY, INPUT, leading[0].name)
    return f", the pixels themselves by {number(pixels)}" if math.isfinite(pixels) else ""


def _where(numbers: ProbeNumbers, leading: Sequence[_Candidate]) -> str:
    """Which layer moves furthest under what leads alone, if one does."""
    if len(leading) > 1:
        return ""
    augmentation = leading[0].name
    layers = [layer for layer in numbers.table(SENSITIVITY).layers if layer != INPUT]
    values = [_Candidate(layer, numbers.value(SENSITIVITY, layer, augmentation)) for layer in layers]
    furthest = _leading(values, lambda one, other: _apart(numbers, (one, augmentation), (other, augmentation)))
    if len(furthest) != 1:
        return ""
    if furthest[0].name == _shown_layer(numbers):
        return ", further than any other layer"
    return f"; of the layers {furthest[0].name} moves furthest ({number(furthest[0].value)})"


def _called(layer: str | None, embedding: str | None) -> str:
    return "the embedding" if layer == embedding else f"the last layer, {layer},"


def _what_changed(comparisons: Sequence[tuple[str, ComparisonNumbers]], layer: str | None, called: str) -> str:
    parts: list[str] = []
    for name, comparison in comparisons:
        if SENSITIVITY not in comparison.metrics:
            continue
        rows = [row for row in comparison.rows_of(SENSITIVITY) if row.layer == layer and math.isfinite(row.change)]
        subject = "it" if parts else called
        if any(is_decided(row) for row in rows):
            parts.append(f"since {name} {subject} moves {'; '.join(_by_direction(rows))}")
        elif rows:
            parts.append(f"since {name} it is undecided whether {subject} moves otherwise")
    return _sentence(", and ".join(parts))


def _by_direction(rows: Sequence[ComparisonRow]) -> Iterator[str]:
    decided = [row for row in rows if is_decided(row)]
    for word, group in (
        ("less", [row for row in decided if row.change < 0]),
        ("more", [row for row in decided if row.change > 0]),
    ):
        if group:
            changes = [f"{row.augmentation} ({number(row.first)} to {number(row.second)})" for row in group]
            yield f"{word} under {listed(changes, most=_FEW)}"
    undecided = [row.augmentation for row in rows if not is_decided(row)]
    if undecided:
        yield f"undecided under {listed(undecided, most=_FEW)}"


def _what_gained_most(comparisons: Sequence[tuple[str, ComparisonNumbers]]) -> str:
    for name, comparison in comparisons:
        if SENSITIVITY not in comparison.metrics:
            continue
        rows = [row for row in comparison.rows_of(SENSITIVITY) if row.layer != INPUT]
        falls = {f"{row.layer} under {row.augmentation}": row for row in rows if is_decided(row) and row.change < 0}
        errors = {place: row.std_error for place, row in falls.items()}
        leading = _leading(
            [_Candidate(place, -row.change) for place, row in falls.items()], partial(_as_if_apart, errors)
        )
        if leading:
            changes = [f"{each.name} by {number(each.value)}" for each in leading[:_FEW]]
            more = f" and {len(leading) - _FEW} more alike" if len(leading) > _FEW else ""
            return f"The largest fall since {name}: {', '.join(changes)}{more}."
    return ""


def _as_if_apart(errors: Mapping[str, float], one: str, other: str) -> float:
    """The error of the difference of two, which is too large where they err in the same way."""
    return math.hypot(errors[one], errors[other])


def _what_the_outputs_do(numbers: ProbeNumbers, baseline: ProbeNumbers | None) -> str:
    clean = _clean_accuracy(numbers)
    if clean is None:
        return ""
    if not _is_beyond_chance(numbers):
        return (
            f"The outputs are right on {number(clean)} of the clean images, no more than chance, so that what an "
            "augmentation does to them says nothing."
        )
    now = f"The outputs are right on {number(clean)} of the clean images"
    costliest = _costliest(numbers)
    if not costliest:
        now = f"{now}, and no augmentation costs more than its error"
    elif len(costliest) == 1:
        now = f"{now}, and least under {costliest[0]}: {number(_accuracy(numbers, costliest[0]))}"
    else:
        named = [f"{name} ({number(_accuracy(numbers, name))})" for name in costliest]
        now = f"{now}, and least under {listed(named, most=_FEW)}, which lead together"
    return f"{now}{_outputs_before(baseline, costliest)}."


def _costliest(numbers: ProbeNumbers) -> list[str]:
    """The augmentation that costs most accuracy, or the few that lead together; none that costs no more than error."""
    drops = [_Candidate(name, numbers.value(_DROP, OUTPUT, name)) for name in numbers.augmentations]
    leading = _leading(drops, lambda one, other: _apart(numbers, (OUTPUT, one), (OUTPUT, other), metric=_DROP))
    return [each.name for each in leading if each.value > _ERRORS * numbers.std_error(_DROP, OUTPUT, each.name)]


def _outputs_before(baseline: ProbeNumbers | None, costliest: Sequence[str]) -> str:
    """The same before, in brackets, where there is something to compare with."""
    earlier = None if baseline is None else _clean_accuracy(baseline)
    if baseline is None or earlier is None:
        return ""
    if not _is_beyond_chance(baseline):
        return " (before: no better than chance)"
    if len(costliest) == 1 and costliest[0] in baseline.augmentations:
        return f" (before: {number(earlier)} and {number(_accuracy(baseline, costliest[0]))})"
    return f" (before: {number(earlier)})"


def _accuracy(numbers: ProbeNumbers, augmentation: str) -> float:
    return numbers.value("accuracy", augmentation=augmentation)


def _what_to_distrust(numbers: ProbeNumbers, comparisons: Sequence[tuple[str, ComparisonNumbers]]) -> str:
    # An untrained net's scale says little, so that the spread is held against the last of the baselines.
    doubts = [*_spread_doubts(comparisons[-1:], _shown_layer(numbers)), *_share_doubts(numbers)]
    floor = numbers.metadata.noise_floor or 0.0
    if floor > _SMALLEST:
        doubts.append(f"the forward itself differs by {number(floor)} from pass to pass")
    doubts += _missing(numbers)
    dead = numbers.metadata.dead_layers
    if dead:
        doubts.append(f"every image gives the same at {listed(dead, most=_FEW)}")
    return f"Doubtful: {'; '.join(doubts)}." if doubts else ""


def _missing(numbers: ProbeNumbers) -> Iterator[str]:
    """What was left out as it is no number."""
    lost = numbers.metadata.non_finite
    if lost:
        images = set().union(*lost.values())
        yield f"activations of {counted(len(images), 'image')} are not finite at {listed(lost, most=_FEW)}"
    shown = _shown_layer(numbers)
    if shown is None or shown in (numbers.metadata.dead_layers or ()):
        return
    unknown = [name for name in numbers.augmentations if math.isnan(numbers.value(SENSITIVITY, shown, name))]
    if unknown:
        yield f"{shown} has no value under {listed(unknown, most=_FEW)}"


def _spread_doubts(comparisons: Sequence[tuple[str, ComparisonNumbers]], layer: str | None) -> Iterator[str]:
    """A fall that comes of images that lie further apart, and not of less movement."""
    for name, comparison in comparisons:
        if not {SENSITIVITY, "spread"} <= set(comparison.metrics):
            continue
        moved = [row for row in comparison.rows_of(SENSITIVITY) if row.layer == layer and is_decided(row)]
        spread = [row for row in comparison.rows_of("spread") if row.layer == layer and row.beyond]
        falls = [row for row in moved if row.change < 0]
        if not falls or not spread or spread[0].change <= 0:
            continue
        growth = spread[0].second / spread[0].first
        # What moved by S of the distance between images moves no less if that has grown by as much as S fell.
        as_far = [row.augmentation for row in falls if row.second * growth >= row.first]
        if as_far:
            yield (
                f"since {name} images lie {growth:.3g} times as far apart, and in its own units the layer moves no "
                f"less under {listed(as_far, most=_FEW)}"
            )


def _share_doubts(numbers: ProbeNumbers) -> Iterator[str]:
    whose = {"image_dominance": "image", "position_dominance": "position", "channel_dominance": "channel"}
    for metric, one in whose.items():
        if metric not in numbers.tables:
            continue
        if metric == "image_dominance" and int(numbers.table(metric).num_images.max()) < _FEWEST_IMAGES:
            continue
        layers = numbers.table(metric).layers
        held = [layer for layer in layers if layer != INPUT and numbers.value(metric, layer) > _MOST]
        if held:
            yield f"one {one} holds more than half of {listed(held, most=_FEW)}"


def _leading(candidates: Sequence[_Candidate], error: Callable[[str, str], float]) -> list[_Candidate]:
    """The candidate that leads all others by three errors of their difference, or those that lead together."""
    known = [each for each in candidates if math.isfinite(each.value)]
    if not known:
        return []
    ordered = sorted(known, key=lambda each: -each.value)
    top = ordered[0]
    return [top, *(each for each in ordered[1:] if not _leads(top, each, error(top.name, each.name)))]


def _leads(one: _Candidate, other: _Candidate, error: float) -> bool:
    # Without an error nobody leads.
    return one.value - other.value > _ERRORS * error


def _apart(numbers: ProbeNumbers, one: tuple[str, str], other: tuple[str, str], *, metric: str = SENSITIVITY) -> float:
    """The standard error of the difference between two means over levels, each of (layer, augmentation)."""
    table = numbers.table(metric)
    weights = torch.zeros_like(table.value)
    for sign, (layer, augmentation) in ((1.0, one), (-1.0, other)):
        views = [view for view in numbers.views_of(augmentation) if table.value[view].isfinite().any()]
        weights[views, table.layers.index(layer)] += sign / len(views)
    shares = table.shares(range(len(numbers.views)))
    flat = weights.reshape(1, -1, 1)
    of_cells = None if shares is None else shares.flatten(0, 1).unsqueeze(1)
    return float(combined_error(flat, table.std_error.reshape(-1, 1), of_cells))


def _shown_layer(numbers: ProbeNumbers) -> str | None:
    """The embedding, or else the last layer that has a value."""
    layers = numbers.table(SENSITIVITY).layers
    if numbers.metadata.embedding in layers:
        return numbers.metadata.embedding
    known = [layer for layer in layers if layer != INPUT]
    return known[-1] if known else None


def _clean_accuracy(numbers: ProbeNumbers) -> float | None:
    if not {"accuracy", _DROP} <= set(numbers.metrics):
        return None
    clean = numbers.value("accuracy") + numbers.value(_DROP)
    return clean if math.isfinite(clean) else None


def _is_beyond_chance(numbers: ProbeNumbers) -> bool:
    """Whether the clean accuracy is beyond what always the same answer gives by three errors of a share of images."""
    clean = _clean_accuracy(numbers)
    classes = (numbers.metadata.shapes or {}).get(OUTPUT, [0])[0]
    count = int(numbers.table("accuracy").num_images.max())
    if clean is None or classes < 2 or count < 1:
        return False
    chance = max(1 / classes, numbers.metadata.largest_class_share or 0.0)
    return clean - chance > _ERRORS * math.sqrt(chance * (1 - chance) / count)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""
