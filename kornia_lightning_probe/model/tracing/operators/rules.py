"""The table of rules: by an operator's name, where the elements of its results lie, given where its operands' lie.

The rules themselves stand in shaping, sampling and mixing. An operator without a rule, and a rule that fails, makes
places `Unknown` under the operator's name; "same shape" keeps no cells, since sorting and Fourier transforms do too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from kornia_lightning_probe.model.tracing.arrangement import Arrangement
from kornia_lightning_probe.model.tracing.merging import merged
from kornia_lightning_probe.model.tracing.runs import LostError, is_bare

Found: TypeAlias = Arrangement | None
"""Where a tensor's elements lie, None where it has nothing to do with the images."""


@dataclass(frozen=True)
class Unknown:
    """It is not known where a tensor's elements lie; `reason` begins with the operator that lost it."""

    reason: str


Places: TypeAlias = Arrangement | Unknown | None
"""What is known of where a tensor's elements lie."""


@dataclass(frozen=True)
class Call:
    """One operator's call.

    Args:
        name: the operator's, without an overload and the underscore of an in-place form.
        arguments: what it was called with, by the names of its schema, defaults too.
        places: of each tensor among the arguments where its elements lie; of a list of tensors a list.
        shapes: its results'.
    """

    name: str
    arguments: Mapping[str, Any]
    places: Mapping[str, Found | list[Found]]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The first result's."""
        return self.shapes[0]

    def argument(self, *names: str) -> Any:
        """The first argument of these names that the operator has, None where it has none."""
        return next((self.arguments[name] for name in names if name in self.arguments), None)

    def place(self, *names: str) -> Found:
        """Where the elements of the tensor of one of these names lie."""
        found = next((self.places[name] for name in names if name in self.places), None)
        return None if isinstance(found, list) else found

    def source(self) -> Arrangement:
        """Where the elements of the operator's first tensor lie.

        Raises:
            LostError: It has nothing to do with the images, so that the images come in by another argument.
        """
        place = self.place(*SOURCES)
        if place is None:
            raise LostError("the image comes in as a weight")
        return place

    def known(self) -> Iterator[Arrangement]:
        """The arrangements of all tensors that have one."""
        for place in self.places.values():
            for found in place if isinstance(place, list) else [place]:
                if found is not None:
                    yield found

    def axis(self, name: str) -> int:
        """An argument that is an axis of the operator's first tensor, counted from the first one."""
        index: int = self.argument(name)
        return index % len(self.source().axes)

    def numbers(self, name: str, count: int) -> list[int]:
        """An argument that is one number, or one for each axis; nothing where it is empty or missing."""
        value = self.argument(name)
        if value is None:
            return []
        values = list(value) if isinstance(value, Sequence) else [value]
        return values * count if len(values) == 1 else values


Rule: TypeAlias = Callable[[Call], Found | list[Found]]
"""Returns the arrangement of the first result and of those of its shape, or a list with one for each result."""

SOURCES = ("self", "input", "src", "tensor")
"""What operators call the tensor that they work on."""

RULES: dict[str, Rule] = {}


def rule(names: str) -> Callable[[Rule], Rule]:
    """Enters a function into the table under operators' names, a text with blanks between them."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names.split(), function))
        return function

    return enter


def elementwise(call: Call) -> Arrangement:
    """The rule of operators that torch tags as pointwise: the result lies where the operands lie."""
    return merged(call.known(), call.shape)


def placed(call: Call, *, is_pointwise: bool, by_shape: bool) -> list[Places]:
    """Where the elements of an operator's results lie.

    Args:
        call: the operator's call, no place of which is unknown.
        is_pointwise: whether torch tags it so.
        by_shape: whether an operator without a rule leaves images on an axis that keeps its length.

    Returns:
        One for each result; never raises.
    """
    known = list(call.known())
    if not known:
        return [None] * len(call.shapes)
    rule = RULES.get(call.name)
    if rule is None and is_pointwise:
        rule = elementwise
    if rule is None:
        return [_without_rule(call.name, known, shape, by_shape=by_shape) for shape in call.shapes]
    try:
        found = rule(call)
    except LostError as lost:
        reason = f"{call.name}: {lost}"
    except Exception as fault:
        reason = f"{call.name}: fault in its rule ({type(fault).__name__}: {fault})"
    else:
        return _checked(call.name, found, call.shapes)
    return [_bare_or(Unknown(reason), known, shape) for shape in call.shapes]


def spare_keys(name: str, found: dict[str, list[Places]]) -> None:
    """Forgets unknown keys of known queries: results lie where the queries lie."""
    query = next((found[key][0] for key in ("query", "mat1", "batch1", "self") if key in found), None)
    if not isinstance(query, Arrangement) or len(query.axes) < 2 or is_bare(query.axes[-2]):
        return
    if name not in ("mm", "bmm", "addmm", "baddbmm") and "attention" not in name:
        return
    for key in {"key", "value", "mat2", "batch2"} & found.keys():
        found[key] = [None if isinstance(place, Unknown) else place for place in found[key]]


def _checked(name: str, found: Found | list[Found], shapes: Sequence[tuple[int, ...]]) -> list[Places]:
    """A rule's answer for each result, as far as it has the result's shape."""
    places: list[Places] = []
    for index, shape in enumerate(shapes):
        place = found[index] if isinstance(found, list) else found
        if place is None or place.shape == shape:
            places.append(place)
        elif index:
            places.append(Unknown(f"{name}: a further result"))
        else:
            places.append(Unknown(f"{name}: its rule gives the shape {place.shape}"))
    return places


def _without_rule(name: str, known: Sequence[Arrangement], shape: tuple[int, ...], *, by_shape: bool) -> Places:
    unknown = Unknown(f"{name}: no rule for this operator")
    if by_shape and any(place.has_cells for place in known):
        return _images_by_shape(known, shape) or unknown
    return _bare_or(unknown, known, shape)


def _bare_or(unknown: Unknown, known: Sequence[Arrangement], shape: tuple[int, ...]) -> Places:
    """What is made of tensors that lie in one place lies there too, whatever the operator."""
    if any(place.has_cells for place in known):
        return unknown
    axes = tuple(known[0].plain(count) for count in shape)
    return replace(known[0], axes=axes)


def _images_by_shape(known: Sequence[Arrangement], shape: tuple[int, ...]) -> Arrangement | None:
    first = next(place for place in known if place.has_cells)
    walking = [index for index, axis in enumerate(first.axes) if not is_bare(axis)]
    index = walking[0]
    if len(walking) > 1 or index >= len(shape) or shape[index] != first.shape[index]:
        return None
    bare = replace(first, axes=tuple(first.plain(count) for count in shape))
    return bare.with_axis(index, first.axes[index])
