"""What has changed between two results, and whether it is more than the sampling of images explains."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from kornia_lightning_probe.functional.influence import combined_error
from kornia_lightning_probe.results.comparing.differences import banks_differ, common_embedding, left_out, what_each_has
from kornia_lightning_probe.results.comparing.grids import OtherGrids
from kornia_lightning_probe.results.comparing.pairing import Shares, pair_images, pairing_notes
from kornia_lightning_probe.results.lookup import SENSITIVITY, ProbeNumbers
from kornia_lightning_probe.wording import listed, unknown

# Two forwards of one model agree to this, relatively, and so do measures that are 0 where nothing moves to each other:
# what is smaller is rounding, however small its error.
ROUNDING = 1e-5


class ComparisonRow(NamedTuple):
    """The change of one number.

    Attributes:
        metric: the metric.
        layer: the layer.
        layer_index: its depth in the first result.
        augmentation: the augmentation.
        level: the level; None is the mean over the levels that both results have a value for.
        severity: the level's severity; NaN for a mean over levels.
        first: the value in the result that `compare` was called on.
        second: the value in the other result.
        change: second - first, in the metric's unit.
        std_error: of the change; NaN where it isn't known.
        z_score: change / std_error; NaN where there is no error to divide by.
        beyond: whether the change is beyond sampling error; False where the error isn't known.
        paired: whether the error is that of differences image by image.
    """

    metric: str
    layer: str
    layer_index: int
    augmentation: str
    level: int | None
    severity: float
    first: float
    second: float
    change: float
    std_error: float
    z_score: float
    beyond: bool
    paired: bool


@dataclass(frozen=True)
class ComparisonNumbers:
    """The changes from a first result to a second: second minus first.

    Errors cover the sampling of images and what is drawn for each, not what a whole block shares nor the trainings'
    seeds. Where nothing has changed, about one cell in twenty is beyond two standard errors by chance.

    Attributes:
        rows: the mean over the levels of each augmentation, for each metric, augmentation and layer.
        view_rows: each view on its own.
        first: when the first result was measured, as a text.
        second: when the second was.
        z_limit: a change is beyond sampling error where it is larger than this many standard errors.
        left_out: sentences, what only one of the results has.
        notes: sentences on what a reader should know.
        embedding: the layer that both results call the embedding; None where they differ or have none.
    """

    rows: tuple[ComparisonRow, ...]
    view_rows: tuple[ComparisonRow, ...]
    first: str
    second: str
    z_limit: float
    left_out: tuple[str, ...]
    notes: tuple[str, ...]
    embedding: str | None = None

    @property
    def title(self) -> str:
        """What is compared, as a text: `epoch 5, step 40 minus epoch 0, step 0`."""
        if self.first == self.second:
            both = f" (both {self.first})" if self.first else ""
            return f"the second result minus the first{both}"
        return f"{self.second or 'the second result'} minus {self.first or 'the first'}"

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics that were compared."""
        return tuple(dict.fromkeys(row.metric for row in self.rows))

    def rows_of(self, metric: str) -> tuple[ComparisonRow, ...]:
        """The rows of one metric.

        Raises:
            ValueError: If the metric wasn't compared; the message shows near names.
        """
        if metric not in self.metrics:
            raise ValueError(unknown("metric", metric, self.metrics, place="comparison"))
        return tuple(row for row in self.rows if row.metric == metric)


def compare_numbers(first: ProbeNumbers, second: ProbeNumbers, *, z_limit: float = 2.0) -> ComparisonNumbers:
    """Compare two results, see `ProbeResult.compare`."""
    if not isinstance(second, ProbeNumbers):
        raise TypeError(f"compare takes another ProbeResult, got a {type(second).__name__}")
    if not (math.isfinite(z_limit) and z_limit > 0):
        raise ValueError(f"z_limit must be a positive number of standard errors, got {z_limit}")
    common = _Common(first, second)
    single_views = [[i] for i in range(len(common.views))]
    rows: list[ComparisonRow] = []
    view_rows: list[ComparisonRow] = []
    for metric in common.metrics:
        pair = common.pair(metric)
        rows += _rows(common, metric, pair, common.augmentations, z_limit)
        view_rows += _rows(common, metric, pair, single_views, z_limit)
    return ComparisonNumbers(
        rows=tuple(rows),
        view_rows=tuple(view_rows),
        first=first.when,
        second=second.when,
        z_limit=z_limit,
        left_out=(*left_out(first, second), *common.grids.sentences()),
        notes=tuple(common.notes()),
        embedding=common_embedding(first, second),
    )


class _Cells(NamedTuple):
    """One result's table of a metric, cut to the common views and layers."""

    value: Tensor
    std_error: Tensor
    attempted: Tensor
    shares: Tensor | None

    def without(self, places: Tensor) -> _Cells:
        """The same as if nothing had been measured in some places."""
        return self._replace(value=self.value.masked_fill(places, torch.nan), attempted=self.attempted & ~places)


class _Pair(NamedTuple):
    """Both results' cells of a metric, whether their images can be paired, and whether it is 0 where nothing moves."""

    layers: list[str]
    first: _Cells
    second: _Cells
    paired: bool
    is_zero_at_rest: bool

    @property
    def standing(self) -> str:
        """What there is to compare: "no value" in both results, "no error", or "paired" or "apart"."""
        known = (self.first.value + self.second.value).isfinite()
        if not known.any():
            return "no value"
        if not (known & (self.first.std_error + self.second.std_error).isfinite()).any():
            return "no error"
        return "paired" if self.paired else "apart"


class _Common:
    """What two results have in common."""

    def __init__(self, first: ProbeNumbers, second: ProbeNumbers) -> None:
        self.first, self.second = first, second
        self.pairing = pair_images(first, second)
        self.shares = Shares((first, second))
        there = {view.key: j for j, view in enumerate(second.views)}
        here = [i for i, view in enumerate(first.views) if view.key in there]
        self.views = [first.views[i] for i in here]
        # By result the places of these views in its tables.
        self.places = (here, [there[view.key] for view in self.views])
        by_name: dict[str, list[int]] = {}
        for i, view in enumerate(self.views):
            by_name.setdefault(view.augmentation, []).append(i)
        self.augmentations = list(by_name.values())
        self.grids = OtherGrids(first, second)
        self.metrics = [metric for metric in first.metrics if self.layers(metric)]
        if not self.views:
            raise ValueError(
                "the results have no view (an augmentation at one severity) in common: "
                f"{what_each_has(first, second)}; compare two results of one kind of probe, measured under banks that "
                "share a view"
            )
        refused = list(self.grids.sentences())
        if not self.metrics and refused:
            raise ValueError(
                f"the results have nothing in common that can be compared: {'; '.join(refused)}; measure other metrics "
                "beside these, or models whose cells lie alike"
            )
        if not self.metrics:
            raise ValueError(
                f"the results have no metric at a layer of one name in common: {what_each_has(first, second)}; compare "
                "two results of one kind of probe, with a metric in common, of models whose layers go by the same "
                "names"
            )

    def layers(self, metric: str) -> list[str]:
        """The layers that both results' tables of a metric have."""
        if metric not in self.second.tables:
            return []
        there = set(self.second.table(metric).layers)
        both = [layer for layer in self.first.table(metric).layers if layer in there]
        return [layer for layer in both if not self.grids.refuse(metric, layer)]

    def pair(self, metric: str) -> _Pair:
        """Both results' cells of a metric."""
        layers = self.layers(metric)
        first, second = (self._cut(metric, layers, side=side) for side in (0, 1))
        if metric == SENSITIVITY and self.moved_in_one:
            first, second = self._without_moved(first), self._without_moved(second)
        carried = self.grids.carried(metric, layers, self.views)
        if carried is not None:
            first, second = first.without(carried), second.without(carried)
        paired = self.pairing.same and _as_many_images(first, second)
        is_zero_at_rest = self.first.table(metric).quantity.at_identity == 0
        return _Pair(layers, first, second, paired, is_zero_at_rest)

    @cached_property
    def moved_in_one(self) -> list[int]:
        """The views that move pixels in one result only, under which one sensitivity is pooled and the other is not."""
        there = [self.second.views[j].moves_pixels for j in self.places[1]]
        return [i for i, view in enumerate(self.views) if view.moves_pixels != there[i]]

    def _without_moved(self, cells: _Cells) -> _Cells:
        value = cells.value.clone()
        value[self.moved_in_one] = torch.nan
        return cells._replace(value=value)

    def _cut(self, metric: str, layers: list[str], *, side: int) -> _Cells:
        """One result's cells of the common views and layers, its images in the common order."""
        table, views = (self.first, self.second)[side].table(metric), self.places[side]
        columns_by_name = {layer: i for i, layer in enumerate(table.layers)}
        columns = [columns_by_name[layer] for layer in layers]
        shares, order = self.shares.of(metric, views, side=side), self.pairing.orders[side]
        if shares is not None:
            shares = shares[:, columns]
        if shares is not None and order is not None:
            shares = shares[:, :, order]
        return _Cells(
            value=table.value[views][:, columns],
            std_error=table.std_error[views][:, columns],
            attempted=table.attempted[views][:, columns],
            shares=shares,
        )

    def notes(self) -> Iterator[str]:
        """Sentences on how the errors came about, and on what else differs."""
        by_standing: dict[str, list[str]] = {}
        for metric in self.metrics:
            by_standing.setdefault(self.pair(metric).standing, []).append(metric)
        yield from pairing_notes(
            self.pairing,
            results=(self.first, self.second),
            paired=by_standing.get("paired", ()),
            apart=by_standing.get("apart", ()),
            not_found=self.shares.not_found,
        )
        if "no error" in by_standing:
            yield f"without standard errors, so never marked: {listed(by_standing['no error'])}"
        if "no value" in by_standing:
            names = listed(by_standing["no value"])
            yield f"no value in both results under any view that both have, so not compared: {names}"
        yield from banks_differ(self.first, self.second)
        yield from self.grids.notes(self.metrics)
        if self.moved_in_one:
            names = listed(self.views[i].label for i in self.moved_in_one)
            yield (
                f"said to move pixels in one result only, so that sensitivity is not the same number there and not "
                f"compared: {names}; sensitivity_flat and sensitivity_pooled are"
            )


def _as_many_images(first: _Cells, second: _Cells) -> bool:
    return first.shares is not None and second.shares is not None and first.shares.shape == second.shares.shape


def _rows(
    common: _Common, metric: str, pair: _Pair, groups: Sequence[Sequence[int]], z_limit: float
) -> Iterator[ComparisonRow]:
    """A row for each group of views and layer to which the metric applies in one of the results."""
    weights = _weights(groups, (pair.first.value + pair.second.value).isfinite())
    first = _weighted(weights, pair.first.value)
    second = _weighted(weights, pair.second.value)
    change = second - first
    error = _error_of_change(weights, pair)
    negligible = _negligible(first, second, is_zero_at_rest=pair.is_zero_at_rest)
    beyond = (change.abs() > z_limit * error) & (change.abs() > negligible)
    z_score = torch.where(error > 0, change / error, torch.nan)
    applies = pair.first.attempted | pair.second.attempted
    is_mean = groups is common.augmentations
    depths = [common.first.layer_index(layer) for layer in pair.layers]
    for i, group in enumerate(groups):
        view = common.views[group[0]]
        for column in applies[list(group)].any(0).nonzero().flatten().tolist():
            yield ComparisonRow(
                metric=metric,
                layer=pair.layers[column],
                layer_index=depths[column],
                augmentation=view.augmentation,
                level=None if is_mean else view.level,
                severity=math.nan if is_mean else view.severity,
                first=float(first[i, column]),
                second=float(second[i, column]),
                change=float(change[i, column]),
                std_error=float(error[i, column]),
                z_score=float(z_score[i, column]),
                beyond=bool(beyond[i, column]),
                paired=pair.paired,
            )


def _negligible(first: Tensor, second: Tensor, *, is_zero_at_rest: bool) -> Tensor:
    """What of a change may be rounding of the forward passes."""
    relative = ROUNDING * torch.maximum(first.abs(), second.abs())
    return relative.clamp(min=ROUNDING) if is_zero_at_rest else relative


def _weights(groups: Sequence[Sequence[int]], known: Tensor) -> Tensor:
    """Weights (G, V, L) of the means over groups of views, over what is known."""
    weights = torch.zeros(len(groups), *known.shape, dtype=torch.float64)
    for i, group in enumerate(groups):
        weights[i, list(group)] = known[list(group)].double()
    return weights / weights.sum(1, keepdim=True).clamp(min=1)


def _weighted(weights: Tensor, values: Tensor) -> Tensor:
    total = torch.einsum("gvl,vl->gl", weights, values.masked_fill(~values.isfinite(), 0.0))
    return torch.where((weights != 0).any(1), total, torch.nan)


def _error_of_change(weights: Tensor, pair: _Pair) -> Tensor:
    first, second = pair.first, pair.second
    if pair.paired and first.shares is not None and second.shares is not None:
        error = combined_error(weights, first.std_error + second.std_error, second.shares - first.shares)
    else:
        before = combined_error(weights, first.std_error, first.shares)
        after = combined_error(weights, second.std_error, second.shares)
        error = torch.hypot(before, after)
    return torch.where((weights != 0).any(1), error, torch.nan)
