"""Results of file format 1: their metrics' old names, and what those metrics said of themselves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch

from kornia_lightning_probe.quantity import Quantity, sensitivity_quantity
from kornia_lightning_probe.results.drift import CKA_FIRST, CKA_PREVIOUS, RANK
from kornia_lightning_probe.results.lookup import SENSITIVITY
from kornia_lightning_probe.results.metadata import ProbeMetadata
from kornia_lightning_probe.results.tables import INPUT, MetricTable, ViewInfo

FLAT = "sensitivity_flat"
POOLED = "sensitivity_pooled"
_NEW_NAMES = {"sensitivity": FLAT, "sensitivity_median": "channel_median"}

_SWAP = "0: the layer does not notice; 1: it moves as far as swapping the image for another"
_NOT_NEGATIVE = (0.0, math.inf)
_SHARE = (0.0, 1.0)
_ERROR = Quantity(range=_NOT_NEGATIVE, at_identity=0.0, scale=(0.0, 1.2))

#: By new name what the metrics of format 1 say of themselves, which its files do not hold; new ones have no line.
_QUANTITIES = {
    SENSITIVITY: sensitivity_quantity(_SWAP, logged=True),
    FLAT: sensitivity_quantity(_SWAP),
    POOLED: sensitivity_quantity(_SWAP),
    "channel_median": sensitivity_quantity(_SWAP),
    "equivariance_error": sensitivity_quantity("0: the map moves along with the pixels"),
    "invariance_error": sensitivity_quantity("0: the map stays where it is"),
    "interpolation_floor": Quantity(range=_NOT_NEGATIVE, scale=(0.0, 1.2)),
    "relative_change": replace(_ERROR, meaning="|augmented - clean| / |clean|"),
    "cosine": Quantity(
        range=(-1.0, 1.0),
        at_identity=1.0,
        scale=(-1.0, 1.0),
        marks=((-1.0, "-1 (opposite)"), (0.0, "0 (unrelated)"), (1.0, "1 (one direction)")),
    ),
    "spread": Quantity(range=_NOT_NEGATIVE),
    "spread_ratio": Quantity(range=_NOT_NEGATIVE),
    "shared_shift": Quantity(scale=_SHARE, marks=((0.0, "0 (each its own)"), (0.5, "0.5"), (1.0, "1 (all alike)"))),
    "channel_dominance": Quantity(
        range=_SHARE, scale=_SHARE, marks=((0.0, "0"), (0.5, "0.5"), (1.0, "1 (all in one)"))
    ),
    "retrieval_auc": Quantity(
        range=_SHARE,
        at_identity=1.0,
        scale=(0.5, 1.0),
        marks=((0.5, "0.5 (chance)"), (0.75, "0.75"), (1.0, "1 (always found)")),
    ),
    "flip_rate": Quantity(
        range=_SHARE,
        at_identity=0.0,
        scale=_SHARE,
        marks=((0.0, "0 (none)"), (0.5, "0.5"), (1.0, "1 (every image)")),
        of_output=True,
    ),
    "pixel_flip_rate": Quantity(
        range=_SHARE,
        at_identity=0.0,
        scale=_SHARE,
        marks=((0.0, "0 (none)"), (0.5, "0.5"), (1.0, "1 (every pixel)")),
        of_output=True,
    ),
    "js_divergence": Quantity(
        unit="nats",
        range=(0.0, math.log(2)),
        at_identity=0.0,
        scale=(0.0, math.log(2)),
        marks=((0.0, "0 (the same)"), (0.35, "0.35"), (math.log(2), "ln 2 (disjoint)")),
        of_output=True,
    ),
    "accuracy": Quantity(range=_SHARE, scale=_SHARE, of_output=True),
    "accuracy_drop": Quantity(range=(-1.0, 1.0), at_identity=0.0, of_output=True),
    "cka_previous": CKA_PREVIOUS,
    "cka_first": CKA_FIRST,
    "rankme": RANK,
}


def renamed(tables: Mapping[str, MetricTable]) -> dict[str, MetricTable]:
    """The tables under their new names, with what their metrics say of themselves."""
    found: dict[str, MetricTable] = {}
    for name, table in tables.items():
        new = _new_name(name)
        found[new] = replace(table, quantity=_QUANTITIES.get(new, table.quantity))
    return found


def renamed_metadata(metadata: ProbeMetadata) -> ProbeMetadata:
    """What is known beside the numbers, with the metrics' new names."""
    without, left_out = metadata.metrics_without_influence, metadata.metrics_left_out
    return replace(
        metadata,
        metrics_without_influence=None if without is None else _new_names(without),
        metrics_left_out=None if left_out is None else {_new_name(name): why for name, why in left_out.items()},
    )


def _new_name(name: str) -> str:
    return _NEW_NAMES.get(name, name)


def _new_names(names: Iterable[str]) -> list[str]:
    return [_new_name(name) for name in names]


def with_one_sensitivity(
    tables: Mapping[str, MetricTable], views: Sequence[ViewInfo], metadata: ProbeMetadata
) -> dict[str, MetricTable]:
    """Add ``sensitivity`` as it is understood now, composed of the flattened and the pooled one.

    It is the flattened one but for maps and tokens under views that move pixels, where it is the pooled one. The mean
    over all tokens of a sequence with a class token was never measured, nor was any mean where
    ``sensitivity_pooled`` was not asked for: such a cell has no row.

    Args:
        tables: by new name.
        views: the tables' rows.
        metadata: its shapes tell maps and tokens from vectors.

    Returns:
        All tables, sensitivity first; those given where nothing was measured that it could be made of.
    """
    if FLAT not in tables:
        return dict(tables)
    flat = tables[FLAT]
    moved = torch.tensor([view.moves_pixels for view in views], dtype=torch.bool).unsqueeze(1)
    has_cells = torch.tensor([_has_cells(layer, tables, metadata) for layer in flat.layers], dtype=torch.bool)
    places = moved & has_cells
    pooled = _over(flat.layers, tables.get(POOLED), num_views=len(views))
    composed = MetricTable(
        flat.layers,
        torch.where(places, pooled.value, flat.value),
        torch.where(places, pooled.std_error, flat.std_error),
        torch.where(places, pooled.num_images, flat.num_images),
        torch.where(places, pooled.attempted, flat.attempted),
        quantity=_QUANTITIES[SENSITIVITY],
    )
    return {SENSITIVITY: composed, **tables}


def _has_cells(layer: str, tables: Mapping[str, MetricTable], metadata: ProbeMetadata) -> bool:
    """Whether a layer is a map or a sequence of tokens; never the pixels, which are compared as they are."""
    if layer == INPUT:
        return False
    pooled = tables[POOLED].layers if POOLED in tables else ()
    if layer in pooled or f"{layer}:cls" in pooled:
        return True
    return len((metadata.shapes or {}).get(layer, ())) > 1


def _over(layers: Sequence[str], table: MetricTable | None, *, num_views: int) -> MetricTable:
    """A table over other layers than its own; where it has none, nothing was measured."""
    unknown = torch.full((num_views, len(layers)), torch.nan)
    nothing = torch.zeros(unknown.shape)
    over = MetricTable(tuple(layers), unknown, unknown, nothing, nothing.bool())
    if table is None:
        return over
    for place, layer in enumerate(table.layers):
        if layer in layers:
            column = layers.index(layer)
            over.value[:, column] = table.value[:, place]
            over.std_error[:, column] = table.std_error[:, place]
            over.num_images[:, column] = table.num_images[:, place]
            over.attempted[:, column] = table.attempted[:, place]
    return over
