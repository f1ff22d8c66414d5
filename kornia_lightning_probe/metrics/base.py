"""The base of every measure: a torchmetrics.Metric that keeps one row per image and statistic."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.distributed
from torch import Tensor
from torchmetrics import Metric

from kornia_lightning_probe.activations.about import About, Site
from kornia_lightning_probe.functional.distances import accumulation_dtype
from kornia_lightning_probe.functional.estimates import Estimate


def sum_over_ranks(tensor: Tensor, group: Any = None) -> list[Tensor]:
    """A ``dist_sync_fn`` for tables to which every rank has added its own cells: one all-reduce of one tensor.

    Args:
        tensor: this rank's state.
        group: a process group; None is the default one.

    Returns:
        A list of one tensor, the sum over the ranks.
    """
    total = tensor.clone()
    torch.distributed.all_reduce(total, group=group)
    return [total]


class ProbeMetric(Metric):
    """Compares clean and augmented activations image by image, in tables that merge exactly.

    A subclass names itself and its statistics, says in :meth:`measure` what it takes from each image and in
    :meth:`reduce` what it makes of all of them::

        class MeanShift(ProbeMetric):
            name = "mean_shift"
            statistics = ("shift",)

            def measure(self, clean, augmented, about):
                return {"shift": (augmented - clean).flatten(1).mean(1)}

            def reduce(self, table):
                estimate = mean_with_error(table["shift"])
                return estimate.value, estimate.std_error

            def influence(self, table):  # optional: for paired errors in ``compare``
                return mean_influence(table["shift"])

    Each image's row is written once, by the one process that owns the image, so adding the zeros of all others is
    exact: results do not depend on the number of processes, on the order of updates or on how batches were cut. Views,
    layers and the number of images are not known when a user builds a metric; :meth:`prepare` makes a copy that has
    its tables.

    Attributes:
        name: the metric's name in results and tags.
        statistics: the names of the scalars per image that :meth:`measure` returns.
        layers: the names of the table's columns, empty until prepared.
        scope: where it applies: "layers" (the pixels and every layer), "embedding" or "output".
        representation: what of an activation it gets: "activation", all of it in batches of any size, or "pooled", the
            spatial or token mean of a whole block at once.
        merges_views: whether :meth:`measure` may get the rows of several views behind each other, in which case
            ``about`` knows no view and no matrix, and ``clean`` is what each view's rows go with, (n, ...); it costs
            less at small layers. Those that are pooled get several views anyway, with ``clean`` repeated for each where
            this is off. Not inherited by a class that has a :meth:`measure` of its own.
        distances: where this names everything that :meth:`measure` reads of augmented activations, which can be
            "squared_distance" and "squared_deviation" of ``about``, then these are computed in the forward passes, and
            :meth:`measure` gets them for several views at once, as with ``merges_views``, which must be on, and an
            empty ``augmented``. Not inherited either.
        whole_blocks: whether :meth:`measure` must see all images of a block at once, however large the activation is,
            which is then kept until the block's forward passes are through; with ``merges_views``, which must be on.
            Not inherited either.
        calibrates: whether :meth:`calibrate` is to be called.
        needs: what it can't do without, as a text for those who lack it.
        table: state, (statistic, view, layer, image), float64 (float32 on MPS), summed over processes.
        filled: state, (view, layer, image), how often a cell was written.

    Args:
        kwargs: torchmetrics' own options, for example ``process_group``.
    """

    is_differentiable = False
    full_state_update = False

    calibrates: ClassVar[bool] = False
    merges_views: ClassVar[bool] = False
    distances: ClassVar[tuple[str, ...]] = ()
    whole_blocks: ClassVar[bool] = False
    needs: ClassVar[str] = ""
    name: str
    statistics: tuple[str, ...]
    scope: ClassVar[Literal["layers", "embedding", "output"]] = "layers"
    representation: ClassVar[Literal["activation", "pooled"]] = "activation"

    table: Tensor
    filled: Tensor
    layers: tuple[str, ...] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        if "measure" in own:
            cls.merges_views = own.get("merges_views", False)
            cls.distances = own.get("distances", ())
            cls.whole_blocks = own.get("whole_blocks", False)
        if cls.distances and not cls.merges_views:
            raise TypeError(
                f"{cls.__name__} says what its measure needs of activations by distances={cls.distances}, so it gets "
                "several views at once and must say merges_views = True"
            )
        if cls.whole_blocks and not cls.merges_views:
            raise TypeError(
                f"{cls.__name__} says that its measure needs whole_blocks, so it gets several views at once and must "
                "say merges_views = True"
            )

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("dist_sync_fn", sum_over_ranks)
        super().__init__(**kwargs)

    @abstractmethod
    def measure(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:
        """What this metric takes from each image of a batch.

        Args:
            clean: clean activations, (B, ...), float32 or float64; of one view's images, (n, ...) with B a multiple of
                n, where :attr:`merges_views` is on.
            augmented: augmented activations, (B, ...), same dtype; empty where :attr:`distances` are all it needs.
            about: what else is known: distances already computed, the block's mean, labels, matrices.

        Returns:
            For each of :attr:`statistics` a tensor (B,), or (n,) where it is the same under every view; or an empty
            mapping where the view does not concern this metric, which leaves the cells unfilled.
        """

    @abstractmethod
    def reduce(self, table: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What this metric makes of all images.

        Args:
            table: for each of :attr:`statistics` a float64 tensor (view, layer, image), NaN where an image is missing.

        Returns:
            Value and standard error, each (view, layer).
        """

    def asks_for_stripes(self, site: Site, image_size: tuple[int, int]) -> bool:  # noqa: ARG002 - for subclasses
        """Whether :meth:`calibrate` is to have what a layer makes of images with stripes; by default not."""
        return False

    def calibrate(
        self,
        site: Site,
        clean: Tensor,
        flipped: Tensor,
        *,
        image_size: tuple[int, int],
        striped: Tensor | None = None,
    ) -> None:
        """See a layer on the first block and on the same images mirrored left to right, before anything is measured.

        Called where :attr:`calibrates` is set, on every process with the same images; by default nothing happens.

        Args:
            site: the layer.
            clean: (n, ...).
            flipped: (n, ...).
            image_size: height and width in pixels.
            striped: of the first images with stripes, (m, ...), given where :meth:`asks_for_stripes`.
        """

    def remarks(self, estimate: Estimate, layers: Sequence[str]) -> list[str]:  # noqa: ARG002
        """Sentences that a user should hear about these estimates; by default none."""
        return []

    def known(self, table: Mapping[str, Tensor]) -> Tensor:
        """Which images have a value, (view, layer, image) bool; by default those whose statistics are all finite."""
        return torch.stack([table[name].isfinite() for name in self.statistics]).all(0)

    def influence(self, table: Mapping[str, Tensor]) -> Tensor | None:  # noqa: ARG002 - for subclasses
        """How far each image moves the value, see influence.py; by default None, which is for not known.

        ``compare`` needs it to pair two results of the same images, whose changes then have much smaller errors, and a
        result needs it for the standard errors of means over views and layers; without it these are errors from above.
        Of a mean over images it is :func:`kornia_lightning_probe.influence.mean_influence` of the statistic.

        Args:
            table: what :meth:`reduce` gets.

        Returns:
            (view, layer, image), in the metric's unit, NaN where an image has no value; its standard deviation over
            the root of the number of images is the standard error that :meth:`reduce` gives.
        """
        return None

    def wants(self, ids: tuple[int, int]) -> bool:  # noqa: ARG002 - for subclasses
        """Whether the block with these rows of the tables, (start, stop), is to be measured; by default every block."""
        return True

    def applies_to(self, site: Site) -> bool:
        """Whether this metric measures at a site; by default what scope and representation say."""
        if site.representation != self.representation:
            return False
        if self.scope == "embedding":
            return site.is_embedding
        return (site.kind == "output") == (self.scope == "output")

    def prepare(
        self, views: Sequence[Any], layers: Sequence[str], num_images: int, *, device: torch.device | None = None
    ) -> ProbeMetric:
        """A copy with empty tables for these views, layers and images; this metric stays as it is.

        Args:
            views: the views, one row each.
            layers: the layers' names, one column each.
            num_images: N.
            device: where the tables live; default: where this metric is.

        Raises:
            ValueError: where there is no view, no layer or no image, or the metric has no name or statistics.
        """
        if not getattr(self, "name", "") or not getattr(self, "statistics", ()):
            raise ValueError(f"{type(self).__name__} must set name, a text, and statistics, a tuple of names")
        shape = (len(views), len(layers), num_images)
        if min(shape) < 1:
            raise ValueError(
                f"{self!r} needs views, layers and images, got {shape[0]}, {shape[1]} and {shape[2]} of them"
            )
        place = torch.device(self.device if device is None else device)
        wide = accumulation_dtype(place)
        # Lightning validates under inference mode, and a tensor made there can't be written to afterwards.
        with torch.inference_mode(False):
            prepared: ProbeMetric = self.clone().to(place)  # type: ignore[assignment]  # a Metric for torchmetrics
            prepared.layers = tuple(layers)
            zeros = torch.zeros(len(self.statistics), *shape, dtype=wide, device=place)
            prepared.add_state("table", zeros, dist_reduce_fx="sum")
            prepared.add_state("filled", torch.zeros(shape, dtype=wide, device=place), dist_reduce_fx="sum")
            prepared.reset()
        return prepared

    def reset(self) -> None:
        """Empty the tables."""
        with torch.inference_mode(False):
            super().reset()

    @property
    def is_prepared(self) -> bool:
        """Whether this metric has its tables."""
        return "table" in self._defaults

    def update(self, clean: Tensor, augmented: Tensor, about: About) -> None:
        """Measure a batch and write its images' rows.

        Args:
            clean: clean activations, (B, ...), or those of one view's images where ``about`` is of several views.
            augmented: augmented activations, (B, ...).
            about: says which images, layer and view these are; see :meth:`About.of`.

        Raises:
            RuntimeError: on a metric that was not prepared.
            ValueError: where :meth:`measure` returns other statistics or shapes than it declares.
        """
        self._require_tables("update")
        views = (about.view_index, about.view_index + about.num_views)
        for kind, (start, stop), size in (
            ("images", about.ids, self.filled.shape[2]),
            ("views", views, len(self.filled)),
        ):
            if not 0 <= start < stop <= size:
                raise ValueError(
                    f"{kind} {start} to {stop - 1} came for metric {self.name!r}, whose tables hold {size} {kind}"
                )
        self.write({about.layer: self.measure(clean, augmented, about)}, views, about.ids, about.valid)

    def write(
        self,
        measured: Mapping[str, Mapping[str, Tensor]],
        views: tuple[int, int],
        ids: tuple[int, int],
        valid: Tensor | None,
    ) -> None:
        """Write what :meth:`measure` has returned for several layers in one go.

        Args:
            measured: by layer; a layer whose mapping is empty stays unfilled.
            views: the views' rows in the tables, (start, stop); those of one view stand before those of the next.
            ids: the images' rows, (start, stop).
            valid: which images had finite clean activations, (n,), or (layer, n) where layers differ; None: all.

        Raises:
            ValueError: where statistics or shapes are not those declared, or a layer is not in the tables.
        """
        for layer in measured.values():
            if not isinstance(layer, Mapping):
                raise TypeError(
                    f"{type(self).__name__}.measure returned a {type(layer).__name__}, expected a dict with a tensor "
                    f"(B,), one scalar per image, for each of {list(self.statistics)}"
                )
        measured = {name: layer for name, layer in measured.items() if layer}
        if not measured:
            return
        where = (slice(*views), self._select(list(measured)), slice(*ids))
        num_images = ids[1] - ids[0]
        every = num_images * (views[1] - views[0])
        for layer in measured.values():
            self._check(layer, num_images, every)
        for number, statistic in enumerate(self.statistics):
            values = [layer[statistic] for layer in measured.values()]
            if len({value.shape for value in values}) > 1:
                values = [value.repeat(every // len(value)) for value in values]
            rows = torch.stack(values).to(self.table).view(len(values), -1, num_images)
            # NaN marks a cell that was measured and has no value.
            if valid is not None:
                rows = torch.where(valid.view(-1, 1, num_images), rows, torch.nan)
            self.table[number, *where] = rows.transpose(0, 1)
        self.filled[where] += 1

    def compute(self) -> Estimate:
        """The estimates of all views and layers; NaN where nothing was measured.

        Returns:
            An :class:`Estimate` of shape (view, layer); torchmetrics makes a scalar of a table of one cell.

        Raises:
            RuntimeError: on a metric that was not prepared, or where an image was written twice.
        """
        self._require_tables("compute")
        return self.estimates()

    def estimates(self) -> Estimate:
        """What :meth:`compute` returns, from the tables as they are: no synchronisation, no cache, no squeezing."""
        twice = (self.filled > 1).any(0).any(0).nonzero().flatten().tolist()
        if twice:
            raise RuntimeError(
                f"metric {self.name!r} holds images {_some(twice)} more than once: each image's row is written by one "
                "process, once; reset() before measuring the same images again, and merge only what was measured apart"
            )
        table = torch.where(self.filled > 0, self.table, torch.nan)
        named = dict(zip(self.statistics, table, strict=True))
        value, std_error = self.reduce(named)
        return Estimate(value, std_error, self.known(named).sum(-1))

    def influences(self) -> Tensor | None:
        """What :meth:`influence` says of the tables as they are."""
        table = torch.where(self.filled > 0, self.table, torch.nan)
        return self.influence(dict(zip(self.statistics, table, strict=True)))

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add the tables of a metric that has measured other images.

        Args:
            incoming_state: a prepared metric of this class, or its ``metric_state``.

        Raises:
            RuntimeError: where either side was not prepared.
            ValueError: where tables differ in shape.
        """
        self._require_tables("merge_state")
        if not isinstance(incoming_state, dict | Metric):
            raise TypeError(f"can't merge a {type(incoming_state).__name__}, expected a metric or its metric_state")
        if isinstance(incoming_state, ProbeMetric):
            incoming_state._require_tables("merge_state")
        state: dict[str, Any] = incoming_state.metric_state if isinstance(incoming_state, Metric) else incoming_state
        for name in ("table", "filled"):
            if name in state and state[name].shape != getattr(self, name).shape:
                raise ValueError(
                    f"metric {self.name!r} can't merge a {name} of shape {tuple(state[name].shape)} into one of shape "
                    f"{tuple(getattr(self, name).shape)}: both must be prepared for the same views, layers and images"
                )
        if isinstance(incoming_state, ProbeMetric) and incoming_state.layers != self.layers:
            raise ValueError(
                f"metric {self.name!r} can't merge tables of layers {list(incoming_state.layers)} into those of "
                f"{list(self.layers)}: both must be prepared for the same views, layers and images"
            )
        super().merge_state(incoming_state)
        # torchmetrics keeps the value of an earlier compute() across a merge.
        self._computed = None
        self._update_count += 1

    def _check(self, values: Mapping[str, Tensor], num_images: int, every: int) -> None:
        if len(values) == len(self.statistics) and all(
            getattr(values.get(name), "shape", None) in ((every,), (num_images,)) for name in self.statistics
        ):
            return
        came = {key: tuple(getattr(value, "shape", ())) for key, value in values.items()}
        raise ValueError(
            f"{type(self).__name__}.measure returned {came}, expected a tensor of shape ({every},), one scalar per "
            f"image, for each of {list(self.statistics)}"
        )

    def _select(self, layers: list[str]) -> slice | list[int]:
        """The columns of some layers; a slice where they stand side by side, which is faster to write to."""
        unknown = [layer for layer in layers if layer not in self.layers]
        if unknown:
            raise ValueError(
                f"metric {self.name!r} was prepared for the layers {list(self.layers)}, got {unknown[0]!r}"
            )
        columns = [self.layers.index(layer) for layer in layers]
        side_by_side = columns == list(range(columns[0], columns[0] + len(columns)))
        return slice(columns[0], columns[0] + len(columns)) if side_by_side else columns

    def _require_tables(self, action: str) -> None:
        if not self.is_prepared:
            raise RuntimeError(
                f"{action}() on {type(self).__name__}, which has no tables yet: call "
                "metric = metric.prepare(views, layers, num_images) first; the probes do so themselves"
            )


def _some(numbers: Sequence[int], most: int = 8) -> str:
    shown = ", ".join(str(number) for number in numbers[:most])
    return shown if len(numbers) <= most else f"{shown} and {len(numbers) - most} more"
