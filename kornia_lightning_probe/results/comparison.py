"""What has changed between two results, and whether it is more than the sampling of images explains."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, NamedTuple

import torch

from kornia_lightning_probe.functional.influence import combined_error
from kornia_lightning_probe.reporting.text.comparison import comparison_text
from kornia_lightning_probe.results.pairing import pair_images, pairing_notes
from kornia_lightning_probe.wording import listed, unknown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.figure import Figure
    from pandas import DataFrame
    from torch import Tensor

    from kornia_lightning_probe.result import ProbeResult
    from kornia_lightning_probe.results.tables import MetricTable, ViewInfo

# Two forwards of one model agree to this, relatively: what is smaller is rounding, however small its error.
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
class Comparison:
    """The changes from a first result to a second: second minus first.

    Errors cover the sampling of images, not the augmentations' draw nor the trainings' seeds. Where nothing has
    changed, about one cell in twenty is beyond two standard errors by chance.

    Attributes:
        rows: the mean over the levels of each augmentation, for each metric, augmentation and layer.
        view_rows: each view on its own.
        first: when the first result was measured, as a text.
        second: when the second was.
        z_limit: a change is beyond sampling error where it is larger than this many standard errors.
        left_out: sentences, what only one of the results has.
        notes: sentences on what a reader should know.
    """

    rows: tuple[ComparisonRow, ...]
    view_rows: tuple[ComparisonRow, ...]
    first: str
    second: str
    z_limit: float
    left_out: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """What is compared, as a text: `epoch 5, step 40 minus epoch 0, step 0`."""
        if self.first == self.second:
            return f"the second result minus the first (both {self.first})"
        return f"{self.second} minus {self.first}"

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

    def summary(self, metric: str | None = None) -> str:
        """A text table of layers x augmentations for a terminal of 100 columns; `*` marks what is beyond error.

        Args:
            metric: The metric's name; None takes sensitivity, or else the first, and gives a line to each other.

        Raises:
            ValueError: If the metric wasn't compared.
        """
        return comparison_text(self, metric)

    def plot(self, metric: str = "sensitivity") -> Figure:
        """Draw the changes over layers and augmentations; what is within sampling error is pale and hatched.

        Raises:
            ValueError: If the metric wasn't compared.
            ImportError: If matplotlib isn't installed.
        """
        from kornia_lightning_probe.reporting.figures.comparison import plot_comparison

        return plot_comparison(self, metric=metric)

    def to_pandas(self, *, views: bool = False) -> DataFrame:
        """The rows as a pandas DataFrame, one column for each field of `ComparisonRow`.

        Args:
            views: Take the rows of single views in place of the means over levels.

        Raises:
            ImportError: If pandas isn't installed.
        """
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise ImportError("to_pandas needs pandas: pip install 'kornia-lightning-probe[dataframe]'") from error
        return DataFrame(list(self.view_rows if views else self.rows), columns=list(ComparisonRow._fields))


def compare_results(first: ProbeResult, second: ProbeResult, *, z_limit: float = 2.0) -> Comparison:
    """Compare two results, see `ProbeResult.compare`."""
    if not (callable(getattr(second, "table", None)) and hasattr(second, "views")):
        raise TypeError(f"compare takes another ProbeResult, got a {type(second).__name__}")
    if not (math.isfinite(z_limit) and z_limit > 0):
        raise ValueError(f"z_limit must be a positive number of standard errors, got {z_limit}")
    common = _Common(first, second)
    rows: list[ComparisonRow] = []
    view_rows: list[ComparisonRow] = []
    for metric in common.metrics:
        pair = common.pair(metric)
        rows += _rows(common, metric, pair, common.augmentations, z_limit)
        view_rows += _rows(common, metric, pair, [[i] for i in range(len(common.views))], z_limit)
    return Comparison(
        tuple(rows), tuple(view_rows), first.when, second.when, z_limit, tuple(common.left_out()), tuple(common.notes())
    )


class _Cells(NamedTuple):
    """One result's table of a metric, cut to the common views and layers."""

    value: Tensor
    std_error: Tensor
    attempted: Tensor
    shares: Tensor | None


class _Pair(NamedTuple):
    """Both results' cells of a metric, and whether their images can be paired."""

    layers: list[str]
    first: _Cells
    second: _Cells
    paired: bool

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
    """What two results have in common, and what they don't."""

    def __init__(self, first: ProbeResult, second: ProbeResult) -> None:
        self.results = (first, second)
        self.pairing = pair_images(first, second)
        places = {(view.augmentation, view.severity): i for i, view in enumerate(second.views)}
        pairs = [(i, places.get((view.augmentation, view.severity))) for i, view in enumerate(first.views)]
        self.places = [(i, j) for i, j in pairs if j is not None]
        self.views: list[ViewInfo] = [first.views[i] for i, _ in self.places]
        names = list(dict.fromkeys(view.augmentation for view in self.views))
        self.augmentations = [[i for i, view in enumerate(self.views) if view.augmentation == name] for name in names]
        self.metrics = [metric for metric in first.metrics if metric in second.metrics and self.layers(metric)]
        if not self.views:
            raise ValueError(
                f"the results have no view (an augmentation at one severity) in common: {_both(first, second)}; "
                "compare two results of one kind of probe, measured under banks that share a view"
            )
        if not self.metrics:
            raise ValueError(
                f"the results have no metric at a layer of one name in common: {_both(first, second)}; compare two "
                "results of one kind of probe, with a metric in common, of models whose layers go by the same names"
            )

    def layers(self, metric: str) -> list[str]:
        """The layers that both results' tables of a metric have."""
        there = set(self.results[1].table(metric).layers)
        return [layer for layer in self.results[0].table(metric).layers if layer in there]

    def pair(self, metric: str) -> _Pair:
        """Both results' cells of a metric."""
        layers = self.layers(metric)
        first, second = (self._cut(result.table(metric), layers, side) for side, result in enumerate(self.results))
        kept = first.shares is not None and second.shares is not None and first.shares.shape == second.shares.shape
        return _Pair(layers, first, second, self.pairing.same and kept)

    def _cut(self, table: MetricTable, layers: list[str], side: int) -> _Cells:
        views = [pair[side] for pair in self.places]
        places = {layer: column for column, layer in enumerate(table.layers)}
        columns = [places[layer] for layer in layers]
        image_shares, order = table.shares(views), self.pairing.orders[side]
        kept = None if image_shares is None else image_shares[:, columns]
        if kept is not None and order is not None:
            kept = kept[:, :, order]
        value, error, attempted = (
            cells[views][:, columns] for cells in (table.value, table.std_error, table.attempted)
        )
        return _Cells(value, error, attempted, kept)

    def left_out(self) -> Iterator[str]:
        """Sentences on what only one of the results has."""
        for here, there, which in ((0, 1, "first"), (1, 0, "second")):
            ours, theirs = self.results[here], self.results[there]
            known = {(view.augmentation, view.severity) for view in theirs.views}
            for view in ours.views:
                if (view.augmentation, view.severity) not in known:
                    yield f"view {view.augmentation} {view.severity:g}: only in the {which} result"
            named_there = set(_all_layers(theirs))
            for layer in _all_layers(ours):
                if layer not in named_there:
                    yield f"layer {layer}: only in the {which} result"
            for metric in ours.metrics:
                yield from _metric_left_out(ours, theirs, metric, which, named_there)

    def notes(self) -> Iterator[str]:
        """Sentences on how the errors came about, and on what else differs."""
        standing = {metric: self.pair(metric).standing for metric in self.metrics}
        paired, apart, unsure, nothing = (
            [metric for metric in self.metrics if standing[metric] == which]
            for which in ("paired", "apart", "no error", "no value")
        )
        yield from pairing_notes(self.results, self.pairing, paired=paired, apart=apart)
        if unsure:
            yield f"without standard errors, so never marked: {', '.join(unsure)}"
        if nothing:
            yield f"no value in both results under any view that both have, so not compared: {', '.join(nothing)}"
        yield from self._banks_differ()

    def _banks_differ(self) -> Iterator[str]:
        banks = [result.metadata.get("bank") or {} for result in self.results]
        seeds = [bank.get("seed") for bank in banks]
        if None not in seeds and seeds[0] != seeds[1]:
            yield f"the banks' seeds differ ({seeds[0]}, {seeds[1]}); the errors don't cover the augmentations' draw"
        texts = [
            {(view["augmentation"], view["severity"]): view["transform"] for view in bank.get("views", ())}
            for bank in banks
        ]
        for name, severity in texts[0].keys() & texts[1].keys():
            if texts[0][name, severity] != texts[1][name, severity]:
                yield f"{name} {severity:g} is not the same augmentation in both results"


def _both(first: ProbeResult, second: ProbeResult) -> str:
    """What each of two results has, as a text."""
    return "; ".join(
        f"the {which} has the views {listed([f'{view.augmentation} {view.severity:g}' for view in result.views])}, the "
        f"metrics {listed(result.metrics)} and the layers {listed(_all_layers(result))}"
        for which, result in (("first", first), ("other", second))
    )


def _all_layers(result: ProbeResult) -> list[str]:
    return list(dict.fromkeys([*result.layers, *(name for m in result.metrics for name in result.table(m).layers)]))


def _metric_left_out(
    ours: ProbeResult, theirs: ProbeResult, metric: str, which: str, named_there: set[str]
) -> Iterator[str]:
    if metric not in theirs.metrics:
        yield f"metric {metric}: only in the {which} result"
        return
    measured_there = set(theirs.table(metric).layers)
    for layer in ours.table(metric).layers:
        if layer not in measured_there and layer in named_there:
            yield f"{metric} at layer {layer}: only in the {which} result"


def _rows(
    common: _Common, metric: str, pair: _Pair, groups: Sequence[Sequence[int]], z_limit: float
) -> Iterator[ComparisonRow]:
    weights = _weights(groups, (pair.first.value + pair.second.value).isfinite())
    first, second = (_weighted(weights, cells.value) for cells in (pair.first, pair.second))
    change, error = second - first, _error_of_change(weights, pair)
    negligible = ROUNDING * torch.maximum(first.abs(), second.abs())
    beyond = (change.abs() > z_limit * error) & (change.abs() > negligible)
    z_score = torch.where(error > 0, change / error, torch.nan)
    means = groups is common.augmentations
    depths = [common.results[0].layer_index(layer) for layer in pair.layers]
    numbers = [part.tolist() for part in (first, second, change, error, z_score, beyond)]
    applies = pair.first.attempted | pair.second.attempted
    for group, *of_group in zip(groups, *numbers, strict=True):
        view = common.views[group[0]]
        concerned = applies[list(group)].any(0).tolist()
        for layer, depth, *cell in compress(zip(pair.layers, depths, *of_group, strict=True), concerned):
            yield ComparisonRow(
                metric=metric,
                layer=layer,
                layer_index=depth,
                augmentation=view.augmentation,
                level=None if means else view.level,
                severity=math.nan if means else view.severity,
                first=cell[0],
                second=cell[1],
                change=cell[2],
                std_error=cell[3],
                z_score=cell[4],
                beyond=cell[5],
                paired=pair.paired,
            )


def _weights(groups: Sequence[Sequence[int]], known: Tensor) -> Tensor:
    """Weights (G, V, L) of the means over groups of views, over what is known."""
    weights = torch.zeros(len(groups), *known.shape, dtype=torch.float64)
    for number_of_group, group in enumerate(groups):
        weights[number_of_group, list(group)] = known[list(group)].double()
    return weights / weights.sum(1, keepdim=True).clamp(min=1)


def _weighted(weights: Tensor, values: Tensor) -> Tensor:
    total = torch.einsum("gvl,vl->gl", weights, torch.where(values.isfinite(), values, 0.0))
    return torch.where((weights != 0).any(1), total, torch.nan)


def _error_of_change(weights: Tensor, pair: _Pair) -> Tensor:
    first, second = pair.first, pair.second
    if pair.paired and first.shares is not None and second.shares is not None:
        error = combined_error(weights, first.std_error + second.std_error, second.shares - first.shares)
    else:
        error = torch.hypot(*(combined_error(weights, cells.std_error, cells.shares) for cells in (first, second)))
    return torch.where((weights != 0).any(1), error, torch.nan)
