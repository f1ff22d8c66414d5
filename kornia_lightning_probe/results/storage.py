"""Results to and from plain data: what a checkpoint and a JSON file can hold; files are written whole or not at all."""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pathlib import Path


def plain(value: Any) -> Any:
    """The value as numbers, strings, lists, dicts and None; NaN becomes None, and what is none of these its text."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(entry) for entry in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and math.isnan(value):
        return None
    return value if value is None or type(value) in (bool, int, float, str) else str(value)


def json_text(state: dict[str, Any]) -> str:
    """A result's state as one line of strict JSON: NaN is null, an infinity "inf" or "-inf", other floats are exact."""
    return json.dumps(_jsonable(state), allow_nan=False) + "\n"


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(entry) for key, entry in value.items()}
    if isinstance(value, Tensor):
        return _jsonable(value.tolist())
    if isinstance(value, list):
        return [_jsonable(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def state_of_json(text: str) -> dict[str, Any]:
    """The state that `json_text` has written, its tables tensors again.

    Raises:
        ValueError: If the text is no JSON object.
    """
    state = json.loads(text)
    if not isinstance(state, dict):
        raise ValueError(f"a probe result is a JSON object; this is a {type(state).__name__}")
    for table in state.get("tables", {}).values():
        shape = (len(state["views"]), len(table["layers"]))
        for name in ("value", "std_error"):
            numbers = [[math.nan if cell is None else float(cell) for cell in row] for row in table[name]]
            table[name] = torch.tensor(numbers, dtype=torch.float64).reshape(shape)
        table["num_images"] = torch.tensor(table["num_images"], dtype=torch.int64).reshape(shape)
        table["attempted"] = torch.tensor(table["attempted"], dtype=torch.bool).reshape(shape)
    return state


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that no reader ever sees half of it; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
