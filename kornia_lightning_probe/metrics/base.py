"""The contract of a measure: what it says of itself, what it takes from each image, what it makes of all of them.

There are three kinds, by what a metric has to see:

- :class:`ProbeMetric`: clean and augmented activations of one view, in batches of any size. A user's own is of this
  kind, and the others can be measured in its way too.
- :class:`DistanceMetric`: how far images moved, and nothing else; of large layers nothing more need be kept, so it is
  by far the cheapest.
- :class:`BlockMetric`: whole blocks under several views at once, of pooled features unless it says otherwise.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor

from kornia_lightning_probe.activations.about import About, Distances
from kornia_lightning_probe.activations.site import Site
from kornia_lightning_probe.functional.estimates import Estimate, mean_with_error
from kornia_lightning_probe.metrics.image_table import ImageTable
from kornia_lightning_probe.quantity import Quantity


class ProbeMetric(ImageTable):
    """Compares clean and augmented activations image by image, in tables that merge exactly.

    A subclass names itself and its statistics, and says in :meth:`measure` what it takes from each image; what it makes
    of all of them is the mean, unless it has a :meth:`reduce` of its own::

        class MeanShift(ProbeMetric):
            name = "mean_shift"
            statistics = ("shift",)
            quantity = Quantity(meaning="how far the mean of an activation moves", at_identity=0.0)

            def measure(self, clean, augmented, about):
                return {"shift": (augmented - clean).flatten(1).mean(1)}

    Attributes:
        name: the metric's name in results and tags.
        statistics: the names of the scalars per image that :meth:`measure` returns.
        quantity: what it says of its numbers: severity curves, scales and marks of pictures come of it.
        scope: where it applies: "layers" (the pixels and every layer), "embedding" or "output".
        representation: what of an activation it gets: "activation", all of it, or "pooled", the spatial or token mean.
        needs: what it can't do without, as a text for those who lack it.
        reads_twins: whether each view is also measured under noise as long as its movement: then the tables' rows are
            the views and behind them their twins, and :meth:`reduce` returns as many rows as there are views.
        reads_scores: whether it needs to know the model's class scores, though it is not of the output.
        layers: the names of the table's columns, empty until prepared.

    Args:
        kwargs: torchmetrics' own options, for example ``process_group``.
    """

    quantity: ClassVar[Quantity] = Quantity()
    scope: ClassVar[Literal["layers", "embedding", "output"]] = "layers"
    representation: ClassVar[Literal["activation", "pooled"]] = "activation"
    needs: ClassVar[str] = ""
    reads_twins: ClassVar[bool] = False
    reads_scores: ClassVar[bool] = False

    @abstractmethod
    def measure(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:
        """What this metric takes from each image of a batch.

        Args:
            clean: clean activations, (B, ...), float32 or float64.
            augmented: augmented activations, (B, ...), same dtype.
            about: what else is known: layer, view, distances, the block's mean, labels, matrices.

        Returns:
            For each of :attr:`statistics` a tensor (B,); or an empty mapping where the view does not concern this
            metric, which leaves the cells unfilled.
        """

    def reduce(self, table: Mapping[str, Tensor]) -> Estimate | tuple[Tensor, Tensor]:
        """What this metric makes of all images; by default the mean of its one statistic.

        Args:
            table: for each of :attr:`statistics` a float64 tensor (view, layer, image), NaN where an image is missing.

        Returns:
            An :class:`~kornia_lightning_probe.functional.Estimate` of shape (view, layer); with its influence,
            ``compare`` pairs the images of two results, whose changes then have much smaller errors. Or value and
            standard error.

        Raises:
            NotImplementedError: for several statistics, of which nobody knows what to make.
        """
        if len(self.statistics) > 1:
            raise NotImplementedError(
                f"{type(self).__name__} has the statistics {list(self.statistics)} and must say in reduce() what it "
                "makes of them"
            )
        return mean_with_error(table[self.statistics[0]])

    def remarks(self, estimate: Estimate, layers: Sequence[str]) -> list[str]:  # noqa: ARG002 - for subclasses
        """Sentences that a user should hear about these estimates; by default none."""
        return []

    def facts(self, sites: Mapping[str, Site]) -> Mapping[str, Any]:  # noqa: ARG002 - for subclasses
        """What a result's metadata should hold beside the values, by the name of its field; by default nothing.

        Args:
            sites: by layer, what the metric was measured at.
        """
        return {}

    def applies_to(self, site: Site) -> bool:
        """Whether this metric measures at a site; by default what scope and representation say."""
        if site.representation != self.representation:
            return False
        if self.scope == "embedding":
            return site.is_embedding
        return (site.kind == "output") == (self.scope == "output")

    def wants_view(self, site: Site, view: Any) -> bool:  # noqa: ARG002 - for subclasses
        """Whether a view is to be measured at a site; by default every one."""
        return True

    def fit(self, site: Site) -> None:
        """Take in the size of a site where this metric will measure, before it does; by default nothing is needed."""

    def wants_block(self, ids: tuple[int, int]) -> bool:  # noqa: ARG002 - for subclasses
        """Whether the block with these rows of the tables, (start, stop), is to be measured; by default every block."""
        return True

    def update(self, clean: Tensor, augmented: Tensor, about: About) -> None:
        """Measure a batch and write its images' rows.

        Args:
            clean: clean activations, (B, ...).
            augmented: augmented activations, (B, ...).
            about: says which images, layer and view these are; see :meth:`About.of`.

        Raises:
            RuntimeError: on a metric that was not prepared.
            ValueError: where :meth:`measure` returns other statistics or shapes than it declares.
        """
        self.require_tables("update")
        views, (start, stop) = about.shown.views, about.ids
        places = (("images", start, stop, self.filled.shape[2]), ("views", views.start, views.stop, len(self.filled)))
        for kind, first, end, size in places:
            if not 0 <= first < end <= size:
                raise ValueError(
                    f"{kind} {first} to {end - 1} came for metric {self.name!r}, whose tables hold {size} {kind}"
                )
        self.write({about.layer: self.measure(clean, augmented, about)}, views, about.ids, about.valid)

    def compute(self) -> Estimate:
        """The estimates of all views and layers; NaN where nothing was measured.

        Returns:
            An :class:`Estimate` of shape (view, layer); torchmetrics makes a scalar of a table of one cell.

        Raises:
            RuntimeError: on a metric that was not prepared, or where an image was written twice.
        """
        self.require_tables("compute")
        return self.estimates()

    def estimates(self) -> Estimate:
        """What :meth:`compute` returns, from the tables as they are: no synchronisation, no cache, no squeezing."""
        table = self.named_tables()
        reduced = self.reduce(table)
        if isinstance(reduced, Estimate):
            return reduced
        value, std_error = reduced
        known = [statistic.isfinite() for statistic in table.values()]
        every = known[0]
        for others in known[1:]:
            every = every & others
        return Estimate(value, every.sum(-1), std_error=std_error)


class DistanceMetric(ProbeMetric):
    """A measure of how far images move, which is handed distances and nothing else.

    Attributes:
        reads: which fields of :class:`~kornia_lightning_probe.metrics.Distances` it reads that are computed from
            augmented activations: "squared_distance", "squared_deviation".
    """

    reads: ClassVar[tuple[str, ...]] = ("squared_distance",)

    @abstractmethod
    def measure_distances(self, distances: Distances) -> Mapping[str, Tensor]:
        """What this metric takes from the distances of some images under some views.

        Args:
            distances: (views, B) or (B,) where they depend on the view, (B,) where they don't.

        Returns:
            For each statistic a tensor of either shape.
        """

    def measure(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:  # noqa: ARG002
        """The same of one view's activations."""
        known = {name: getattr(about, name) for name in self.reads}
        told = Distances(about.block, about.shown.rows, **known, site=about.site, labels=about.labels)
        return self.measure_distances(told)


class BlockMetric(ProbeMetric):
    """A measure that sees all images of a block at once, under several views, however forward passes were cut."""

    representation: ClassVar[Literal["activation", "pooled"]] = "pooled"

    @abstractmethod
    def measure_block(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:
        """What this metric takes from a block.

        Args:
            clean: the block's clean features, (n, ...).
            augmented: the features under some views, (views, n, ...).
            about: what else is known; without a view and a matrix, since there are several.

        Returns:
            For each statistic a tensor (views, n), or (n,) where it is the same under every view.
        """

    def measure(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:
        """The same of a block under one view.

        Raises:
            ValueError: for some images of a block only.
        """
        size = about.block.activation.shape[0]
        if clean.shape[0] != size:
            raise ValueError(
                f"{clean.shape[0]} of a block's {size} images came for metric {self.name!r}, which relates the images "
                "of a block to one another: update it with whole blocks"
            )
        return self.measure_block(clean, augmented.unsqueeze(0), about)
