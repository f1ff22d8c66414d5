"""Severity curves in three numbers: the area under them, where they pass a threshold, their worst level.

Areas are over the range of severities, so in the metric's unit. They are never averaged over augmentations all the
same: these ranges are arbitrary.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kornia_lightning_probe.functional.influence import combined_error
from kornia_lightning_probe.results.image_scores import worst_of_views
from kornia_lightning_probe.results.lookup import SENSITIVITY, ProbeNumbers
from kornia_lightning_probe.results.tables import MetricTable, ViewInfo

THRESHOLD = 0.25

_CENSORED = {math.inf: "above", -math.inf: "below"}
#: Not in the columns of a JSON file: they are the same for a whole metric, or told by the layer.
_OF_THE_METRIC = ("metric", "layer_index", "threshold")


class SeverityRow(NamedTuple):
    """One layer's severity curve under one augmentation, in a few numbers.

    Attributes:
        metric: the metric.
        layer: the layer.
        layer_index: its depth, as in `ProbeRow`.
        augmentation: the augmentation.
        start: where the curve starts: 0 for the presets' ladders, else the lowest severity that has a value.
        end: the highest severity that has a value.
        area: the area under the curve from start to end, over that range: the curve's mean height, in the metric's
            unit; NaN where a level has no value, or the curve is a single point.
        area_error: its standard error.
        threshold: the threshold of the onset.
        onset: the first severity at which the threshold is passed; NaN where none is, see `censored`.
        censored: "" for an onset that was seen; "above" where the threshold is passed nowhere, so that the onset is
            beyond `end`; "below" where the lowest severity is past it already, so that the onset is at `start` or
            below. Also "" for a curve without values.
        worst_level: the level, from 1, at which the metric is farthest from its value at the identity, the highest of
            equals; None without values.
        worst_severity: that level's severity; NaN without values.
        worst_value: the metric there; NaN without values.
        worst: of sensitivity, each image at its own worst level, sqrt(mean_i max_v d_iv / (2 mean e)): a lower bound of
            the worst case; NaN for other metrics, and where each image's part isn't kept.
    """

    metric: str
    layer: str
    layer_index: int
    augmentation: str
    start: float
    end: float
    area: float
    area_error: float
    threshold: float
    onset: float
    censored: str
    worst_level: int | None
    worst_severity: float
    worst_value: float
    worst: float = math.nan

    @property
    def onset_text(self) -> str:
        """The onset as a text: "12.5", "> 30" or "<= 5" where it is censored, "-" where there is no value."""
        if self.censored == "above":
            return f"> {self.end:.3g}"
        if self.censored == "below":
            return f"<= {self.start:.3g}"
        if math.isnan(self.onset):
            return "-"
        return f"{self.onset:.3g}"


def severity_area(values: Tensor, severities: Tensor) -> Tensor:
    r"""Area under a severity curve over its range, by the trapezoid rule: :math:`c\,s_{max} / 2` for S = c s from 0.

    Args:
        values: (..., K), the metric at K severities.
        severities: (K,), ascending.

    Returns:
        (...), in the metric's unit: the curve's mean height. NaN where a value is, and for K < 2: a point spans no
        range.

    Example:
        >>> severity_area(torch.tensor([0.0, 1.0, 1.0]), torch.tensor([0.0, 2.0, 4.0]))  # 1 + 2, over 4
        tensor(0.7500)
    """
    if len(severities) < 2:
        return values.new_full(values.shape[:-1], torch.nan)
    return torch.trapezoid(values, severities, dim=-1) / (severities[-1] - severities[0])


def severity_onset(values: Tensor, severities: Tensor, *, threshold: float = THRESHOLD) -> Tensor:
    r"""First severity at which the running maximum of a curve reaches a threshold, with straight lines between points.

    Args:
        values: (..., K), what rises with severity: a sensitivity, one minus a cosine; NaN is skipped.
        severities: (K,), ascending.
        threshold: in the metric's unit.

    Returns:
        (...), in the unit of the severities: inf where the threshold is reached nowhere, -inf where the first value is
        past it already, NaN where there is no value.

    Example:
        >>> severity_onset(torch.tensor([0.0, 0.2, 0.1, 0.4]), torch.tensor([0.0, 5.0, 10.0, 15.0]), threshold=0.3)
        tensor(12.5000)
    """
    known = values.isfinite()
    highest = torch.where(known, values, -torch.inf).cummax(-1).values
    places = torch.where(known, severities, -torch.inf).cummax(-1).values
    past = highest >= threshold
    first = past.int().argmax(-1, keepdim=True)
    before = (first - 1).clamp(min=0)
    high, low = highest.gather(-1, first), highest.gather(-1, before)
    end, start = places.gather(-1, first), places.gather(-1, before)
    share = (threshold - low) / (high - low)
    crossing = start + share * (end - start)
    is_at_start = (first == 0) | low.isinf()
    onset = torch.where(is_at_start, -torch.inf, crossing).squeeze(-1)
    onset = torch.where(past.any(-1), onset, torch.inf)
    return torch.where(known.any(-1), onset, torch.nan)


def severity_rows(
    numbers: ProbeNumbers,
    metric: str = SENSITIVITY,
    *,
    threshold: float = THRESHOLD,
    at_identity: float | None = None,
) -> tuple[SeverityRow, ...]:
    """Summarise every severity curve of a metric.

    Where the value at the identity is known, the onset and the worst level are those of the distance from it, so that
    a cosine's onset is where it has fallen by the threshold; and curves whose severity is the distance from the
    identity (the presets') start there, at severity 0. A user's own ladder is taken as it is, without a zero.

    Args:
        numbers: the result.
        metric: the metric's name.
        threshold: of the onset, positive, in the metric's unit.
        at_identity: what the metric reads for an augmentation that does nothing; None takes what its quantity says.

    Returns:
        One row for each augmentation and layer.

    Raises:
        ValueError: for an unknown metric, or a threshold that isn't a positive number.
    """
    if not (math.isfinite(threshold) and threshold > 0):
        raise ValueError(f"the threshold of an onset must be a positive number, got {threshold}")
    table = numbers.table(metric)
    identity = table.quantity.at_identity if at_identity is None else at_identity
    rows: list[SeverityRow] = []
    for augmentation in numbers.augmentations:
        curves = _curves(table, numbers.views, augmentation, identity)
        worst = worst_of_views(numbers, augmentation) if metric == SENSITIVITY else {}
        onsets = [math.nan] * len(table.layers)
        if all(view.on_curve for view in curves.views):
            onsets = severity_onset(curves.away, curves.places, threshold=threshold).tolist()
        for column, layer in enumerate(table.layers):
            summary = _summary(curves, column)
            row = SeverityRow(
                metric=metric,
                layer=layer,
                layer_index=numbers.layer_index(layer),
                augmentation=augmentation,
                threshold=threshold,
                onset=onsets[column] if math.isfinite(onsets[column]) else math.nan,
                censored=_CENSORED.get(onsets[column], ""),
                worst=worst.get(layer, math.nan),
                **summary,
            )
            rows.append(row)
    return tuple(rows)


def severity_columns(numbers: ProbeNumbers) -> dict[str, dict[str, Any]]:
    """The summaries of all metrics whose value at the identity is known, as columns of plain data for a JSON file."""
    fields = [field for field in SeverityRow._fields if field not in _OF_THE_METRIC]
    columns: dict[str, dict[str, Any]] = {}
    for metric, table in numbers.tables.items():
        if table.quantity.at_identity is None:
            continue
        rows = severity_rows(numbers, metric)
        columns[metric] = {"threshold": THRESHOLD}
        for field in fields:
            columns[metric][field] = [getattr(row, field) for row in rows]
    return columns


class _Curves(NamedTuple):
    """All layers' curves under one augmentation: values and their distance from the identity, (L, K), over K places.

    Where the curves start at the identity, they have one place more than there are views.
    """

    views: list[ViewInfo]
    places: Tensor
    values: Tensor
    away: Tensor
    area: Tensor
    area_error: Tensor


def _curves(table: MetricTable, views: tuple[ViewInfo, ...], augmentation: str, identity: float | None) -> _Curves:
    order = [i for i, view in enumerate(views) if view.augmentation == augmentation]
    order.sort(key=lambda i: views[i].severity)
    chosen = [views[i] for i in order]
    places = torch.tensor([view.severity for view in chosen], dtype=torch.float64)
    values = table.value[order].T
    if not all(view.on_curve for view in chosen):
        return _Curves(chosen, places, values, _away(values, identity), *_no_area(values))
    if identity is not None and all(view.from_identity for view in chosen):
        has_value = values.isfinite().any(1, keepdim=True)
        start = torch.where(has_value, identity, torch.nan)
        values = torch.cat([start, values], 1)
        places = torch.cat([places.new_zeros(1), places])
    away = _away(values, identity)
    area = severity_area(values, places)
    error = torch.where(area.isnan(), torch.nan, _area_error(table, order, places))
    return _Curves(chosen, places, values, away, area, error)


def _away(values: Tensor, identity: float | None) -> Tensor:
    return values if identity is None else (values - identity).abs()


def _no_area(values: Tensor) -> tuple[Tensor, Tensor]:
    """The area under what is no curve, and its error."""
    nothing = torch.full(values.shape[:1], torch.nan, dtype=torch.float64)
    return nothing, nothing


def _area_error(table: MetricTable, views: list[int], places: Tensor) -> Tensor:
    """The standard error of each layer's area, a weighted sum of the values; the identity is known without error."""
    at_each_place = torch.eye(len(places), dtype=torch.float64)
    weights = severity_area(at_each_place, places).nan_to_num(0.0)
    of_views = weights[-len(views) :].view(1, -1, 1)
    of_layers = of_views.expand(1, -1, len(table.layers))
    errors = table.std_error[views]
    return combined_error(of_layers, errors, table.shares(views))[0]


def _summary(curves: _Curves, column: int) -> dict[str, Any]:
    """What a row says of one layer's curve but for its onset."""
    values = curves.values[column]
    known = values.isfinite()
    places = curves.places[known] if known.any() else curves.places
    worst = _worst(curves.away[column, -len(curves.views) :])
    found = {
        "start": float(places[0]),
        "end": float(places[-1]),
        "area": float(curves.area[column]),
        "area_error": float(curves.area_error[column]),
    }
    if worst is None:
        return found | {"worst_level": None, "worst_severity": math.nan, "worst_value": math.nan}
    view = curves.views[worst]
    value = float(values[worst - len(curves.views)])
    return found | {"worst_level": view.level, "worst_severity": view.severity, "worst_value": value}


def _worst(away: Tensor) -> int | None:
    """The place among the views of the value farthest from the identity; the last of equals, if the curve is flat."""
    if away.isnan().all():
        return None
    farthest = away.nan_to_num(-torch.inf).flip(0).argmax()
    return len(away) - 1 - int(farthest)
