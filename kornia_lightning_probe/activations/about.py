"""What a metric is told about the pair of activations that it measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from torch import Tensor

from kornia_lightning_probe.activations.clean import CleanBlock, Memory, Temporaries, mask_non_finite
from kornia_lightning_probe.activations.layout import Layout, layout_of
from kornia_lightning_probe.activations.movement import Movement, Movements
from kornia_lightning_probe.functional.distances import squared_distance, upcast
from kornia_lightning_probe.functional.grids import Size


@dataclass(frozen=True)
class Site:
    """A place where activations are compared: the pixels, a layer, or the model's output.

    Args:
        name: the layer's dotted name, ``"input"`` or ``"output"``.
        index: place in order of execution; 0 for the pixels.
        shape: shape of one image's activation, without the batch.
        kind: ``"input"``, ``"layer"`` or ``"output"``.
        is_embedding: whether this is the layer that the probe calls the embedding.
        representation: "activation", or "pooled" for the spatial or token mean.
        source: the activation's shape where this is its pooled form.
        label_shape: the shape of one image's label, () for a class; None where images have no labels.
        image_size: height and width of the images, which tell grids of their shape; None takes square ones.
    """

    name: str
    index: int
    shape: tuple[int, ...]
    kind: Literal["input", "layer", "output"] = "layer"
    is_embedding: bool = False
    representation: Literal["activation", "pooled"] = "activation"
    source: tuple[int, ...] | None = None
    label_shape: tuple[int, ...] | None = None
    image_size: Size | None = None

    @cached_property
    def layout(self) -> Layout:
        """Which axes of the activation are its grid, and which its channels."""
        return layout_of(self.shape, image_size=self.image_size)


@dataclass(frozen=True)
class About(Memory):
    """What is known, beside the two tensors, about ``clean`` and ``augmented`` of one layer under one view.

    Quantities that several metrics need are computed once and kept: :attr:`squared_distance` and
    :attr:`squared_deviation` pass over the activations once each, whoever asks; metrics of one's own share theirs by
    :meth:`remember`. What does not depend on the view has one row for each of the n images even where there are several
    views in the B rows: see :meth:`each_view` and :meth:`by_view`.

    Args:
        augmented: the augmented activations, (B, ...), float32 or float64; empty for metrics that need ``distances``
            only.
        block: the clean activations of the whole block of n images that these B belong to.
        rows: which of the block's n rows the B are.
        ids: the images' rows in the tables, (start, stop).
        site: the layer, or the pixels, or the output.
        view_index: the view's row in the tables, or the first view's.
        num_views: how many views' rows stand behind each other in the B; more than one only where metrics merge views.
        view: the view itself, with its augmentation, level and severity, where it is known.
        labels: the images' integer labels, (B,), or masks, (n, H, W), which aren't repeated for several views; or None.
        matrix: (B, 3, 3) source-to-destination pixel matrices of the view, on the CPU, or None where it has none.
        through: of a chain, the same after each step but the last, (B, K, 3, 3), or None.
        image_size: height and width of the model's input in pixels, or None.
        temporaries: memory for temporaries.
        movements: of pooled features, the movements of several layers, and which of these this is; None: its own alone.
    """

    augmented: Tensor
    block: CleanBlock
    rows: slice
    ids: tuple[int, int]
    site: Site
    view_index: int = 0
    num_views: int = 1
    view: Any = None
    labels: Tensor | None = None
    matrix: Tensor | None = None
    through: Tensor | None = None
    image_size: tuple[int, int] | None = None
    temporaries: Temporaries = field(default_factory=Temporaries, repr=False)
    movements: tuple[Movements, int] | None = None

    @classmethod
    def of(
        cls,
        clean: Tensor,
        augmented: Tensor,
        *,
        layer: str,
        view_index: int = 0,
        ids: Sequence[int] | None = None,
        labels: Tensor | None = None,
        matrix: Tensor | None = None,
        image_size: tuple[int, int] | None = None,
    ) -> About:
        """The record for a block that stands alone, where a metric is used without the engine.

        Args:
            clean: clean activations of a whole block, (n, ...).
            augmented: augmented activations of the same images, (n, ...).
            layer: the layer's name, as the metric was prepared for it.
            view_index: the view's row in the tables.
            ids: the images' consecutive rows in the tables; default: 0 to n - 1.
            labels: integer labels, (n,).
            matrix: the view's pixel matrices, (n, 3, 3).
            image_size: height and width of the images.

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
        return cls(
            augmented=upcast(augmented),
            block=block,
            rows=slice(0, count),
            ids=(numbers[0], numbers[0] + count),
            site=Site(layer, 1, tuple(clean.shape[1:]), image_size=image_size),
            view_index=view_index,
            labels=labels,
            matrix=matrix,
            image_size=image_size,
        )

    @classmethod
    def sharing(cls, common: Mapping[str, Any], **own: Any) -> About:
        """The record for one layer, where the fields in ``common`` are those of all layers of a forward pass.

        A frozen dataclass sets its fields one by one through ``object.__setattr__``; this runs for every layer and view
        and takes them all at once.
        """
        about = object.__new__(cls)
        about.__dict__.update(common, **own)
        return about

    @property
    def layer(self) -> str:
        """The layer's name."""
        return self.site.name

    @property
    def clean(self) -> Tensor:
        """The clean activations of these B images, (B, ...); zeros where they were not finite."""
        return self.each_view(self.clean_rows)

    @property
    def clean_rows(self) -> Tensor:
        """The clean activations that the rows of each view go with, (n, ...); :attr:`clean` where there is one view."""
        return self._rows_of(self.block.activation)

    @property
    def valid(self) -> Tensor:
        """Which of these images have finite clean activations, (n,) bool."""
        return self._rows_of(self.block.valid)

    @property
    def deviation(self) -> Tensor:
        """``e_i`` of these images, (n,), see :func:`~kornia_lightning_probe.functional.between_image_deviation`."""
        return self._rows_of(self.block.deviation)

    @property
    def clean_squared_deviation(self) -> Tensor:
        """``|a_i - m|^2`` of these images, (n,)."""
        return self._rows_of(self.block.squared_deviation)

    @property
    def clean_squared_length(self) -> Tensor:
        """``|a_i|^2`` of these images, (n,)."""
        return self._rows_of(self.block.squared_length)

    def by_view(self, x: Tensor) -> Tensor:
        """The rows of each view apart: from (B, ...) to (views, images, ...)."""
        return x.view(self.num_views, -1, *x.shape[1:])

    @cached_property
    def movement(self) -> Movement:
        """Of pooled features, how they move."""
        if self.movements is None:
            return Movements([self.block], [self.by_view(self.augmented)], rows=self.rows)[0]
        movements, layer = self.movements
        return movements[layer]

    def each_view(self, x: Tensor) -> Tensor:
        """From one row for each image, (n, ...), to one for each image and view, (B, ...)."""
        return x if self.num_views == 1 else x.repeat(self.num_views, *[1] * (x.ndim - 1))

    def _rows_of(self, x: Tensor) -> Tensor:
        # A tensor's len() goes through Python, its shape does not; this runs for every layer and view.
        return x if self.rows.stop - self.rows.start == x.shape[0] else x[self.rows]

    @cached_property
    def squared_distance(self) -> Tensor:
        """``d_i = |b_i - a_i|^2``, (B,)."""
        if self.site.representation == "pooled":
            return self.movement.squared_length.flatten()
        return squared_distance(self.augmented, self.clean_rows, room=self.temporaries.room(self.augmented))

    @cached_property
    def squared_deviation(self) -> Tensor:
        """``g_i = |b_i - m|^2``, (B,)."""
        return squared_distance(self.augmented, self.block.mean, room=self.temporaries.room(self.augmented))
