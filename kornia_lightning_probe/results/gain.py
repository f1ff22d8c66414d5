"""Where it happens: what each layer adds to what the layer before it makes of an augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kornia_lightning_probe.results.lookup import SENSITIVITY, ProbeNumbers
from kornia_lightning_probe.results.tables import INPUT, MetricTable
from kornia_lightning_probe.wording import quoted

# What is smaller is rounding of the forward passes, whatever the noise floor.
_ROUNDING = 1e-5


class GainRow(NamedTuple):
    """What one layer makes of the movement that reaches it.

    Attributes:
        layer: the layer.
        before: the layer before it; `input` are the pixels.
        gain: the layer's value over that of the layer before it; of several augmentations the geometric mean. Above 1:
            the layer moves more than what it is given.
        std_error: its standard error, of differences image by image where the result keeps what each image adds, else
            the largest that it can be.
    """

    layer: str
    before: str
    gain: float
    std_error: float


def gain_rows(
    numbers: ProbeNumbers, augmentation: str | None = None, *, metric: str = "sensitivity_flat"
) -> tuple[GainRow, ...]:
    """Divide each layer's value by that of the layer before it, see `ProbeResult.gain`.

    Args:
        numbers: the result.
        augmentation: this one; None is the mean of the logarithms over all of them.
        metric: a measure that is 0 where nothing moves.

    Raises:
        ValueError: for an unknown metric or augmentation, and a metric that is not 0 at the identity.
    """
    if metric not in numbers.tables and "relative_change" in numbers.tables:
        raise ValueError(
            f"a gain of {metric!r} needs the distance between images, which one image doesn't have: give several "
            "images, or reference="
        )
    table = numbers.table(metric)
    if table.quantity.at_identity != 0:
        fitting = [name for name, other in numbers.tables.items() if other.quantity.at_identity == 0]
        raise ValueError(
            f"a gain is a ratio of measures that are 0 where nothing moves, which {metric!r} is not; here are "
            f"{quoted(fitting)}"
        )
    names = numbers.augmentations if augmentation is None else (augmentation,)
    considered = [view for name in names for view in numbers.views_of(name)]
    columns = _columns(numbers, metric, considered)
    if len(columns) < 2:
        return ()
    floor = max(numbers.metadata.noise_floor or 0.0, _ROUNDING)
    levels = [_first_level(table.value, _mildest_first(numbers, name), columns, floor) for name in names]
    views = [level for level in levels if level is not None]
    gains, errors = _gains(table, views, columns)
    found = [table.layers[column] for column in columns]
    return tuple(map(GainRow, found[1:], found[:-1], gains.tolist(), errors.tolist()))


def _columns(numbers: ProbeNumbers, metric: str, views: Sequence[int]) -> list[int]:
    """The columns of the pixels and the layers in order of depth, without those that have no value at all.

    The pixels have no pooled value, so under a pooled metric the first layer comes first; a sequence is its patches.
    """
    table = numbers.table(metric)
    is_pooled = metric == "sensitivity_pooled"
    if metric == SENSITIVITY:
        is_pooled = any(numbers.views[view].moves_pixels for view in views)
    names = numbers.layers if is_pooled else (INPUT, *numbers.layers)
    places = {layer: place for place, layer in enumerate(table.layers)}
    found = [places.get(name, places.get(f"{name}:patch")) for name in names]
    known = table.value.isfinite().any(0)
    return [place for place in found if place is not None and known[place]]


def _mildest_first(numbers: ProbeNumbers, augmentation: str) -> list[int]:
    """An augmentation's views by how far they are from no severity, on either side of it."""
    return sorted(numbers.views_of(augmentation), key=lambda view: abs(numbers.views[view].severity))


def _first_level(value: Tensor, views: Sequence[int], columns: Sequence[int], floor: float) -> int | None:
    """The first of an augmentation's views at which all layers stand above the floor; a large movement saturates."""
    for view in views:
        if bool((value[view, list(columns)] > floor).all()):
            return view
    return None


def _gains(table: MetricTable, views: Sequence[int], columns: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The gain of each column but the first over the one before, and its error, by the logarithms' means."""
    if not views:
        nothing = torch.full((len(columns) - 1,), torch.nan, dtype=torch.float64)
        return nothing, nothing
    value = table.value[list(views)][:, list(columns)]
    gains = value.log().diff(dim=1).mean(0).exp()
    shares = table.shares(views)
    if shares is None:
        relative = table.std_error[list(views)][:, list(columns)] / value
        return gains, gains * (relative[:, 1:] + relative[:, :-1]).mean(0)
    # What each image adds to a logarithm is its share of the value.
    of_images = shares[:, list(columns)] / value.unsqueeze(2)
    errors = of_images.diff(dim=1).mean(0).square().sum(1).sqrt()
    return gains, gains * errors
