"""The headline: the one table that answers how far each layer moves, whichever way a view moves the pixels.

A map that moves along with its image has changed where it is flattened, and not where it is pooled; so the headline is
the pooled sensitivity for maps under geometric views, and the flattened one everywhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kornia_lightning_probe.results.tables import MetricTable
from kornia_lightning_probe.wording import known_names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kornia_lightning_probe.result import ProbeResult
    from kornia_lightning_probe.results.tables import ViewInfo

HEADLINE = "headline"
INPUT = "input"
SENSITIVITY = "sensitivity"
POOLED = "sensitivity_pooled"
MOST_NAMED = 4


def origin_of(metrics: Sequence[str], metric: str = HEADLINE) -> str:
    """The measured metric that a name stands for: the headline is a sensitivity, or else the first metric.

    The choice depends on what was measured, never on a value, so that it is the same in every epoch.

    Args:
        metrics: The metrics that were measured.
        metric: A metric's name, or `HEADLINE`.

    Raises:
        ValueError: If nothing was measured.

    Example:
        >>> origin_of(("cosine", "sensitivity")), origin_of(("cka_previous", "rankme")), origin_of((), "cosine")
        ('sensitivity', 'cka_previous', 'cosine')
    """
    if metric != HEADLINE:
        return metric
    if not metrics:
        raise ValueError("there is no headline in this result: no metric was measured")
    return SENSITIVITY if SENSITIVITY in metrics else metrics[0]


def headline_table(tables: Mapping[str, MetricTable], views: Sequence[ViewInfo]) -> MetricTable:
    """Compose the headline of the tables that were measured.

    Args:
        tables: A metric's name to its table.
        views: Which views the tables' rows are.

    Returns:
        The layers of sensitivity. Under geometric views, those that `sensitivity_pooled` has under their own name
        (maps and sequences without a class token) have its value, error, count and influence. What each image adds is
        kept where both tables keep it. Without sensitivity: the first table as it is.

    Raises:
        ValueError: If there is no table.
    """
    table = tables[origin_of(tuple(tables))]
    places = pooled_places(tables, views)
    if not places.any():
        return table
    pooled = tables[POOLED]
    columns = torch.tensor([pooled.layers.index(layer) if layer in pooled.layers else -1 for layer in table.layers])

    def composed(flat: Tensor, mean: Tensor) -> Tensor:
        where = places if flat.ndim == 2 else places.unsqueeze(2)
        return torch.where(where, mean[:, columns], flat)

    return MetricTable(
        table.layers,
        composed(table.value, pooled.value),
        composed(table.std_error, pooled.std_error),
        composed(table.num_images, pooled.num_images),
        composed(table.attempted, pooled.attempted),
        _influence(table, pooled, composed),
    )


def pooled_places(tables: Mapping[str, MetricTable], views: Sequence[ViewInfo]) -> Tensor:
    """Where the headline is pooled: (views, layers of the headline) of bool; never the pixels, the yardstick of all."""
    table = tables[origin_of(tuple(tables))]
    places = torch.zeros(len(views), len(table.layers), dtype=torch.bool)
    pooled = tables.get(POOLED)
    if SENSITIVITY not in tables or pooled is None:
        return places
    geometric = torch.tensor([view.moves_pixels for view in views], dtype=torch.bool)
    for column, layer in enumerate(table.layers):
        if layer in pooled.layers and layer != INPUT:
            places[:, column] = geometric & pooled.attempted[:, pooled.layers.index(layer)]
    return places


def pooled_augmentations(
    result: ProbeResult, layers: Sequence[str] | None = None, augmentation: str | None = None
) -> tuple[str, ...]:
    """The augmentations under which the headline is pooled at some layer.

    Args:
        result: The result.
        layers: Only these layers; None is all.
        augmentation: Only this augmentation; None is all.
    """
    places = pooled_places({name: result.table(name) for name in result.metrics}, result.views)
    shown = [layers is None or layer in layers for layer in result.table(HEADLINE).layers]
    found = places[:, torch.tensor(shown, dtype=torch.bool)].any(1).tolist()
    names = [view.augmentation for view, pooled in zip(result.views, found, strict=True) if pooled]
    return tuple(name for name in dict.fromkeys(names) if augmentation in (None, name))


def pooled_text(
    result: ProbeResult, metric: str, layers: Sequence[str] | None = None, augmentation: str | None = None
) -> str:
    """What is pooled in the headline, in a few words such as "maps pooled under rotation, shear"; "" where nothing is.

    Args:
        result: The result.
        metric: The metric that is shown; "" for any but the headline.
        layers: The layers that are shown; None is all.
        augmentation: The augmentation that is shown; None is all.
    """
    names = pooled_augmentations(result, layers, augmentation) if metric == HEADLINE else ()
    if not names:
        return ""
    if set(names) == {augmentation or name for name in result.augmentations}:
        return "maps pooled"
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"maps pooled under {', '.join(names[:MOST_NAMED])}{more}"


def common_headline(results: Mapping[str, ProbeResult]) -> str:
    """`HEADLINE`, if it is the same metric in all results.

    Raises:
        ValueError: If it is not; the message shows what it is in each.
    """
    origins = {name: origin_of(result.metrics) for name, result in results.items()}
    if len(set(origins.values())) > 1:
        found = known_names("result", [f"{name} ({origin})" for name, origin in origins.items()])
        raise ValueError(f"the results have no headline in common; give metric=...; {found}")
    return HEADLINE


def _influence(table: MetricTable, pooled: MetricTable, composed: Callable[[Tensor, Tensor], Tensor]) -> Tensor | None:
    if table.influence is None or pooled.influence is None or table.influence.shape[2] != pooled.influence.shape[2]:
        return None
    return composed(table.influence, pooled.influence)
