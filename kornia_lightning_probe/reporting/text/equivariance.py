"""A result's equivariance as a text table: what flattened maps call a change, beside moving along and staying put."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from torch import Tensor

from kornia_lightning_probe.reporting.text.table import named, number, side_by_side, wrapped
from kornia_lightning_probe.results.lookup import ProbeNumbers
from kornia_lightning_probe.results.tables import pick_layers

ERROR = "equivariance_error"
COLUMNS = ("sensitivity_flat", "invariance_error", ERROR, "interpolation_floor")
MOST_ROWS = 12
HOW_TO_READ = f"{ERROR} near interpolation_floor: maps move along; invariance_error near 0: they stay"


def equivariance_text(numbers: ProbeNumbers, *, max_layers: int | None = MOST_ROWS) -> Iterator[str]:
    """Lay out equivariance for the layers that are maps: one table, or nothing where it wasn't measured.

    The means of one row are over the same views, those under which all of it has a value; a warp that leaves nothing
    of a small map is not among them.

    Args:
        numbers: The result.
        max_layers: The most rows, picked evenly by depth, and never more than twelve; None is twelve.

    Yields:
        The table, in one or more texts of several lines, and how to read it.
    """
    if ERROR not in numbers.metrics or numbers.tensor(ERROR).isnan().all():
        return
    known = numbers.table(ERROR).layers
    most = MOST_ROWS if max_layers is None else min(MOST_ROWS, max_layers)
    layers = pick_layers(known, most)
    few = ""
    if len(layers) < len(known):
        few = f" ({len(layers)} of {len(known)} layers, evenly by depth)"
    columns = [name for name in COLUMNS if name in numbers.metrics]
    texts: dict[str, list[str]] = {name: [] for name in (*columns, "views")}
    for layer in layers:
        for name, cell in _row(numbers, layer, columns).items():
            texts[name].append(cell)
    rows = named("layer", layers)
    first, *others = side_by_side(rows, texts.items(), again=rows)
    title = wrapped(f"equivariance of maps{few} under {_views(numbers)}; means over `views`")
    yield f"{title}\n{first}"
    yield from others
    yield wrapped(HOW_TO_READ)


def _views(numbers: ProbeNumbers) -> str:
    found = numbers.tensor(ERROR).isfinite().any(1).nonzero().flatten().tolist()
    names = [numbers.views[i].augmentation for i in found]
    return ", ".join(dict.fromkeys(names))


def _row(numbers: ProbeNumbers, layer: str, columns: Sequence[str]) -> dict[str, str]:
    """A layer's means over the views under which every column has a value; else under which its error has one."""
    values = {name: _column(numbers, name, layer) for name in columns}
    error = values[ERROR].isfinite()
    every = error.clone()
    for column in values.values():
        every &= column.isfinite()
    views = every if every.any() else error
    cells = {name: number(float(column[views].nanmean())) for name, column in values.items()}
    table = numbers.table(ERROR)
    tried = table.attempted[:, table.layers.index(layer)].sum()
    cells["views"] = f"{int(views.sum())} of {int(tried)}"
    return cells


def _column(numbers: ProbeNumbers, metric: str, layer: str) -> Tensor:
    table = numbers.table(metric)
    if layer not in table.layers:
        return table.value.new_full((len(numbers.views),), math.nan)
    return table.value[:, table.layers.index(layer)]
