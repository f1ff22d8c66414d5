"""The records that a result is made of: a row, a view's name, a metric's table."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from kornia_lightning_probe.functional.influence import combined_error, shares
from kornia_lightning_probe.quantity import Quantity

#: The layers that no model has: its input's pixels, and its output.
INPUT = "input"
OUTPUT = "output"


class ProbeRow(NamedTuple):
    """One number of a result, with everything that says what it is.

    `value` and `std_error` are NaN where nothing could be measured (a dead layer); `num_images` counts the images
    behind the value; `layer_index` is 0 for the input pixels and rises with depth.
    """

    epoch: int
    step: int
    metric: str
    layer: str
    layer_index: int
    augmentation: str
    level: int
    severity: float
    value: float
    std_error: float
    num_images: int


@dataclass(frozen=True)
class ViewInfo:
    """The name of one view: an augmentation at one level (from 1) and its severity, a physical magnitude.

    `from_identity` says that the severity is the distance from the identity, as in every ladder of the presets: at
    severity 0 the augmentation does nothing. `moves_pixels` says that it moves pixels from where they are. `on_curve`
    says that the severities of its augmentation are a curve, and not both ends of a range or the corners of several.

    Example:
        >>> ViewInfo("rotation", 2, 15.0, moves_pixels=True).label
        'rotation 15'
    """

    augmentation: str
    level: int
    severity: float
    from_identity: bool = False
    moves_pixels: bool = False
    on_curve: bool = True
    unit: str = ""

    @property
    def label(self) -> str:
        """The augmentation and its severity, as a text."""
        return f"{self.augmentation} {self.severity:g}"

    @property
    def named(self) -> str:
        """The augmentation, its severity and its unit, for people to read.

        Example:
            >>> ViewInfo("rotation", 2, 15.0, unit="degrees").named
            'rotation 15 (degrees)'
        """
        if not self.unit:
            return self.label
        return f"{self.label} ({self.unit})"

    @property
    def key(self) -> tuple[str, float]:
        """What the same view of another result goes by: a level counts what else is in a ladder."""
        return (self.augmentation, self.severity)


#: The one view of a result that measures the clean images themselves, such as their drift over a training.
CLEAN = ViewInfo("clean", 1, 0.0)


@dataclass(frozen=True, eq=False)
class MetricTable:
    """One metric's numbers over all views and the layers that the metric applies to.

    Args:
        layers: The L layers' names, in order of depth.
        value: (V, L), in the metric's unit; NaN where nothing was measured.
        std_error: (V, L), in the same unit; NaN where it is unknown.
        num_images: (V, L), how many images are behind each value.
        attempted: (V, L) of bool, or one for all: False where the metric doesn't apply to the view: no row.
        influence: (V, L, N), what each image adds to each value, see `influence.py`; NaN where it is not known. None
            where that isn't kept. It lives in memory only: not in states, nor in files.
        quantity: what the metric says of itself.

    Raises:
        ValueError: If the tables' shapes differ or a layer is named twice.
    """

    layers: tuple[str, ...]
    value: Tensor
    std_error: Tensor
    num_images: Tensor
    attempted: Tensor = torch.tensor(True)  # noqa: RUF009 - never written to: __post_init__ copies
    influence: Tensor | None = None
    quantity: Quantity = Quantity()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        layers = tuple(self.layers)
        if len(set(layers)) != len(layers):
            raise ValueError(f"a layer is named twice in {layers}")
        object.__setattr__(self, "layers", layers)
        shape = (len(self.value), len(layers))
        if self.attempted.ndim == 0:
            object.__setattr__(self, "attempted", self.attempted.expand(shape))
        self._own("value", torch.float64, shape)
        self._own("std_error", torch.float64, shape)
        self._own("num_images", torch.int64, shape)
        self._own("attempted", torch.bool, shape)
        if self.influence is not None:
            self._own("influence", torch.float32, (*shape, *self.influence.shape[2:3]))

    def _own(self, name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        """Keep a copy of a table, if it has the shape that it must have."""
        table = getattr(self, name)
        if tuple(table.shape) != shape or (name == "influence" and table.ndim != 3):
            axes = "(views, layers, images)" if name == "influence" else "(views, layers)"
            expected = (*shape[:2], "N") if name == "influence" else shape
            raise ValueError(f"{name} has shape {tuple(table.shape)}; expected {axes} = {expected}")
        object.__setattr__(self, name, table.detach().to("cpu", dtype, copy=True))

    @property
    def scale(self) -> tuple[float, float]:
        """The ends of an axis for the values: what the metric says of itself, else theirs and 0."""
        if self.quantity.scale is not None:
            return self.quantity.scale
        known = [0.0, *self.value[self.value.isfinite()].tolist()]
        low, high = min(known), max(known)
        return (low, high) if high > low else (low, low + 1.0)

    def without(self, layers: Collection[str]) -> MetricTable:
        """This table without some layers and their parts (`stem:cls`)."""
        gone = set(layers)
        kept = [i for i, name in enumerate(self.layers) if gone.isdisjoint((name, name.rpartition(":")[0]))]
        if len(kept) == len(self.layers):
            return self
        influence = None if self.influence is None else self.influence[:, kept]
        return MetricTable(
            tuple(self.layers[i] for i in kept),
            self.value[:, kept],
            self.std_error[:, kept],
            self.num_images[:, kept],
            self.attempted[:, kept],
            influence,
            self.quantity,
        )

    def shares(self, views: Sequence[int]) -> Tensor | None:
        """What each image adds to the errors of some views' values, (views, L, N); None where that isn't kept."""
        if self.influence is None:
            return None
        return shares(self.influence[list(views)])

    def mean(self, views: Sequence[int], columns: Sequence[int]) -> float:
        """Mean over views of the mean over layers, NaN skipped; NaN where nothing is left."""
        of_views = self.value[list(views)][:, list(columns)].nanmean(dim=1)
        return float(of_views.nanmean())

    def error_of_mean(self, views: Sequence[int], columns: Sequence[int]) -> float:
        """Standard error of :meth:`mean`; see `combined_error`."""
        columns = list(columns)
        value = self.value[list(views)][:, columns]
        known = value.isfinite()
        if not known.any():
            return math.nan
        of_layers = known / known.sum(1, keepdim=True).clamp(min=1)
        weights = of_layers.double() / known.any(1).sum()
        errors = self.std_error[list(views)][:, columns]
        image_shares = self.shares(views)
        if image_shares is not None:
            image_shares = image_shares[:, columns].flatten(0, 1).unsqueeze(1)
        error = combined_error(weights.reshape(1, -1, 1), errors.reshape(-1, 1), image_shares)
        return float(error)


@dataclass(frozen=True, eq=False)
class WorstImages:
    """The images that one view moves furthest, as small pictures.

    Args:
        layer: where they move.
        view: the place of the view in the result.
        places: (n,) int64, the images' places in the tables, furthest first.
        clean: (n, H, W, 3) uint8, the images without their normalisation.
        augmented: (n, H, W, 3) uint8, the same under the view.

    Raises:
        ValueError: If the shapes or types differ.
    """

    layer: str
    view: int
    places: Tensor
    clean: Tensor
    augmented: Tensor

    def __post_init__(self) -> None:
        shapes = [tuple(self.clean.shape), tuple(self.augmented.shape)]
        is_like_pictures = self.clean.ndim == 4 and self.clean.shape[-1] == 3
        if shapes[0] != shapes[1] or not is_like_pictures or len(self.places) != len(self.clean):
            raise ValueError(f"pictures of {len(self.places)} images have the shapes {shapes}, expected (n, H, W, 3)")
        if {self.clean.dtype, self.augmented.dtype} != {torch.uint8}:
            raise ValueError(f"pictures are uint8, got {self.clean.dtype} and {self.augmented.dtype}")


@dataclass(frozen=True, eq=False)
class ImageScores:
    """How far each image moved and how far it lies from the others, of which sensitivity is made.

    Args:
        layers: the L names of the pixels and the layers.
        moved: (V, L, N) float32, d_i / (2 mean e) under each view; its mean over images is the squared sensitivity. NaN
            where an image is not known.
        apart: (2, L, N) float32, e_i / mean e, of mean 1: of what is compared under views that leave pixels where they
            are, and under those that move them.
        labels: (N,) int64, -1 for none; None without labels.
        worst: pictures of those that move furthest; None where they aren't kept.

    Raises:
        ValueError: If the shapes differ.
    """

    layers: tuple[str, ...]
    moved: Tensor
    apart: Tensor
    labels: Tensor | None = None
    worst: WorstImages | None = None

    def __post_init__(self) -> None:
        num_views, num_layers, num_images = self.moved.shape
        shapes = {"moved": tuple(self.moved.shape[1:]), "apart": tuple(self.apart.shape[1:])}
        expected = (len(self.layers), num_images)
        if set(shapes.values()) != {expected} or len(self.apart) != 2:
            raise ValueError(f"scores of {num_views} views and {num_layers} layers have the shapes {shapes}")
        if self.labels is not None and tuple(self.labels.shape) != (num_images,):
            raise ValueError(f"labels have the shape {tuple(self.labels.shape)}, expected ({num_images},)")


def pick_layers(layers: Sequence[str], most: int | None = 10) -> list[str]:
    """At most `most` of the layers, evenly by depth, the first and the last among them; None keeps them all.

    Example:
        >>> pick_layers(["a", "b", "c", "d", "e"], 3)
        ['a', 'c', 'e']
    """
    if most is None or len(layers) <= most:
        return list(layers)
    step = (len(layers) - 1) / max(most - 1, 1)
    return [layers[round(step * i)] for i in range(most)]
