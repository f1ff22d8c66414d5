"""The storage of every measure: a torchmetrics.Metric with one row per image and statistic, which merges exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
import torch.distributed
from torch import Tensor
from torchmetrics import Metric

from kornia_lightning_probe.functional.distances import accumulation_dtype
from kornia_lightning_probe.wording import listed


def sum_over_ranks(tensor: Tensor, group: Any = None) -> list[Tensor]:
    """A ``dist_sync_fn`` for tables to which every rank has added its own cells: one all-reduce of one tensor.

    Sums by channel have two axes, and a rank without images may not know how many channels there are; for them the
    ranks agree on that first.

    Args:
        tensor: this rank's state.
        group: a process group; None is the default one.

    Returns:
        A list of one tensor, the sum over the ranks.
    """
    if tensor.ndim == 2:
        tensor = _as_wide_as_others(tensor, group)
    total = tensor.clone()
    torch.distributed.all_reduce(total, group=group)
    return [total]


def empty(shape: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros that take the memory of one: torchmetrics keeps what a state begins with beside the state itself."""
    return torch.zeros((), dtype=dtype, device=device).expand(*shape)


def one_more(counts: Tensor) -> Tensor:
    """Counts of a byte and one more; what has come 255 times has come too often, and is not taken for nothing."""
    return counts.clamp(max=254) + 1


def _as_wide_as_others(tensor: Tensor, group: Any) -> Tensor:
    columns = torch.tensor(tensor.shape[1], device=tensor.device)
    torch.distributed.all_reduce(columns, op=torch.distributed.ReduceOp.MAX, group=group)
    if tensor.shape[1] < int(columns) and not bool(tensor.any()):
        return tensor.new_zeros(len(tensor), int(columns))
    return tensor


class ImageTable(Metric):
    """Tables of scalars per image, view and layer, and of how often each cell was filled.

    Each image's row is written once, by the one process that owns the image, so adding the zeros of all others is
    exact: results do not depend on the number of processes, on the order of updates or on how batches were cut. Views,
    layers and the number of images are not known when a user builds a metric; :meth:`prepare` makes a copy that has
    its tables.

    Attributes:
        name: the metric's name.
        statistics: the names of the scalars per image.
        layers: the names of the table's columns, empty until prepared.
        image_ids: the images' numbers in their source, for what is said of them; empty: their rows.
        blocks: the blocks' rows in the tables, (start, stop); empty: not known.
        table: state, (statistic, view, layer, image), float64 (float32 on MPS), summed over processes.
        filled: state, (view, layer, image) uint8, how often a cell was written, up to 255.
    """

    is_differentiable = False
    full_state_update = False

    name: str
    statistics: tuple[str, ...]
    table: Tensor
    filled: Tensor
    layers: tuple[str, ...] = ()
    image_ids: tuple[int, ...] = ()
    blocks: tuple[tuple[int, int], ...] = ()

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("dist_sync_fn", sum_over_ranks)
        super().__init__(**kwargs)

    def prepare(
        self, views: Sequence[Any], layers: Sequence[str], num_images: int, *, device: torch.device | None = None
    ) -> Self:
        """A copy with empty tables for these views, layers and images; this metric stays as it is.

        Args:
            views: the views, one row each.
            layers: the layers' names, one column each.
            num_images: N.
            device: where the tables live; default: where this metric is.

        Raises:
            ValueError: where there is no view, no layer or no image, or the metric has no name or statistics.
        """
        self._require_names()
        shape = (len(views), len(layers), num_images)
        if min(shape) < 1:
            raise ValueError(
                f"{self!r} needs views, layers and images, got {shape[0]}, {shape[1]} and {shape[2]} of them"
            )
        place = torch.device(self.device if device is None else device)
        wide = accumulation_dtype(place)
        # Lightning validates under inference mode, and a tensor made there can't be written to afterwards.
        with torch.inference_mode(False):
            prepared: Self = self.clone().to(place)  # type: ignore[assignment]  # a Metric for torchmetrics
            prepared.layers = tuple(layers)
            for name, sides, dtype in (("table", self._table_shape(shape), wide), ("filled", shape, torch.uint8)):
                beginning = empty(sides, dtype=dtype, device=place)
                prepared.add_state(name, beginning, dist_reduce_fx="sum")
                # It has kept a contiguous copy, of the size of the state.
                prepared._defaults[name] = beginning
            prepared.reset()
        return prepared

    @property
    def is_prepared(self) -> bool:
        """Whether this metric has its tables."""
        return "table" in self._defaults

    def reset(self) -> None:
        """Empty the tables."""
        with torch.inference_mode(False):
            super().reset()

    def let_go(self) -> None:
        """Free the tables: a metric refers to itself, and would wait for the collector with all it has."""
        for name in self._defaults:
            setattr(self, name, torch.empty(0))

    def write(
        self,
        measured: Mapping[str, Mapping[str, Tensor]],
        views: range,
        ids: tuple[int, int],
        valid: Tensor | None = None,
    ) -> None:
        """Write the statistics of several layers in one go.

        Args:
            measured: by layer, for each statistic a tensor (views x images,), (views, images), or (images,) where it is
                the same under every view; a layer whose mapping is empty stays unfilled.
            views: the views' rows in the tables.
            ids: the images' rows, (start, stop).
            valid: which images had finite clean activations, (images,), or (layer, images) where layers differ; None:
                all.

        Raises:
            TypeError: where a layer's statistics are no mapping.
            ValueError: where statistics or shapes are not those declared, or a layer is not in the tables.
        """
        shape = (len(views), ids[1] - ids[0])
        for layer in measured.values():
            self._check(layer, shape)
        measured = {name: layer for name, layer in measured.items() if layer}
        if not measured:
            return
        where = (slice(views.start, views.stop), self._columns(list(measured)), slice(*ids))
        for number, statistic in enumerate(self.statistics):
            rows = _stacked([layer[statistic] for layer in measured.values()], shape).to(self.table)
            # NaN marks a cell that was measured and has no value.
            if valid is not None:
                rows = torch.where(valid.view(-1, 1, shape[1]), rows, torch.nan)
            self.table[number, *where] = rows.transpose(0, 1)
        self.filled[where] = one_more(self.filled[where])

    def named_tables(self) -> dict[str, Tensor]:
        """Each statistic's table, (view, layer, image), NaN where an image is missing.

        Raises:
            RuntimeError: where an image was written twice.
        """
        self._require_once()
        table = torch.where(self.filled > 0, self.table, torch.nan)
        return dict(zip(self.statistics, table, strict=True))

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add the tables of a metric that has measured other images.

        Args:
            incoming_state: a prepared metric of this class, or its ``metric_state``.

        Raises:
            RuntimeError: where either side was not prepared.
            ValueError: where tables differ in shape.
        """
        self.require_tables("merge_state")
        if not isinstance(incoming_state, dict | Metric):
            raise TypeError(f"can't merge a {type(incoming_state).__name__}, expected a metric or its metric_state")
        if isinstance(incoming_state, ImageTable):
            incoming_state.require_tables("merge_state")
            self._require_same_layers(incoming_state)
        state: dict[str, Any] = incoming_state.metric_state if isinstance(incoming_state, Metric) else incoming_state
        for name in ("table", "filled"):
            if name in state and state[name].shape != getattr(self, name).shape:
                raise ValueError(
                    f"metric {self.name!r} can't merge a {name} of shape {tuple(state[name].shape)} into one of shape "
                    f"{tuple(getattr(self, name).shape)}: both must be prepared for the same views, layers and images"
                )
        super().merge_state(incoming_state)
        # torchmetrics keeps the value of an earlier compute() across a merge.
        self._computed = None
        self._update_count += 1

    def require_tables(self, action: str) -> None:
        """Raise on a metric that was not prepared."""
        if not self.is_prepared:
            raise RuntimeError(
                f"{action}() on {type(self).__name__}, which has no tables yet: call "
                "metric = metric.prepare(views, layers, num_images) first; the probes do so themselves"
            )

    def _require_names(self) -> None:
        if not getattr(self, "name", "") or not getattr(self, "statistics", ()):
            raise ValueError(f"{type(self).__name__} must set name, a text, and statistics, a tuple of names")

    def _require_once(self) -> None:
        twice = (self.filled > 1).any(0).any(0).nonzero().flatten().tolist()
        if twice:
            raise RuntimeError(
                f"metric {self.name!r} holds images {listed(twice)} more than once: each image's row is written by one "
                "process, once; reset() before measuring the same images again, and merge only what was measured apart"
            )

    def _table_shape(self, shape: tuple[int, int, int]) -> tuple[int, ...]:
        """The shape of :attr:`table` for so many views, layers and images."""
        return (len(self.statistics), *shape)

    def _require_same_layers(self, other: ImageTable) -> None:
        if other.layers != self.layers:
            raise ValueError(
                f"metric {self.name!r} can't merge tables of layers {list(other.layers)} into those of "
                f"{list(self.layers)}: both must be prepared for the same views, layers and images"
            )

    def _check(self, measured: object, shape: tuple[int, int]) -> None:
        if not isinstance(measured, Mapping):
            raise TypeError(
                f"{type(self).__name__}.measure returned a {type(measured).__name__}, expected a dict with a tensor "
                f"(B,), one scalar per image, for each of {list(self.statistics)}"
            )
        if not measured:
            return
        shapes = {name: tuple(getattr(value, "shape", ())) for name, value in measured.items()}
        fitting = (shape, (shape[0] * shape[1],), (shape[1],))
        if set(shapes) != set(self.statistics) or any(came not in fitting for came in shapes.values()):
            raise ValueError(
                f"{type(self).__name__}.measure returned {shapes}, expected a tensor of shape ({shape[1]},), one "
                f"scalar per image, for each of {list(self.statistics)}"
            )

    def _columns(self, layers: list[str]) -> slice | list[int]:
        """The columns of some layers; a slice where they stand side by side, which is faster to write to."""
        unknown = [layer for layer in layers if layer not in self.layers]
        if unknown:
            raise ValueError(
                f"metric {self.name!r} was prepared for the layers {list(self.layers)}, got {unknown[0]!r}"
            )
        columns = [self.layers.index(layer) for layer in layers]
        first, count = columns[0], len(columns)
        if columns == list(range(first, first + count)):
            return slice(first, first + count)
        return columns


def _stacked(layers: Sequence[Tensor], shape: tuple[int, int]) -> Tensor:
    """The values of one statistic, (layer, view, image); (layer, 1, image) where no layer's differ between views."""
    every = shape[0] * shape[1]
    if all(values.numel() == shape[1] for values in layers):
        return torch.stack([values.view(1, -1) for values in layers])
    whole = [values.view(-1, shape[1]) for values in layers]
    if any(values.numel() != every for values in layers):
        whole = [values.expand(shape) for values in whole]
    return torch.stack(whole)
