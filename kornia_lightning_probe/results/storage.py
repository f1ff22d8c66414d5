"""Results to and from plain data: what a checkpoint and a JSON file can hold; files are written whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from kornia_lightning_probe.quantity import Quantity
from kornia_lightning_probe.results import format1
from kornia_lightning_probe.results.lookup import ProbeNumbers
from kornia_lightning_probe.results.metadata import ProbeMetadata
from kornia_lightning_probe.results.plain import Part
from kornia_lightning_probe.results.tables import MetricTable, ViewInfo

FORMAT = 2
_READ = (1, FORMAT)


def state_of(numbers: ProbeNumbers) -> dict[str, Any]:
    """The numbers as tensors, numbers, strings, lists and dicts, which a checkpoint loads as weights only."""
    return {
        "format": FORMAT,
        "epoch": numbers.epoch,
        "step": numbers.step,
        "layers": list(numbers.layers),
        "views": [{**asdict(view), "severity": float(view.severity)} for view in numbers.views],
        "tables": {metric: _table_state(table) for metric, table in numbers.tables.items()},
        "metadata": numbers.metadata.state(),
    }


def _table_state(table: MetricTable) -> dict[str, Any]:
    return {
        "layers": list(table.layers),
        "value": table.value.clone(),
        "std_error": table.std_error.clone(),
        "num_images": table.num_images.clone(),
        "attempted": table.attempted.clone(),
        "quantity": table.quantity.state(),
    }


def numbers_of(state: Any) -> ProbeNumbers:
    """The numbers that `state_of` has written, in this format or an earlier one.

    What a later version has added to a format may be missing.

    Raises:
        ValueError: If the state is malformed, with the place and what was expected there, or has another format.
    """
    whole = Part(state)
    version = whole.entry("format").value
    if version not in _READ:
        raise ValueError(
            f"this is no probe result of format 1 to {FORMAT}: its format is {version!r}; update the package"
        )
    views = [_view(part) for part in whole.entry("views").entries()]
    tables: dict[str, MetricTable] = {}
    for name, part in whole.entry("tables").items():
        tables[name] = _table(part, num_views=len(views))
    metadata = _metadata(whole)
    if version == 1:
        metadata = format1.renamed_metadata(metadata)
        tables = format1.with_one_sensitivity(format1.renamed(tables), views, metadata)
    return ProbeNumbers(
        layers=whole.entry("layers").read(list[str]),
        views=views,
        tables=tables,
        epoch=whole.entry("epoch").read(int),
        step=whole.entry("step").read(int),
        metadata=metadata,
    )


def _view(part: Part) -> ViewInfo:
    # What moves pixels was called geometric in format 1.
    renamed = {"moves_pixels": part.mapping().get("geometric", False), **part.value}
    view: ViewInfo = Part(renamed, part.place).record(ViewInfo)
    return view


def _table(part: Part, *, num_views: int) -> MetricTable:
    layers = part.entry("layers").read(tuple[str, ...])
    shape = (num_views, len(layers))
    later: dict[str, Any] = {}
    if part.has("attempted"):
        later["attempted"] = part.entry("attempted").tensor(shape, torch.bool)
    if part.has("quantity"):
        later["quantity"] = part.entry("quantity").record(Quantity)
    value = part.entry("value").tensor(shape, torch.float64)
    error = part.entry("std_error").tensor(shape, torch.float64)
    images = part.entry("num_images").tensor(shape, torch.int64)
    try:
        return MetricTable(layers, value, error, images, **later)
    except ValueError as error_of_table:
        raise ValueError(f"{part.place}: {error_of_table}") from error_of_table


def _metadata(whole: Part) -> ProbeMetadata:
    if not whole.has("metadata"):
        return ProbeMetadata()
    part = whole.entry("metadata")
    bank = part.mapping().get("bank") or {}
    _require_bank(Part(bank, "metadata.bank"))
    _require_grids(Part(part.mapping().get("grids") or {}, "metadata.grids"))
    # An older file may hold nothing in a place that is never empty now.
    known = {name: value for name, value in part.mapping().items() if value is not None}
    fields = Part(known, part.place).fields(ProbeMetadata)
    return ProbeMetadata.of({**part.value, **fields})


def _require_bank(part: Part) -> None:
    """Refuse a description of a bank that comparisons could not read."""
    if part.has("views"):
        for view in part.entry("views").entries():
            view.entry("augmentation").read(str)
            view.entry("severity").read(float)
            view.entry("transform").read(str)


def _require_grids(part: Part) -> None:
    """Refuse grids that comparisons could not read."""
    for layer in part.mapping():
        grid = part.entry(layer)
        count = len(grid.entry("size").read(list[int]))
        for name in ("stride", "offset", "spread"):
            for number in grid.entry(name).entries(count):
                number.read(float)


def numbers_of_json(source: str | os.PathLike[str]) -> ProbeNumbers:
    """The numbers in a JSON file, or in the JSON text itself.

    Raises:
        ValueError: If it is malformed, with the file and the place in it.
    """
    is_text = isinstance(source, str) and source.lstrip().startswith("{")
    name = "the JSON text" if is_text else str(source)
    try:
        text = str(source) if is_text else Path(source).read_text(encoding="utf-8")
        return numbers_of(json.loads(text))
    except json.JSONDecodeError as error:
        raise ValueError(f"{name} is no JSON, or only a piece of it: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{name} is no probe result: it is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that no reader ever sees half of it; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
