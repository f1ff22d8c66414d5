"""The numbers of one probe, found by name; it knows no file, no text and no picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from torch import Tensor

from kornia_lightning_probe.results.metadata import ProbeMetadata
from kornia_lightning_probe.results.plain import plain
from kornia_lightning_probe.results.tables import INPUT, OUTPUT, ImageScores, MetricTable, ProbeRow, ViewInfo
from kornia_lightning_probe.wording import counted, known_names, unknown

#: The metric that is shown where none is asked for.
SENSITIVITY = "sensitivity"


class ProbeNumbers:
    """The numbers of one probe: a value and a standard error for each metric, layer and view.

    Args:
        layers: The chosen layers in order of execution, without the input pixels.
        views: The bank's views in their order.
        tables: A metric's name to its table; the tables may also hold the layers `input` (the pixels), `output`,
            and parts of a layer such as `stem:cls`.
        epoch: The epoch of the probe; -1 is before the first training step.
        step: The training step of the probe.
        metadata: What else is to be kept: plain numbers, strings, lists and dicts; anything else is written down
            as text. It becomes a `ProbeMetadata`.
        images: How far each image moved; None where that isn't kept.

    Attributes:
        images_elsewhere: Gives the images where they are not held, such as from the file of an older result, or None;
            it is asked each time.

    Raises:
        ValueError: If a table or the images have another number of views, or a layer that isn't known.

    Example:
        >>> import torch
        >>> table = MetricTable(("input", "conv"), torch.tensor([[0.5, 0.25]]), torch.zeros(1, 2), torch.ones(1, 2))
        >>> views = (ViewInfo("blur", 1, 2.0),)
        >>> numbers = ProbeNumbers(layers=("conv",), views=views, tables={"sensitivity": table})
        >>> numbers.value("sensitivity", layer="conv")
        0.25
        >>> numbers.rows[0].layer
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
        images: ImageScores | None = None,
    ) -> None:
        self.layers: tuple[str, ...] = tuple(layers)
        self.views: tuple[ViewInfo, ...] = tuple(views)
        self.tables: dict[str, MetricTable] = dict(tables)
        self.epoch = int(epoch)
        self.step = int(step)
        self.metadata = ProbeMetadata.of(plain(metadata or {}))
        self.images_held = images
        self.images_elsewhere: Callable[[], ImageScores | None] | None = None
        if images is not None and len(images.moved) != len(self.views):
            raise ValueError(f"the images have {len(images.moved)} views, the result {len(self.views)}")
        # A chosen layer may be called output.
        self._depths = {OUTPUT: len(self.layers) + 1, INPUT: 0}
        self._depths |= {name: i for i, name in enumerate(self.layers, start=1)}
        for metric, table in self.tables.items():
            if len(table.value) != len(self.views):
                raise ValueError(f"the table of {metric!r} has {len(table.value)} views, the result {len(self.views)}")
            for layer in table.layers:
                self.layer_index(layer)

    def __repr__(self) -> str:
        counts = {"view": len(self.views), "layer": len(self.layers), "metric": len(self.metrics)}
        size = " x ".join(counted(count, thing) for thing, count in counts.items())
        parts = [part for part in (self.when, size) if part]
        return f"{type(self).__name__}({', '.join(parts)})"

    @property
    def images(self) -> ImageScores | None:
        """How far each image moved; None where that is kept nowhere."""
        if self.images_held is None and self.images_elsewhere is not None:
            return self.images_elsewhere()
        return self.images_held

    @images.setter
    def images(self, images: ImageScores | None) -> None:
        self.images_held, self.images_elsewhere = images, None

    @property
    def when(self) -> str:
        """The time of the probe as a text: `epoch 3, step 120`, `before training`, or "" without a Trainer."""
        if self.epoch < 0:
            return "before training"
        if self.epoch == self.step == 0 and "run" not in self.metadata:
            # What a Trainer has measured names its run.
            return ""
        return f"epoch {self.epoch}, step {self.step}"

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics that were measured."""
        return tuple(self.tables)

    @property
    def augmentations(self) -> tuple[str, ...]:
        """The names of the augmentations, each once, in the bank's order."""
        return tuple(dict.fromkeys(view.augmentation for view in self.views))

    @cached_property
    def rows(self) -> tuple[ProbeRow, ...]:
        """Every number as a tidy row, by metric, view and layer."""
        rows: list[ProbeRow] = []
        for metric in self.tables:
            rows += self._rows_of(metric)
        return tuple(rows)

    def _rows_of(self, metric: str) -> Iterator[ProbeRow]:
        table = self.tables[metric]
        depths = [self.layer_index(layer) for layer in table.layers]
        columns = [table.value, table.std_error, table.num_images]
        numbers = [column.tolist() for column in columns]
        for i, j in table.attempted.nonzero().tolist():
            view = self.views[i]
            place = (self.epoch, self.step, metric, table.layers[j], depths[j])
            value, error, images = (column[i][j] for column in numbers)
            yield ProbeRow(*place, view.augmentation, view.level, view.severity, value, error, images)

    def views_of(self, augmentation: str) -> list[int]:
        """The places of an augmentation's views, by ascending severity.

        Raises:
            ValueError: If there is no such augmentation; the message shows near names.
        """
        if augmentation not in self.augmentations:
            raise ValueError(unknown("augmentation", augmentation, self.augmentations))
        places = [place for place, view in enumerate(self.views) if view.augmentation == augmentation]
        return sorted(places, key=lambda place: self.views[place].severity)

    def is_curve(self, augmentation: str) -> bool:
        """Whether an augmentation's severities are a curve, and not the ends of a range or the corners of several."""
        return all(view.on_curve for view in self.views if view.augmentation == augmentation)

    def layer_index(self, layer: str) -> int:
        """The depth of a layer: 0 for `input`, 1 for the first chosen layer, the last plus one for `output`.

        A part of a layer (`stem:cls`) has the index of its layer.

        Raises:
            ValueError: If there is no such layer; the message shows near names.
        """
        whole = layer.rpartition(":")[0]
        depth = self._depths.get(layer, self._depths.get(whole))
        if depth is None:
            raise ValueError(unknown("layer", layer, (INPUT, *self.layers, OUTPUT)))
        return depth

    def table(self, metric: str) -> MetricTable:
        """The table of one metric: its layers, values, standard errors and numbers of images.

        Raises:
            ValueError: If the metric wasn't measured; the message shows near names.
        """
        if metric not in self.tables:
            raise ValueError(unknown("metric", metric, self.metrics))
        return self.tables[metric]

    def tensor(self, metric: str) -> Tensor:
        """The values of one metric, float64 (views, layers that this metric has: `table(metric).layers`).

        Raises:
            ValueError: If the metric wasn't measured.
        """
        return self.table(metric).value.clone()

    def value(
        self,
        metric: str,
        layer: str | None = None,
        augmentation: str | None = None,
        level: int | None = None,
        *,
        severity: float | None = None,
    ) -> float:
        """The mean of a metric over what is not given.

        NaN is skipped and every view counts once: the mean over the layers is taken within each view first.

        Args:
            metric: The metric's name.
            layer: A layer's name; None is the mean over all layers that the metric has, without `input`.
            augmentation: An augmentation's name; None is the mean over all of them.
            level: A level, from 1; None is the mean over all of them.
            severity: A view's severity, such as 15 degrees, in place of its level.

        Returns:
            The mean in the metric's unit; NaN if no number is left.

        Raises:
            ValueError: If a name, level or severity is unknown (the message shows near names), or both level and
                severity are given.
        """
        columns = self._columns(metric, layer)
        views = self.views_at(augmentation, level, severity)
        return self.table(metric).mean(views, columns)

    def std_error(
        self,
        metric: str,
        layer: str | None = None,
        augmentation: str | None = None,
        level: int | None = None,
        *,
        severity: float | None = None,
    ) -> float:
        """The standard error of `value(...)`.

        All views show the same images, so their errors are not independent. Where the table keeps each image's
        influence, that is taken into account. Else (a file's, or a training's older result) it is an error from above,
        the mean of the standard errors: the largest that the standard error of the mean can be. It covers the sampling
        of images, not the augmentation's draw nor the training's seed.

        Returns:
            The standard error in the metric's unit; NaN where a value that takes part has none.

        Raises:
            ValueError: As `value` does.
        """
        columns = self._columns(metric, layer)
        views = self.views_at(augmentation, level, severity)
        return self.table(metric).error_of_mean(views, columns)

    def _columns(self, metric: str, layer: str | None) -> list[int]:
        """The places of a layer in a metric's table; of all but the input where none is given."""
        layers = self.table(metric).layers
        if layer is None:
            return [i for i, name in enumerate(layers) if name != INPUT]
        if layer not in layers:
            self.layer_index(layer)
            raise ValueError(f"{metric!r} was not measured at layer {layer!r}; {known_names('layer', layers)}")
        return [layers.index(layer)]

    def views_at(
        self, augmentation: str | None = None, level: int | None = None, severity: float | None = None
    ) -> list[int]:
        """The places of the views of an augmentation at a level or severity; of all where none is given.

        Raises:
            ValueError: As `value` does.
        """
        if augmentation is not None and augmentation not in self.augmentations:
            raise ValueError(unknown("augmentation", augmentation, self.augmentations))
        if level is not None and severity is not None:
            raise ValueError(
                f"level={level} and severity={severity:g} were given, and each names a view; give one of them: a level "
                "counts from 1, a severity is in the augmentation's own unit"
            )
        views = list(enumerate(self.views))
        named = [i for i, view in views if augmentation in (None, view.augmentation)]
        if level is None and severity is None:
            return named
        found = [i for i in named if _is_at(self.views[i], level, severity)]
        if not found:
            raise ValueError(self._no_view(augmentation, level, severity, [self.views[i] for i in named]))
        return found

    def _no_view(
        self, augmentation: str | None, level: int | None, severity: float | None, views: Sequence[ViewInfo]
    ) -> str:
        of = augmentation or "any augmentation"
        levels = sorted({view.level for view in views})
        severities = sorted({view.severity for view in views})
        shown = f"[{', '.join(f'{known:g}' for known in severities)}]"
        if level is None:
            hint = f"; {severity:g} is a level: give level={severity:g}" if severity in levels else ""
            return f"no severity {severity:g} of {of}; its severities are {shown}{hint}"
        hint = f"; {level} is a severity: give severity={level}" if level in severities else ""
        return f"no level {level!r} of {of}; its levels are {levels}{hint}"


def _is_at(view: ViewInfo, level: int | None, severity: float | None) -> bool:
    if severity is None:
        return view.level == level
    return math.isclose(view.severity, severity)


def shown_metric(metrics: Sequence[str]) -> str:
    """The metric that is shown where none is asked for: sensitivity, or else the first that was measured.

    It depends on what was measured, never on a value, so that it is the same in every epoch.

    Raises:
        ValueError: If nothing was measured.

    Example:
        >>> shown_metric(("cosine", "sensitivity")), shown_metric(("cka_previous", "rankme"))
        ('sensitivity', 'cka_previous')
    """
    if not metrics:
        raise ValueError("there is nothing to show in this result: no metric was measured")
    return SENSITIVITY if SENSITIVITY in metrics else metrics[0]
