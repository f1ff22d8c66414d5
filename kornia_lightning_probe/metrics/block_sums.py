"""The other storage: sums over blocks by channel or position, for what is no mean over images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from kornia_lightning_probe.activations.site import Site
from kornia_lightning_probe.functional.estimates import Estimate
from kornia_lightning_probe.metrics.base import ProbeMetric
from kornia_lightning_probe.metrics.image_table import empty, one_more


class Sums(NamedTuple):
    """What some images of a block add to each channel, or position.

    Args:
        total: the sums over these images, (views, C); (C,) of what is clean.
        num_images: how many images are in them, (views,); () of what is clean. Where it is 0 the sums do not matter.
    """

    total: Tensor
    num_images: Tensor


class BlockSums(ProbeMetric):
    """A measure of channels or positions: it keeps sums over all blocks, and makes a value of their means.

    A median over channels is no mean over images, and that of each block is not that of all. So every image's part is
    added up for each channel, in float64: results do not depend on how images were shared among processes or cut into
    batches, up to a rounding of 1e-16. Layers have as many channels as they have; what is of clean images alone is kept
    once, not for every view. There is no standard error over images::

        class QuietestChannel(BlockSums, BlockMetric):
            name = "quietest_channel"
            statistics = ("moved",)
            clean_statistics = ("apart",)

            def width(self, site):
                return site.shape[-1]

            def measure_block(self, clean, augmented, about):
                count = torch.tensor(len(clean))
                moved = (augmented - clean).square().sum(1)
                apart = len(clean) * about.block.channel_variance
                return {"moved": Sums(moved, count.expand(len(moved))), "apart": Sums(apart, count)}

            def reduce_means(self, means):
                return (means["moved"] / (2 * means["apart"])).sqrt().amin(-1)

    What it measures in, it shares with the other kinds: :class:`ProbeMetric`, one view at a time, which may come with
    some of a block's images; :class:`DistanceMetric` or :class:`BlockMetric` beside this class for theirs.

    Attributes:
        statistics: the names of what depends on the view.
        clean_statistics: the names of what is of clean images alone.
        widths: of each layer, how many channels; 0 as long as that is not known.
        table: state, float64: a row for each statistic and view, then one for each clean statistic; of each layer its
            channels and, last, the number of images that are in them.
        filled: state, (view, layer, image) uint8, how often an image came.
    """

    clean_statistics: ClassVar[tuple[str, ...]] = ()
    statistics: tuple[str, ...] = ()
    widths: tuple[int, ...] = ()

    @abstractmethod
    def width(self, site: Site) -> int:
        """How many channels, or positions, a site has."""

    @abstractmethod
    def reduce_means(self, means: Mapping[str, Tensor]) -> Tensor:
        """What this metric makes of one layer.

        Args:
            means: of each statistic the mean over all images, (views, C), of each clean one (C,); NaN without images.

        Returns:
            The value under each view, (views,); or (), where it is the same under every one.
        """

    def prepare(
        self, views: Sequence[Any], layers: Sequence[str], num_images: int, *, device: torch.device | None = None
    ) -> BlockSums:
        """A copy with empty tables; widths that nobody has told come with the first images."""
        prepared = super().prepare(views, layers, num_images, device=device)
        prepared.widths = (0,) * len(prepared.layers)
        return prepared

    def fit(self, site: Site) -> None:
        """Take the width of a site; a process without images knows it only so."""
        self.widen({site.name: self.width(site)})

    def widen(self, widths: Mapping[str, int]) -> None:
        """Make room for the channels of some layers.

        Raises:
            ValueError: where a layer has another number of them already.
        """
        known = dict(zip(self.layers, self._widths_of_table(), strict=True))
        for layer, width in widths.items():
            if known[layer] not in (0, width):
                raise ValueError(f"metric {self.name!r} has {known[layer]} channels of layer {layer!r}, got {width}")
        new = tuple(widths.get(layer, known[layer]) for layer in self.layers)
        if new != tuple(known.values()):
            with torch.inference_mode(False), torch.no_grad():
                self.table = _moved(self.table, tuple(known.values()), new)
        if new != self.widths:
            with torch.inference_mode(False):
                self._defaults["table"] = empty(self.table.shape, dtype=self.table.dtype, device=self.table.device)
            self.widths = new

    def write(
        self,
        measured: Mapping[str, Mapping[str, Any]],
        views: range,
        ids: tuple[int, int],
        valid: Tensor | None = None,  # noqa: ARG002 - what is measured says itself how many images it has
    ) -> None:
        """Add what some images of a block give; what is clean is added where they come for the first time.

        Args:
            measured: by layer, for each statistic its :class:`Sums`.
            views: the views' rows.
            ids: the images' rows, (start, stop).
            valid: not needed.

        Raises:
            TypeError: where a layer's statistics are no :class:`Sums`.
            ValueError: for other statistics or shapes than declared, or a layer that is not in the tables.
        """
        for layer, sums in measured.items():
            if not sums:
                continue
            self._columns([layer])
            self._check_sums(sums, len(views))
            self.widen({layer: next(iter(sums.values())).total.shape[-1]})
            place, number = self._place(layer), self.layers.index(layer)
            filled = self.filled[:, number, slice(*ids)]
            is_new = filled.amax() == 0
            for row, statistic in enumerate(self.statistics):
                start = row * len(self.filled)
                self.table[start + views.start : start + views.stop, place] += _row(sums[statistic], self.table)
            first = len(self.statistics) * len(self.filled)
            for row, statistic in enumerate(self.clean_statistics, start=first):
                self.table[row, place] += is_new * _row(sums[statistic], self.table)
            rows = slice(views.start, views.stop)
            filled[rows] = one_more(filled[rows])

    def means(self, layer: str) -> dict[str, Tensor]:
        """Of one layer the mean of each statistic over all images, see :meth:`reduce_means`."""
        sums = self._sums(layer)
        return {name: found[..., :-1] / found[..., -1:] for name, found in sums.items()}

    def estimates(self) -> Estimate:
        """What ``compute`` returns: values without a standard error."""
        self._require_once()
        values, counts = [], []
        shape = (len(self.filled),)
        unknown = self.table.new_full(shape, torch.nan)
        for layer, width in zip(self.layers, self._widths_of_table(), strict=True):
            numbers = [found[..., -1].expand(shape) for found in self._sums(layer).values()]
            counts.append(torch.stack(numbers).amin(0))
            values.append(self.reduce_means(self.means(layer)).expand(shape) if width else unknown)
        is_filled = (self.filled > 0).any(-1)
        count = torch.stack(counts, 1) * is_filled
        value = torch.where(count > 0, torch.stack(values, 1), torch.nan)
        return Estimate(value, count.long())

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add the sums of a metric that has measured other images."""
        if isinstance(incoming_state, BlockSums) and self.is_prepared and incoming_state.is_prepared:
            self._require_same_layers(incoming_state)
            other: BlockSums = incoming_state.clone()  # type: ignore[assignment] # a Metric for torchmetrics
            self.widen(_known(other))
            other.widen(_known(self))
            incoming_state = other
        elif isinstance(incoming_state, dict) and "table" in incoming_state and self.is_prepared:
            columns = incoming_state["table"].shape[-1]
            if len(self.layers) == 1 and columns > 1:
                self.widen({self.layers[0]: columns - 1})
        super().merge_state(incoming_state)

    def _widths_of_table(self) -> tuple[int, ...]:
        """The widths of the table as it is: what others have filled may have come without them."""
        columns = self.table.shape[1]
        if columns == len(self.layers):
            return (0,) * columns
        if columns == sum(self.widths) + len(self.layers):
            return self.widths
        if len(self.layers) == 1:
            return (columns - 1,)
        raise RuntimeError(
            f"metric {self.name!r} holds the sums of {columns} channels of {len(self.layers)} layers, and has not been "
            "told how many each has: call metric.widen({layer: channels}) before others' sums come to it"
        )

    def _require_names(self) -> None:
        if not getattr(self, "name", "") or not (*self.statistics, *self.clean_statistics):
            raise ValueError(f"{type(self).__name__} must set name, a text, and statistics, a tuple of names")

    def _table_shape(self, shape: tuple[int, int, int]) -> tuple[int, ...]:
        return (len(self.statistics) * shape[0] + len(self.clean_statistics), shape[1])

    def _sums(self, layer: str) -> dict[str, Tensor]:
        """Of one layer the sums of each statistic, (views, C + 1) or (C + 1,)."""
        found, num_views = self.table[:, self._place(layer)], len(self.filled)
        first = len(self.statistics) * num_views
        sums = {name: found[row * num_views : (row + 1) * num_views] for row, name in enumerate(self.statistics)}
        clean = found[first:]
        return sums | dict(zip(self.clean_statistics, clean, strict=True))

    def _place(self, layer: str) -> slice:
        return _places(self._widths_of_table())[self.layers.index(layer)]

    def _check_sums(self, sums: Mapping[str, Any], num_views: int) -> None:
        wrong = [name for name, found in sums.items() if not isinstance(found, Sums)]
        if wrong:
            raise TypeError(f"{type(self).__name__}.measure must return Sums(total, num_images), got none for {wrong}")
        shapes = {name: tuple(found.total.shape) for name, found in sums.items()}
        width = next(iter(shapes.values()))[-1:]
        expected = dict.fromkeys(self.statistics, (num_views, *width))
        expected |= dict.fromkeys(self.clean_statistics, width)
        if shapes != expected:
            raise ValueError(f"{type(self).__name__}.measure returned totals of {shapes}, expected {expected}")


def _row(sums: Sums, table: Tensor) -> Tensor:
    """Totals and, behind them, the number of images; none where there are none."""
    count = sums.num_images.to(table).unsqueeze(-1)
    total = torch.where(count > 0, sums.total.detach().to(table), 0.0)
    return torch.cat([total, count], -1)


def _moved(table: Tensor, old: Sequence[int], new: Sequence[int]) -> Tensor:
    """The sums in a table of other widths; what had none yet had no sums."""
    to = _places(new)
    moved = table.new_zeros(len(table), to[-1].stop)
    for width, place, target in zip(old, _places(old), to, strict=True):
        if width:
            moved[:, target] = table[:, place]
    return moved


def _places(widths: Sequence[int]) -> list[slice]:
    """The columns of each layer: its channels, and the number of images."""
    places, start = [], 0
    for width in widths:
        stop = start + width + 1
        places.append(slice(start, stop))
        start = stop
    return places


def _known(metric: BlockSums) -> dict[str, int]:
    widths = zip(metric.layers, metric._widths_of_table(), strict=True)
    return {layer: width for layer, width in widths if width}
