"""A result in a checkpoint: what is the same in all of them apart, and its numbers as compressed bytes.

Each small tensor costs an archive some 250 bytes. Of neighbouring numbers the leading bytes are alike, so that these
are put beside each other before they are compressed. No training moves the pixels, so that their numbers are apart.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kornia_lightning_probe.results.kept.rounded import kept_errors
from kornia_lightning_probe.results.plain import Part
from kornia_lightning_probe.results.tables import INPUT

#: Of the packed form; what a result writes of itself has lower numbers.
FORMAT = 3
_UNPACKED_FORMAT = 2
_COLUMNS = ("value", "std_error", "num_images")
_DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "int64": torch.int64}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
# By name, whether it holds the pixels.
_BYTES = {"pixels": True, "numbers": False}
# A code for so few bytes fits the exponents, and another one the digits.
_MEMORY_LEVEL = 6


def packed(state: Mapping[str, Any], *, exact: bool) -> dict[str, Any]:
    """A result's state as a checkpoint holds it.

    Args:
        state: as `state_of` gives it.
        exact: whether to keep every digit, or those of an older result (see `rounded`).

    Returns:
        Plain containers, numbers, strings and tensors; but for ``epoch``, ``step``, ``numbers`` and some facts of the
        metadata it is the same from probe to probe.
    """
    tables: dict[str, Any] = {}
    plans: list[_Plan] = []
    for metric, table in state["tables"].items():
        dtypes = _dtypes_of(metric, table, exact=exact)
        plans.append(_Plan(metric, table["layers"], dtypes))
        constant = {name: table[name] for name in ("layers", "attempted", "quantity")}
        tables[metric] = {**constant, "dtypes": [_NAMES[dtype] for dtype in dtypes]}
    found = {**state, "format": FORMAT, "tables": tables}
    for name, of_pixels in _BYTES.items():
        content = b""
        for dtype, cells in _runs(plans, of_pixels=of_pixels).items():
            content += _bytes_of(cells, state["tables"], dtype)
        found[name] = _tensor_of(_compressed(content))
    return found


def is_packed(state: Any) -> bool:
    """Whether a state is of the packed form, and not what a result has written of itself."""
    return isinstance(state, Mapping) and state.get("format") == FORMAT


def unpacked(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state that :func:`packed` was given, with the digits that were kept.

    Raises:
        ValueError: where something is missing or malformed, with its place.
    """
    whole = Part(state)
    tables: dict[str, Any] = {}
    plans: list[_Plan] = []
    num_views = len(whole.entry("views").entries())
    for metric, part in whole.entry("tables").items():
        plan = _Plan.read(metric, part)
        plans.append(plan)
        shape = (num_views, len(plan.layers))
        tables[metric] = dict(part.mapping())
        for name, dtype in zip(_COLUMNS, _WIDEST, strict=True):
            tables[metric][name] = torch.zeros(shape, dtype=dtype)
    for name, of_pixels in _BYTES.items():
        _fill(tables, whole.entry(name), _runs(plans, of_pixels=of_pixels), num_views)
    return {**state, "format": _UNPACKED_FORMAT, "tables": tables}


class _Plan(NamedTuple):
    """A metric's layers, and the types of its columns among the bytes."""

    metric: str
    layers: Sequence[str]
    dtypes: Sequence[torch.dtype]

    @classmethod
    def read(cls, metric: str, part: Part) -> _Plan:
        """That of a table of a packed state."""
        layers = part.entry("layers").read(list[str])
        named = part.entry("dtypes").entries(len(_COLUMNS))
        for name in named:
            if name.value not in _NAMES.values():
                raise name.wrong(f"one of {', '.join(_DTYPES)}")
        return cls(metric, layers, [_DTYPES[name.value] for name in named])


class _Cells(NamedTuple):
    """Those of one column of a metric's table that are at some layers."""

    metric: str
    column: str
    places: list[int]


_WIDEST = (torch.float64, torch.float64, torch.int64)


def _dtypes_of(metric: str, table: Mapping[str, Any], *, exact: bool) -> Sequence[torch.dtype]:
    if exact:
        return _WIDEST
    return torch.float32, kept_errors(metric, logged=table["quantity"]["logged"]), torch.int64


def _runs(plans: Sequence[_Plan], *, of_pixels: bool) -> dict[torch.dtype, list[_Cells]]:
    """The cells of the pixels, or of all the layers, of one type after the other and of each in their order."""
    runs: dict[torch.dtype, list[_Cells]] = {}
    for number, column in enumerate(_COLUMNS):
        for plan in plans:
            is_pixels = [layer == INPUT for layer in plan.layers]
            places = [place for place, is_it in enumerate(is_pixels) if is_it == of_pixels]
            runs.setdefault(plan.dtypes[number], []).append(_Cells(plan.metric, column, places))
    return runs


def _bytes_of(cells: Sequence[_Cells], tables: Mapping[str, Any], dtype: torch.dtype) -> bytes:
    """The numbers' first bytes, their second bytes and so on, the least significant first."""
    columns = [tables[each.metric][each.column][:, each.places] for each in cells]
    numbers = torch.cat([column.flatten().to(dtype) for column in columns])
    raw = numbers.view(torch.uint8).reshape(-1, dtype.itemsize).T
    return bytes(_little_endian(raw).contiguous().numpy())


def _fill(tables: dict[str, Any], part: Part, runs: Mapping[torch.dtype, Sequence[_Cells]], num_views: int) -> None:
    """Write packed numbers to the tables."""
    counts = [num_views * _num_layers(cells) * dtype.itemsize for dtype, cells in runs.items()]
    content = _content(part, sum(counts))
    for (dtype, cells), of_one_type in zip(runs.items(), torch.split(content, counts), strict=True):
        planes = of_one_type.reshape(dtype.itemsize, -1)
        # A copy begins where a number of any size may.
        numbers = _little_endian(planes).T.flatten().clone().view(dtype)
        sizes = [num_views * len(each.places) for each in cells]
        for each, found in zip(cells, torch.split(numbers, sizes), strict=True):
            table = tables[each.metric][each.column]
            table[:, each.places] = found.reshape(num_views, len(each.places)).to(table.dtype)


def _num_layers(cells: Sequence[_Cells]) -> int:
    return sum(len(each.places) for each in cells)


def _little_endian(planes: Tensor) -> Tensor:
    return planes.flip(0) if sys.byteorder == "big" else planes


def _compressed(content: bytes) -> bytes:
    packing = zlib.compressobj(level=9, memLevel=_MEMORY_LEVEL)
    return packing.compress(content) + packing.flush()


def _content(part: Part, num_bytes: int) -> Tensor:
    """So many bytes that were compressed."""
    unpacking = zlib.decompressobj()
    try:
        # What is broken is not to fill the memory.
        content = unpacking.decompress(bytes(part.read(Tensor).numpy()), num_bytes + 1)
    except (zlib.error, TypeError, RuntimeError) as error:
        raise part.wrong(f"the compressed bytes of a result's tables ({error})") from error
    if len(content) != num_bytes:
        raise ValueError(f"{part.place} holds {len(content)} bytes or more, and the tables have {num_bytes}")
    return _tensor_of(content)


def _tensor_of(content: bytes) -> Tensor:
    if not content:
        # There is no buffer of nothing.
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)
