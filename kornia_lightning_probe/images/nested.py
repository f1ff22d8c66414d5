"""Rows of model inputs: one tensor, or dicts, lists and tuples of tensors with B in front. Knows no image."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def map_tensors(inputs: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function to every tensor of nested dicts, lists and tuples; everything else passes through.

    Example:
        >>> map_tensors({"a": torch.ones(1), "b": "text"}, lambda tensor: tensor * 2)
        {'a': tensor([2.]), 'b': 'text'}
    """

    def apply(leaf: object) -> object:
        return function(leaf) if isinstance(leaf, Tensor) else leaf

    return _map_leaves(inputs, apply)


def take_rows(inputs: Any, rows: slice | Tensor, *, num_rows: int) -> Any:
    """Take some rows of model inputs.

    Args:
        inputs: tensors, alone or nested; those with B in front are indexed, and so are lists of B strings or numbers.
        rows: a slice (then tensors are views) or a 1-D tensor of row numbers (then they are copies).
        num_rows: B.

    Returns:
        The same nesting with fewer rows; whatever has no B in front is passed through.

    Example:
        >>> take_rows({"x": torch.arange(4), "scale": 2.0}, slice(1, 3), num_rows=4)
        {'x': tensor([1, 2]), 'scale': 2.0}
    """

    def take(leaf: object) -> object:
        if isinstance(leaf, Tensor):
            return _tensor_rows(leaf, rows, num_rows)
        if isinstance(leaf, list | tuple) and len(leaf) == num_rows:
            return _sequence_rows(leaf, rows)
        return leaf

    return _map_leaves(inputs, take)


def join_rows(parts: Sequence[Any]) -> Any:
    """Put model inputs of one nesting behind one another along B; what has no rows is taken from the first part.

    Example:
        >>> join_rows([(torch.zeros(1), "text"), (torch.ones(2), "text")])
        (tensor([0., 1., 1.]), 'text')
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, Tensor):
        return _join_tensors(parts)
    if isinstance(first, Mapping):
        return {key: _join_entries(parts, key) for key in first}
    if _is_nest(first):
        joined = [_join_entries(parts, position) for position in range(len(first))]
        return _made_like(first, joined)
    if isinstance(first, list):
        return [entry for part in parts for entry in part]
    return first


def image_entries(inputs: Any, image_keys: Sequence[Hashable]) -> tuple[Tensor, ...]:
    """Return the images among the model's inputs, in the order of `image_keys` (none: the inputs are one tensor)."""
    if not image_keys:
        return (inputs,)
    return tuple(inputs[key] for key in image_keys)


def replace_images(inputs: Any, image_keys: Sequence[Hashable], images: Sequence[Tensor]) -> Any:
    """Return the model's inputs with other images in them; the inputs that came stay as they are.

    Raises:
        ValueError: if there are more or fewer images than entries.
    """
    expected = max(len(image_keys), 1)
    if len(images) != expected:
        raise ValueError(f"{len(images)} image tensors came for {expected} image entries")
    if not image_keys:
        return images[0]
    new = dict(zip(image_keys, images, strict=True))
    if isinstance(inputs, Mapping):
        return {**inputs, **new}
    replaced = [new.get(position, entry) for position, entry in enumerate(inputs)]
    return _made_like(inputs, replaced)


def _map_leaves(inputs: Any, function: Callable[[Any], Any]) -> Any:
    if isinstance(inputs, Mapping):
        return {key: _map_leaves(entry, function) for key, entry in inputs.items()}
    if _is_nest(inputs):
        mapped = [_map_leaves(entry, function) for entry in inputs]
        return _made_like(inputs, mapped)
    return function(inputs)


def _is_nest(value: object) -> bool:
    if not isinstance(value, list | tuple):
        return False
    return any(isinstance(entry, Tensor | Mapping | list | tuple) for entry in value)


def _made_like(sequence: Any, entries: list[Any]) -> Any:
    # A NamedTuple takes its entries one by one.
    make = getattr(type(sequence), "_make", type(sequence))
    return make(entries)


def _tensor_rows(tensor: Tensor, rows: slice | Tensor, num_rows: int) -> Tensor:
    if tensor.ndim == 0 or len(tensor) != num_rows:
        return tensor
    if isinstance(rows, slice):
        return tensor[rows]
    return tensor[rows.to(tensor.device)]


def _sequence_rows(sequence: Any, rows: slice | Tensor) -> Any:
    if isinstance(rows, slice):
        return sequence[rows]
    taken = [sequence[row] for row in rows.tolist()]
    return type(sequence)(taken)


def _join_tensors(parts: Sequence[Tensor]) -> Tensor:
    if parts[0].ndim == 0:
        return parts[0]
    return torch.cat(list(parts))


def _join_entries(parts: Sequence[Any], key: Any) -> Any:
    return join_rows([part[key] for part in parts])
