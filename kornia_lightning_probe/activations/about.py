"""What a metric is told about the pair of activations that it measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from kornia_lightning_probe.activations.cells import Cells
from kornia_lightning_probe.activations.clean import CleanBlock, Memory, mask_non_finite
from kornia_lightning_probe.activations.movement import Movement
from kornia_lightning_probe.activations.site import Site
from kornia_lightning_probe.functional.distances import squared_distance, upcast
from kornia_lightning_probe.functional.grids import Grid, Size
from kornia_lightning_probe.functional.memory import Temporaries


@dataclass(frozen=True)
class Shown:
    """What was shown to the model, whatever the layer: some images of a block, under one view or several.

    Args:
        ids: the images' rows in the tables, (start, stop).
        rows: which of the block's n images these B are.
        views: the views' rows in the tables.
        view: the view itself, with its augmentation, level and severity, where there is one and it is known.
        labels: the images' integer labels, (B,), or masks, (B, H, W), or None.
        matrix: (B, 3, 3) source-to-destination pixel matrices of the one view, on the CPU, or None where it has none.
        through: of a chain, the same after each step but the last, (B, K, 3, 3), or None.
        frames: height and width of the images after each of these steps; None where they stay as they are.
        image_size: height and width of the model's input in pixels, or None.
        temporaries: memory for temporaries.
    """

    ids: tuple[int, int]
    rows: slice
    views: range = range(1)
    view: Any = None
    labels: Tensor | None = None
    matrix: Tensor | None = None
    through: Tensor | None = None
    frames: tuple[Size, ...] | None = None
    image_size: Size | None = None
    temporaries: Temporaries = field(default_factory=Temporaries, repr=False)


@dataclass(frozen=True)
class About(Memory):
    """What is known, beside the two tensors, about ``clean`` and ``augmented`` of one layer under a view.

    Quantities that several metrics need are computed once and kept: :attr:`squared_distance` and
    :attr:`squared_deviation` pass over the activations once each, whoever asks; metrics of one's own share theirs by
    :meth:`remember`.

    Args:
        shown: the images and the view.
        site: the layer, or the pixels, or the output.
        block: the clean activations of the whole block of n images that these B belong to.
        augmented: the augmented activations, (B, ...), float32 or float64; of several views (views, n, ...).
    """

    shown: Shown
    site: Site
    block: CleanBlock
    augmented: Tensor

    @classmethod
    def of(
        cls,
        clean: Tensor,
        augmented: Tensor,
        *,
        layer: str,
        view_index: int = 0,
        view: Any = None,
        ids: Sequence[int] | None = None,
        labels: Tensor | None = None,
        matrix: Tensor | None = None,
        through: Tensor | None = None,
        frames: tuple[Size, ...] | None = None,
        image_size: Size | None = None,
        grid: Grid | None = None,
    ) -> About:
        """The record for a block that stands alone, where a metric is used without the engine.

        Args:
            clean: clean activations of a whole block, (n, ...).
            augmented: augmented activations of the same images, (n, ...).
            layer: the layer's name, as the metric was prepared for it.
            view_index: the view's row in the tables.
            view: the view itself.
            ids: the images' consecutive rows in the tables; default: 0 to n - 1.
            labels: integer labels, (n,).
            matrix: the view's pixel matrices, (n, 3, 3).
            through: of a chain, the matrices after each step but the last, (n, K, 3, 3).
            frames: height and width of the images after each of these steps; default: those of the images.
            image_size: height and width of the images.
            grid: where the layer's cells lie; default: those of a map, or of a square of tokens, tile the image.

        Raises:
            ValueError: where shapes differ, or ids are not n consecutive numbers.
        """
        if clean.shape != augmented.shape:
            raise ValueError(
                f"clean and augmented activations must have one shape, got {tuple(clean.shape)} and "
                f"{tuple(augmented.shape)}"
            )
        count = clean.shape[0]
        numbers = list(range(count)) if ids is None else [int(i) for i in ids]
        if not numbers or numbers != list(range(numbers[0], numbers[0] + count)):
            raise ValueError(f"ids must be {count} consecutive image numbers, got {numbers}")
        block = CleanBlock(clean)
        mask_non_finite([block])
        shown = Shown(
            ids=(numbers[0], numbers[0] + count),
            rows=slice(0, count),
            views=range(view_index, view_index + 1),
            view=view,
            labels=labels,
            matrix=matrix,
            through=through,
            frames=frames,
            image_size=image_size,
        )
        site = Site(layer, 1, tuple(clean.shape[1:]), image_size=image_size)
        site = replace(site, cells=_cells_of(site, grid))
        return cls(shown, site, block, upcast(augmented))

    @property
    def layer(self) -> str:
        """The layer's name."""
        return self.site.name

    @property
    def view(self) -> Any:
        """The view, with its augmentation, level and severity; None where there are several or it is not known."""
        return self.shown.view

    @property
    def ids(self) -> tuple[int, int]:
        """The images' rows in the tables, (start, stop)."""
        return self.shown.ids

    @property
    def labels(self) -> Tensor | None:
        """The images' integer labels, (B,), or masks, (B, H, W), or None."""
        return self.shown.labels

    @property
    def matrix(self) -> Tensor | None:
        """(B, 3, 3) pixel matrices of the view, from where a pixel was to where it is, on the CPU; or None."""
        return self.shown.matrix

    @property
    def through(self) -> Tensor | None:
        """Of a chain, the matrices after each step but the last, (B, K, 3, 3), or None."""
        return self.shown.through

    @property
    def frames(self) -> tuple[Size, ...] | None:
        """Height and width of the images after each of these steps; None where they stay as they are."""
        return self.shown.frames

    @property
    def image_size(self) -> Size | None:
        """Height and width of the model's input in pixels, or None."""
        return self.shown.image_size

    @property
    def clean(self) -> Tensor:
        """The clean activations of these B images, (B, ...); zeros where they were not finite."""
        return self._rows_of(self.block.activation)

    @property
    def mean(self) -> Tensor:
        """The mean of the block's clean activations, or the reference's, (1, ...)."""
        return self.block.mean

    @property
    def valid(self) -> Tensor:
        """Which of these images have finite clean activations, (B,) bool."""
        return self._rows_of(self.block.valid)

    @property
    def deviation(self) -> Tensor:
        """``e_i`` of these images, (B,), see :func:`~kornia_lightning_probe.functional.between_image_deviation`."""
        return self._rows_of(self.block.deviation)

    @cached_property
    def movement(self) -> Movement:
        """Of pooled features, how they move; of one view, with a first axis of one."""
        augmented = self.augmented
        if augmented.ndim == self.block.activation.ndim:
            augmented = augmented.unsqueeze(0)
        return Movement.of(self.block, augmented)

    @cached_property
    def squared_distance(self) -> Tensor:
        """``d_i = |b_i - a_i|^2``, (B,)."""
        return squared_distance(self.augmented, self.clean, room=self.shown.temporaries.room(self.augmented))

    @cached_property
    def squared_deviation(self) -> Tensor:
        """``g_i = |b_i - m|^2``, (B,)."""
        return squared_distance(self.augmented, self.block.mean, room=self.shown.temporaries.room(self.augmented))

    def _rows_of(self, x: Tensor) -> Tensor:
        # A tensor's len() goes through Python, its shape does not; this runs for every layer and view.
        if self.shown.rows.stop - self.shown.rows.start == x.shape[0]:
            return x
        return x[self.shown.rows]


def _cells_of(site: Site, grid: Grid | None) -> Cells | None:
    """The cells of a layer that stands alone, of whose model nothing is known."""
    size = site.layout.size
    if size is None or (grid is None and site.image_size is None):
        return None
    return Cells(grid or Grid.tiling(site.image_size or size, size), site.layout.as_map)


@dataclass(frozen=True)
class Distances:
    """What a distance metric is told: how far a block's images moved, and how far they lie apart.

    Args:
        block: the clean activations of the block.
        rows: which of its n images these B are.
        squared_distance: ``d_i = |b_i - a_i|^2``, (..., B), float64; NaN where an image is not finite.
        squared_deviation: ``g_i = |b_i - m|^2`` from the clean block's mean, likewise; None for metrics that do
            not name it among what they read.
        site: where the activations are from; None where that is not known.
        labels: the B images' labels, or None.
    """

    block: CleanBlock
    rows: slice
    squared_distance: Tensor
    squared_deviation: Tensor | None = None
    site: Site | None = None
    labels: Tensor | None = None

    @property
    def deviation(self) -> Tensor:
        """``e_i``, (B,), see :func:`~kornia_lightning_probe.functional.between_image_deviation`."""
        return self.block.deviation[self.rows]

    @property
    def separation(self) -> Tensor:
        """``u_i``, (B,), see :func:`~kornia_lightning_probe.functional.near_distance`."""
        return self.block.separation[self.rows]

    @property
    def clean_squared_deviation(self) -> Tensor:
        """``|a_i - m|^2``, (B,)."""
        return self.block.squared_deviation[self.rows]

    @property
    def clean_squared_length(self) -> Tensor:
        """``|a_i|^2``, (B,)."""
        return self.block.squared_length[self.rows]
