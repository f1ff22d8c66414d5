"""What a probe has found: compact tables, tidy rows, JSON, a text summary; it knows no model and no logger."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kornia_lightning_probe.reporting.text.summary import summary_text
from kornia_lightning_probe.results.comparison import compare_results
from kornia_lightning_probe.results.headline import HEADLINE, headline_table
from kornia_lightning_probe.results.severity import THRESHOLD, severity_columns, severity_rows
from kornia_lightning_probe.results.storage import json_text, plain, state_of_json, write_whole
from kornia_lightning_probe.results.tables import MetricTable, ProbeRow, ViewInfo
from kornia_lightning_probe.wording import known_names, unknown

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

    from matplotlib.figure import Figure
    from pandas import DataFrame
    from torch import Tensor

    from kornia_lightning_probe.results.comparison import Comparison
    from kornia_lightning_probe.results.severity import SeverityRow

__all__ = ["MetricTable", "ProbeResult", "ProbeRow", "ViewInfo"]

FORMAT = 1
INPUT = "input"
OUTPUT = "output"


class ProbeResult:
    """The numbers of one probe: a value and a standard error for each metric, layer and view.

    Args:
        layers: The chosen layers in order of execution, without the input pixels.
        views: The bank's views in their order.
        tables: A metric's name to its table; the tables may also hold the layers `input` (the pixels), `output`,
            and parts of a layer such as `stem:cls`.
        epoch: The epoch of the probe; -1 is before the first training step.
        step: The training step of the probe.
        metadata: What else is to be kept: plain numbers, strings, lists and dicts; anything else is written down
            as text, NaN as None. `summary()` reads `num_images`, `device`, `notes` (sentences) and `left_out` (a
            name to a reason).

    Raises:
        ValueError: If a table has another number of views, a layer that isn't known, or the name "headline".

    Example:
        >>> import torch
        >>> table = MetricTable(("input", "conv"), torch.tensor([[0.5, 0.25]]), torch.zeros(1, 2), torch.ones(1, 2))
        >>> result = ProbeResult(layers=("conv",), views=(ViewInfo("blur", 1, 2.0),), tables={"sensitivity": table})
        >>> result.value("sensitivity", layer="conv")
        0.25
        >>> result.rows[0].layer
        'input'
    """

    def __init__(
        self,
        *,
        layers: Iterable[str],
        views: Iterable[ViewInfo],
        tables: Mapping[str, MetricTable],
        epoch: int = 0,
        step: int = 0,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self.layers: tuple[str, ...] = tuple(layers)
        self.views: tuple[ViewInfo, ...] = tuple(views)
        self.epoch = int(epoch)
        self.step = int(step)
        self.metadata: dict[str, Any] = plain(dict(metadata or {}))
        self._tables = dict(tables)
        for metric, table in self._tables.items():
            if metric == HEADLINE:
                raise ValueError(f"{HEADLINE!r} is what a result composes of its metrics; give the metric another name")
            if len(table.value) != len(self.views):
                raise ValueError(f"the table of {metric!r} has {len(table.value)} views, the result {len(self.views)}")
            for layer in table.layers:
                self.layer_index(layer)

    def __repr__(self) -> str:
        size = f"{len(self.views)} views x {len(self.layers)} layers"
        return f"ProbeResult(epoch {self.epoch}, step {self.step}, {size}: {', '.join(self.metrics)})"

    @property
    def when(self) -> str:
        """The time of the probe as a text: `epoch 3, step 120`, or `before training`."""
        return "before training" if self.epoch < 0 else f"epoch {self.epoch}, step {self.step}"

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics that were measured."""
        return tuple(self._tables)

    @property
    def augmentations(self) -> tuple[str, ...]:
        """The names of the augmentations, each once, in the bank's order."""
        return tuple(dict.fromkeys(view.augmentation for view in self.views))

    @cached_property
    def rows(self) -> tuple[ProbeRow, ...]:
        """Every number as a tidy row, by metric, view and layer."""
        return tuple(row for metric in self._tables for row in self._rows_of(metric))

    def _rows_of(self, metric: str) -> Iterable[ProbeRow]:
        table = self._tables[metric]
        columns = (table.value.tolist(), table.std_error.tolist(), table.num_images.tolist(), table.attempted.tolist())
        for view, *cells in zip(self.views, *columns, strict=True):
            for layer, value, error, images, applies in zip(table.layers, *cells, strict=True):
                if applies:
                    place = (self.epoch, self.step, metric, layer, self.layer_index(layer))
                    yield ProbeRow(*place, view.augmentation, view.level, view.severity, value, error, images)

    def layer_index(self, layer: str) -> int:
        """The depth of a layer: 0 for `input`, 1 for the first chosen layer, the last plus one for `output`.

        A part of a layer (`stem:cls`) has the index of its layer.

        Raises:
            ValueError: If there is no such layer; the message shows near names.
        """
        for name in (layer, layer.rpartition(":")[0]):
            if name in self.layers:
                return self.layers.index(name) + 1
            if name in (INPUT, OUTPUT):
                return 0 if name == INPUT else len(self.layers) + 1
        raise ValueError(unknown("layer", layer, (INPUT, *self.layers, OUTPUT)))

    def table(self, metric: str) -> MetricTable:
        """The table of one metric: its layers, values, standard errors and numbers of images.

        "headline", neither in `metrics` nor in files, is composed: sensitivity, for maps under geometric views the
        pooled one (`sensitivity_pooled`); without sensitivity, the first metric.

        Raises:
            ValueError: If the metric wasn't measured; the message shows near names.
        """
        if metric not in (HEADLINE, *self._tables):
            raise ValueError(unknown("metric", metric, self.metrics))
        return self._headline if metric == HEADLINE else self._tables[metric]

    @cached_property
    def _headline(self) -> MetricTable:
        return headline_table(self._tables, self.views)

    def tensor(self, metric: str) -> Tensor:
        """The values of one metric, float64 (views, layers that this metric has: `table(metric).layers`).

        Raises:
            ValueError: If the metric wasn't measured.
        """
        return self.table(metric).value.clone()

    def value(
        self, metric: str, layer: str | None = None, augmentation: str | None = None, level: int | None = None
    ) -> float:
        """The mean of a metric over what is not given.

        NaN is skipped and every view counts once: the mean over the layers is taken within each view first.

        Args:
            metric: The metric's name.
            layer: A layer's name; None is the mean over all layers that the metric has, without `input`.
            augmentation: An augmentation's name; None is the mean over all of them.
            level: A level, from 1; None is the mean over all of them.

        Returns:
            The mean in the metric's unit; NaN if no number is left.

        Raises:
            ValueError: If a name or level is unknown; the message shows near names.
        """
        views, columns = self._select(metric, layer, augmentation, level)
        return _mean(self.table(metric).value, views, columns)

    def std_error(
        self, metric: str, layer: str | None = None, augmentation: str | None = None, level: int | None = None
    ) -> float:
        """The standard error of `value(...)`.

        All views show the same images, so their errors are not independent. Where the table keeps each image's
        influence, that is taken into account. Else (a result from a file) it is an error from above, the mean of the
        standard errors: the largest that the standard error of the mean can be. It covers the sampling of images, not
        the augmentation's draw nor the training's seed.

        Returns:
            The standard error in the metric's unit; NaN where a value that takes part has none.

        Raises:
            ValueError: If a name or level is unknown.
        """
        views, columns = self._select(metric, layer, augmentation, level)
        return self.table(metric).error_of_mean(views, columns)

    def _select(
        self, metric: str, layer: str | None, augmentation: str | None, level: int | None
    ) -> tuple[list[int], list[int]]:
        layers = self.table(metric).layers
        if augmentation is not None and augmentation not in self.augmentations:
            raise ValueError(unknown("augmentation", augmentation, self.augmentations))
        if layer is not None and layer not in layers:
            self.layer_index(layer)
            raise ValueError(f"{metric!r} was not measured at layer {layer!r}; {known_names('layer', layers)}")
        named = [i for i, view in enumerate(self.views) if augmentation in (None, view.augmentation)]
        views = [i for i in named if level in (None, self.views[i].level)]
        if named and not views:
            levels = sorted({self.views[i].level for i in named})
            raise ValueError(f"no level {level!r} of {augmentation or 'any augmentation'}; its levels are {levels}")
        return views, [i for i, name in enumerate(layers) if name == layer or (layer is None and name != INPUT)]

    def severity(
        self, metric: str = "sensitivity", *, threshold: float = THRESHOLD, at_identity: float | None = None
    ) -> tuple[SeverityRow, ...]:
        """Each severity curve in a few numbers: the area under it over its range, its onset, its worst level.

        The presets' curves start at severity 0, where the augmentation does nothing; a ladder of your own is taken as
        it is. Areas are not to be averaged over augmentations: their ranges are arbitrary.

        Args:
            metric: The metric's name.
            threshold: The onset is the first severity at which the metric's distance from its value at the identity
                (for a sensitivity, the sensitivity) passes this, with straight lines between the levels.
            at_identity: What the metric reads for an augmentation that does nothing; None takes what is known of the
                metrics of this package.

        Returns:
            One row for each augmentation and layer.

        Raises:
            ValueError: If the metric is unknown, or the threshold isn't a positive number.
        """
        return severity_rows(self, metric, threshold=threshold, at_identity=at_identity)

    def compare(self, other: ProbeResult, *, z_limit: float = 2.0) -> Comparison:
        """What has changed from this result to another: `other` minus this, with its error.

        Where both hold the same images, in any order of one source's, and what each image adds to the values (as
        results in memory do, results from files don't), they are paired, which makes the errors much smaller. Only
        what both results have is compared; the comparison says what is left out.

        Args:
            other: The later result, or that of the other model.
            z_limit: A change is beyond sampling error where it is larger than this many standard errors.

        Returns:
            The changes as rows, a text table, a figure and a dataframe. Positive: `other` is larger.

        Raises:
            TypeError: If `other` is no ProbeResult.
            ValueError: If the results have no metric, view or layer in common, or `z_limit` isn't positive.
        """
        return compare_results(self, other, z_limit=z_limit)

    def without_influence(self) -> ProbeResult:
        """This result without what each image adds to the values, which is most of its memory; errors stay."""
        return self.from_state(self.state())

    def view_labels(self) -> tuple[str, ...]:
        """A short text for each view, such as `rotation 15`; only the name where an augmentation has one level."""
        names = [view.augmentation for view in self.views]
        return tuple(
            view.augmentation if names.count(view.augmentation) == 1 else f"{view.augmentation} {view.severity:g}"
            for view in self.views
        )

    def summary(self, *, max_layers: int | None = 40) -> str:
        """A text table for a terminal of 100 columns: layers in order of depth, one column for each augmentation.

        Args:
            max_layers: The most layers to show, picked evenly by depth; the table says how many it leaves out. None
                shows all.
        """
        return summary_text(self, max_layers=max_layers)

    def to_pandas(self) -> DataFrame:
        """The rows as a pandas DataFrame, one column for each field of `ProbeRow`.

        Raises:
            ImportError: If pandas isn't installed.
        """
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise ImportError("to_pandas needs pandas: pip install 'kornia-lightning-probe[dataframe]'") from error
        return DataFrame(list(self.rows), columns=list(ProbeRow._fields))

    def plot(
        self,
        kind: str = "profile",
        *,
        metric: str | None = None,
        augmentation: str | None = None,
        layers: Sequence[str] | None = None,
    ) -> Figure:
        """Draw the result.

        Args:
            kind: "profile" (value over depth), "heatmap" (layers x views) or "severity" (value over severity).
            metric: The metric's name; None is the headline.
            augmentation: For the profile: this augmentation only; None is the mean over the views.
            layers: For the severity curves: these layers; None picks at most ten, evenly by depth.

        Returns:
            A matplotlib Figure that no window holds: `figure.savefig(path)` writes it.

        Raises:
            ValueError: If the kind or a name is unknown.
            ImportError: If matplotlib isn't installed.
        """
        from kornia_lightning_probe.reporting.figures.views import plot_heatmap, plot_profile, plot_severity

        if kind == "profile":
            return plot_profile([self], metric=metric, augmentation=augmentation)
        if kind == "heatmap":
            return plot_heatmap(self, metric=metric)
        if kind == "severity":
            return plot_severity(self, metric=metric, layers=layers)
        raise ValueError(unknown("kind of plot", kind, ("profile", "heatmap", "severity")))

    def state(self) -> dict[str, Any]:
        """The whole result as tensors, numbers, strings, lists and dicts, which a checkpoint loads as weights only."""
        tables = {
            metric: {
                "layers": list(table.layers),
                "value": table.value.clone(),
                "std_error": table.std_error.clone(),
                "num_images": table.num_images.clone(),
                "attempted": table.attempted.clone(),
            }
            for metric, table in self._tables.items()
        }
        return {
            "format": FORMAT,
            "epoch": self.epoch,
            "step": self.step,
            "layers": list(self.layers),
            "views": [dict(vars(view)) for view in self.views],
            "tables": tables,
            "metadata": plain(self.metadata),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> ProbeResult:
        """The result that `state()` has written.

        Raises:
            ValueError: If the state has another format.
        """
        if state.get("format") != FORMAT:
            found = state.get("format")
            raise ValueError(f"this is no probe result of format {FORMAT}: its format is {found!r}; update the package")
        return cls(
            layers=state["layers"],
            views=[ViewInfo(**view) for view in state["views"]],
            tables={
                name: MetricTable(**{**table, "layers": tuple(table["layers"])})
                for name, table in state["tables"].items()
            },
            epoch=state["epoch"],
            step=state["step"],
            metadata=state["metadata"],
        )

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """The whole result as JSON text; with a path it is also written there, at once or not at all.

        NaN becomes null, an infinity "inf" or "-inf"; every other number comes back bit for bit. The severity summaries
        are written for other readers; what each image adds to the values isn't. Missing folders are made; a reader
        never sees half a file.

        Args:
            path: Where to write; None writes nothing.

        Returns:
            The JSON text.
        """
        text = json_text({**self.state(), "severity": severity_columns(self)})
        if path is not None:
            write_whole(Path(path), text)
        return text

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> ProbeResult:
        """The result in a JSON file that `to_json` has written; the JSON text itself is taken too.

        Raises:
            ValueError: If the text is no probe result, or of another format.
        """
        is_text = isinstance(path, str) and path.lstrip().startswith("{")
        text = str(path) if is_text else Path(path).read_text(encoding="utf-8")
        return cls.from_state(state_of_json(text))


def _mean(table: Tensor, views: list[int], columns: list[int]) -> float:
    return float(table[views][:, columns].nanmean(dim=1).nanmean())
