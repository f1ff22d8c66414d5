"""The records that a result is made of: a row, a view's name, a metric's table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from kornia_lightning_probe.functional.influence import combined_error, shares
from kornia_lightning_probe.quantity import Quantity

if TYPE_CHECKING:
    from collections.abc import Sequence


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
    severity 0 the augmentation does nothing. `moves_pixels` says that it moves pixels from where they are.
    """

    augmentation: str
    level: int
    severity: float
    from_identity: bool = False
    moves_pixels: bool = False


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
        expected = (len(self.value), len(self.layers))
        attempted = self.attempted.expand(expected) if self.attempted.ndim == 0 else self.attempted
        tables = {
            "value": _owned(self.value, torch.float64),
            "std_error": _owned(self.std_error, torch.float64),
            "num_images": _owned(self.num_images, torch.int64),
            "attempted": _owned(attempted, torch.bool),
        }
        for name, table in tables.items():
            if tuple(table.shape) != expected:
                raise ValueError(f"{name} has shape {tuple(table.shape)}; expected (views, layers) = {expected}")
            object.__setattr__(self, name, table)
        if self.influence is not None:
            if self.influence.ndim != 3 or tuple(self.influence.shape[:2]) != expected:
                came = tuple(self.influence.shape)
                raise ValueError(f"influence has shape {came}; expected (views, layers, images) = {(*expected, 'N')}")
            object.__setattr__(self, "influence", _owned(self.influence, torch.float32))
        object.__setattr__(self, "layers", tuple(self.layers))
        if len(set(self.layers)) != len(self.layers):
            raise ValueError(f"a layer is named twice in {self.layers}")

    def shares(self, views: Sequence[int]) -> Tensor | None:
        """What each image adds to the errors of some views' values, (views, L, N); None where that isn't kept."""
        return None if self.influence is None else shares(self.influence[list(views)])

    def error_of_mean(self, views: Sequence[int], columns: Sequence[int]) -> float:
        """Standard error of the mean over views of the mean over layers, NaN skipped; see `combined_error`."""
        cells = list(views), list(columns)
        known = self.value[cells[0]][:, cells[1]].isfinite()
        per_view = known / known.sum(1, keepdim=True).clamp(min=1)
        weights = (per_view / known.any(1).sum().clamp(min=1)).double()
        errors, image_shares = self.std_error[cells[0]][:, cells[1]], self.shares(views)
        if not known.any():
            return math.nan
        if image_shares is not None:
            image_shares = image_shares[:, cells[1]].flatten(0, 1)[:, None]
        return float(combined_error(weights.reshape(1, -1, 1), errors.reshape(-1, 1), image_shares))


def _owned(table: Tensor, dtype: torch.dtype) -> Tensor:
    return table.detach().to("cpu", dtype, copy=True)


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
