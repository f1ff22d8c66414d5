"""Severity curves in three numbers: the area under them, where they pass a threshold, their worst level.

Areas are over the range of severities, so in the metric's unit. They are never averaged over augmentations all the
same: these ranges are arbitrary.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from kornia_lightning_probe.functional.influence import combined_error
from kornia_lightning_probe.results.headline import origin_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kornia_lightning_probe.result import ProbeResult

THRESHOLD = 0.25

#: What a metric reads for an augmentation that does nothing.
AT_IDENTITY = {
    "sensitivity": 0.0,
    "sensitivity_pooled": 0.0,
    "sensitivity_median": 0.0,
    "relative_change": 0.0,
    "equivariance_error": 0.0,
    "invariance_error": 0.0,
    "flip_rate": 0.0,
    "pixel_flip_rate": 0.0,
    "js_divergence": 0.0,
    "accuracy_drop": 0.0,
    "cosine": 1.0,
    "retrieval_auc": 1.0,
}


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

    @property
    def onset_text(self) -> str:
        """The onset as a text: "12.5", "> 30" or "<= 5" where it is censored, "-" where there is no value."""
        if self.censored:
            return f"> {self.end:.3g}" if self.censored == "above" else f"<= {self.start:.3g}"
        return "-" if math.isnan(self.onset) else f"{self.onset:.3g}"


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
    high, place = highest.gather(-1, first), places.gather(-1, first)
    low, before = highest.gather(-1, (first - 1).clamp(min=0)), places.gather(-1, (first - 1).clamp(min=0))
    crossing = before + (threshold - low) / (high - low) * (place - before)
    at_start = (first == 0) | low.isinf()
    onset = torch.where(at_start, -torch.inf, crossing).squeeze(-1)
    onset = torch.where(past.any(-1), onset, torch.inf)
    return torch.where(known.any(-1), onset, torch.nan)


def severity_rows(
    result: ProbeResult, metric: str = "sensitivity", *, threshold: float = THRESHOLD, at_identity: float | None = None
) -> tuple[SeverityRow, ...]:
    """Summarise every severity curve of a result.

    Where the value at the identity is known, the onset and the worst level are those of the distance from it, so that
    a cosine's onset is where it has fallen by the threshold; and curves whose severity is the distance from the
    identity (the presets') start there, at severity 0. A user's own ladder is taken as it is, without a zero.

    Args:
        result: the result.
        metric: the metric's name.
        threshold: of the onset, positive, in the metric's unit.
        at_identity: what the metric reads for an augmentation that does nothing; None: 0 for sensitivities, errors and
            flips, 1 for cosine and retrieval_auc, unknown for others.

    Returns:
        One row for each augmentation and layer.

    Raises:
        ValueError: for an unknown metric, or a threshold that isn't a positive number.
    """
    if not (math.isfinite(threshold) and threshold > 0):
        raise ValueError(f"the threshold of an onset must be a positive number, got {threshold}")
    identity = AT_IDENTITY.get(origin_of(result.metrics, metric)) if at_identity is None else at_identity
    curves = (_curves(result, metric, name, identity) for name in result.augmentations)
    return tuple(row for curve in curves for row in _rows(result, metric, curve, threshold))


def severity_columns(result: ProbeResult) -> dict[str, dict[str, Any]]:
    """The summaries of all metrics whose value at the identity is known, as columns of plain data for a JSON file."""
    names = [metric for metric in result.metrics if metric in AT_IDENTITY]
    fields = [field for field in SeverityRow._fields if field not in ("metric", "layer_index", "threshold")]
    columns: dict[str, dict[str, Any]] = {}
    for metric in names:
        rows = severity_rows(result, metric)
        columns[metric] = {"threshold": THRESHOLD} | {name: [getattr(row, name) for row in rows] for name in fields}
    return columns


class _Curves(NamedTuple):
    """All layers' curves under one augmentation: values and their distance from the identity, (L, K), over K places."""

    views: list[int]
    places: Tensor
    values: Tensor
    away: Tensor
    area_error: Tensor


def _curves(result: ProbeResult, metric: str, augmentation: str, identity: float | None) -> _Curves:
    table = result.table(metric)
    views = [i for i, view in enumerate(result.views) if view.augmentation == augmentation]
    views.sort(key=lambda i: result.views[i].severity)
    places = torch.tensor([result.views[i].severity for i in views], dtype=torch.float64)
    values = table.value[views].T
    if identity is not None and all(result.views[i].from_identity for i in views):
        start = torch.where(values.isfinite().any(1, keepdim=True), identity, torch.nan)
        values, places = torch.cat([start, values], 1), torch.cat([places.new_zeros(1), places])
    # The area is a weighted sum of the values; the identity, where the curve has it, is known without error.
    weights = severity_area(torch.eye(len(places), dtype=torch.float64), places)[-len(views) :]
    every_layer = weights.nan_to_num(0.0)[None, :, None].expand(1, -1, len(values))
    error = combined_error(every_layer, table.std_error[views], table.shares(views))[0]
    away = values if identity is None else (values - identity).abs()
    return _Curves(views, places, values, away, torch.where(severity_area(values, places).isnan(), torch.nan, error))


def _rows(result: ProbeResult, metric: str, curves: _Curves, threshold: float) -> Iterator[SeverityRow]:
    areas = severity_area(curves.values, curves.places).tolist()
    onsets = severity_onset(curves.away, curves.places, threshold=threshold).tolist()
    for column, layer in enumerate(result.table(metric).layers):
        known = curves.values[column].isfinite()
        places = curves.places[known].tolist() or curves.places.tolist()
        onset = onsets[column]
        worst = _worst(curves, column)
        view = None if worst is None else result.views[curves.views[worst]]
        yield SeverityRow(
            metric=metric,
            layer=layer,
            layer_index=result.layer_index(layer),
            augmentation=result.views[curves.views[0]].augmentation,
            start=places[0],
            end=places[-1],
            area=areas[column],
            area_error=float(curves.area_error[column]),
            threshold=threshold,
            onset=onset if math.isfinite(onset) else math.nan,
            censored={math.inf: "above", -math.inf: "below"}.get(onset, ""),
            worst_level=view.level if view else None,
            worst_severity=view.severity if view else math.nan,
            worst_value=math.nan if worst is None else float(curves.values[column, worst - len(curves.views)]),
        )


def _worst(curves: _Curves, column: int) -> int | None:
    """The place among the views of the value farthest from the identity; the last of equals, if the curve is flat."""
    away = curves.away[column, -len(curves.views) :]
    return None if away.isnan().all() else len(away) - 1 - int(away.nan_to_num(-torch.inf).flip(0).argmax())
