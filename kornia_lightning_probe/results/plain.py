"""Plain data: numbers, strings, lists and mappings, written as JSON and read with the place of every fault."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

_KINDS = {
    torch.float64: float,
    torch.float32: float,
    torch.int64: int,
    torch.bool: bool,
}
_INFINITIES = ("inf", "-inf")
_LARGEST = 2**63 - 1
_MOST_SHOWN = 40


def plain(value: Any) -> Any:
    """The value as numbers, strings, lists, dicts and None; NaN becomes None, and what is none of these its text."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(entry) for entry in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and math.isnan(value):
        return None
    if value is None or type(value) in (bool, int, float, str):
        return value
    return str(value)


def json_text(state: Mapping[str, Any]) -> str:
    """Plain data and tensors as one line of strict JSON: NaN is null, an infinity "inf" or "-inf", floats are exact."""
    return json.dumps(_jsonable(state), allow_nan=False) + "\n"


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _jsonable(entry) for key, entry in value.items()}
    if isinstance(value, Tensor):
        return _jsonable(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_jsonable(entry) for entry in value]
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, float) and math.isinf(value):
        return str(value)
    return value


@dataclass(frozen=True)
class Part:
    """A part of plain data that somebody else has written, and where it stands there.

    Whatever is read of it is checked: an error names the place, what was expected and what came.

    Args:
        value: the part.
        place: such as "tables.sensitivity.layers[0]"; "" is the whole.

    Example:
        >>> Part({"layers": ["conv", 5]}).entry("layers").read(list[str])
        Traceback (most recent call last):
        ValueError: layers[1] must be a string, got 5
    """

    value: Any
    place: str = ""

    def wrong(self, expected: str) -> ValueError:
        """The error that says what was expected here and what came."""
        came = repr(self.value)
        if len(came) > _MOST_SHOWN:
            came = f"a {type(self.value).__name__} that begins with {came[:_MOST_SHOWN]}"
        return ValueError(f"{self.place or 'the whole'} must be {expected}, got {came}")

    def entry(self, name: str) -> Part:
        """An entry of a mapping.

        Raises:
            ValueError: where this is no mapping, or the entry is missing.
        """
        inner = self._inner(name)
        if name not in self.mapping():
            raise ValueError(f"{inner} is missing")
        return Part(self.value[name], inner)

    def has(self, name: str) -> bool:
        """Whether this is a mapping with such an entry."""
        return name in self.mapping()

    def mapping(self) -> Mapping[str, Any]:
        """The mapping that this is, whose keys are strings."""
        if not isinstance(self.value, Mapping):
            raise self.wrong("a mapping")
        for key in self.value:
            if not isinstance(key, str):
                raise self.wrong("a mapping of strings")
        return self.value

    def items(self) -> Iterator[tuple[str, Part]]:
        """The names and entries of the mapping that this is."""
        for name, value in self.mapping().items():
            yield name, Part(value, self._inner(name))

    def entries(self, count: int | None = None) -> list[Part]:
        """The entries of the list that this is, so many of them."""
        if not isinstance(self.value, (list, tuple)):
            raise self.wrong("a list")
        if count is not None and len(self.value) != count:
            raise self.wrong(f"a list of {count} entries")
        return [Part(value, f"{self.place}[{i}]") for i, value in enumerate(self.value)]

    def tensor(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A tensor of a shape, from a tensor or from lists in lists.

        Args:
            shape: what it must have.
            dtype: float64, float32, int64 or bool.
        """
        if isinstance(self.value, Tensor):
            if tuple(self.value.shape) != tuple(shape):
                raise self._wrong_shape(shape)
            return self.value.to(dtype)
        cells = self._cells(shape, _KINDS[dtype])
        return torch.tensor(cells, dtype=dtype).reshape(tuple(shape))

    def _wrong_shape(self, shape: Sequence[int]) -> ValueError:
        came = tuple(self.value.shape)
        return ValueError(f"{self.place} must be a tensor of the shape {tuple(shape)}, got one of {came}")

    def _cells(self, shape: Sequence[int], kind: type) -> Any:
        if not shape:
            return self.read(kind)
        return [part._cells(shape[1:], kind) for part in self.entries(shape[0])]

    def record(self, kind: type[Any]) -> Any:
        """An object of a dataclass from a mapping of its fields; what it has no field for is passed over."""
        found = self.fields(kind)
        for entry in fields(kind):
            is_needed = entry.default is MISSING and entry.default_factory is MISSING
            if is_needed and entry.name not in found:
                raise ValueError(f"{self._inner(entry.name)} is missing")
        try:
            return kind(**found)
        except ValueError as error:
            raise ValueError(f"{self.place}: {error}") from error

    def fields(self, kind: type[Any]) -> dict[str, Any]:
        """Those fields of a dataclass that this mapping has, each read as its annotation says."""
        hints = get_type_hints(kind)
        found: dict[str, Any] = {}
        for entry in fields(kind):
            if self.has(entry.name):
                found[entry.name] = self.entry(entry.name).read(hints[entry.name])
        return found

    def read(self, kind: Any) -> Any:
        """The value as an annotation says: a scalar, a tensor, None, or lists, tuples and mappings of such."""
        if kind is Any:
            return self.value
        inner = get_args(kind)
        origin = get_origin(kind)
        if NoneType in inner:
            return None if self.value is None else self.read(inner[0])
        if origin is list:
            return [part.read(inner[0]) for part in self.entries()]
        if origin is tuple:
            return self._tuple(inner)
        if origin is not None:
            return {name: part.read(inner[1]) for name, part in self.items()}
        return self._scalar(kind)

    def _tuple(self, inner: tuple[Any, ...]) -> tuple[Any, ...]:
        if inner[-1] is Ellipsis:
            return tuple(part.read(inner[0]) for part in self.entries())
        parts = self.entries(len(inner))
        return tuple(part.read(kind) for part, kind in zip(parts, inner, strict=True))

    def _scalar(self, kind: type) -> Any:
        if kind is float:
            return self._float()
        if kind is int:
            return self._int()
        if not isinstance(self.value, kind):
            raise self.wrong(_NAMES.get(kind, f"a {kind.__name__}"))
        return self.value

    def _float(self) -> float:
        # JSON has no NaN and no infinities.
        if self.value is None:
            return math.nan
        is_number = type(self.value) in (int, float)
        if not is_number and self.value not in _INFINITIES:
            raise self.wrong("a number")
        try:
            return float(self.value)
        except OverflowError:
            raise self.wrong("a number that a float can hold") from None

    def _int(self) -> int:
        if type(self.value) is not int:
            raise self.wrong("a whole number")
        if abs(self.value) > _LARGEST:
            raise self.wrong("a whole number of 64 bits")
        return self.value

    def _inner(self, name: str) -> str:
        return f"{self.place}.{name}" if self.place else name


_NAMES = {str: "a string", bool: "true or false", Tensor: "a tensor"}
