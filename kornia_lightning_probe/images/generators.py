"""Random generators that a dataset or its transforms keep for themselves: found, seeded and put back."""

from __future__ import annotations

import functools
import random
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from kornia_lightning_probe.randomness import isolated_rng, reseed, stable_seed

_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_LEAVES = (str, bytes, int, float, type, types.ModuleType, torch.Tensor, np.ndarray, *_GENERATORS)
_MAX_ENTRIES = 256  # a longer container holds data, not transforms
_MAX_OBJECTS = 20_000


def find_generators(owner: object) -> list[Any]:
    """Find the generator objects that can be reached from a dataset through attributes, containers and closures.

    Libraries such as Albumentations and MONAI draw from generators of their own, which no global seed reaches.

    Args:
        owner: usually a dataset.

    Returns:
        Generators of torch, NumPy (also the legacy RandomState) and Python, each once, in a fixed order.

    Example:
        >>> class Transform:
        ...     generator = None
        >>> transform = Transform()
        >>> transform.generator = torch.Generator()
        >>> len(find_generators([transform]))
        1
    """
    return [value for value in reachable(owner) if isinstance(value, _GENERATORS)]


def reachable(owner: object) -> Iterator[Any]:
    """Go through all that an object holds: attributes, entries of short containers, what functions close over.

    Args:
        owner: usually a dataset.

    Yields:
        Each object once, the owner first, in a fixed order.
    """
    seen: dict[int, object] = {}
    waiting = [owner]
    while waiting and len(seen) < _MAX_OBJECTS:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        yield value
        waiting.extend(_parts(value))


def _parts(value: object) -> list[object]:
    if isinstance(value, _LEAVES):
        return []
    if isinstance(value, Mapping | list | tuple):
        return _entries(value)
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, types.MethodType):
        return [value.__self__]
    if isinstance(value, types.FunctionType):
        return _captured(value)
    return _attributes(value)


def _entries(container: Any) -> list[object]:
    if len(container) > _MAX_ENTRIES:
        return []
    if isinstance(container, Mapping):
        return list(container.values())
    return list(container)


def _attributes(value: object) -> list[object]:
    attributes = list(getattr(value, "__dict__", {}).values())
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        names = [slots] if isinstance(slots, str) else slots
        attributes += [getattr(value, name, None) for name in names]
    return attributes


def _captured(function: types.FunctionType) -> list[object]:
    captured = list(function.__defaults__ or ())
    for cell in function.__closure__ or ():
        try:
            captured.append(cell.cell_contents)
        except ValueError:  # the cell is still empty
            continue
    return captured


@contextmanager
def isolated_streams(owner: object) -> Iterator[Callable[[int], None]]:
    """Put the global streams and those that `owner` keeps back as they were, also after an exception.

    Yields:
        A function that seeds all of them.

    Example:
        >>> generator = torch.Generator().manual_seed(1)
        >>> with isolated_streams([generator]) as seed_all:
        ...     seed_all(7)
        >>> generator.initial_seed()
        1
    """
    generators = find_generators(owner)
    states = [_get_state(generator) for generator in generators]

    def seed_all(seed: int) -> None:
        reseed(seed)
        for position, generator in enumerate(generators):
            _seed(generator, stable_seed(seed, "generator", position))

    try:
        with isolated_rng():
            yield seed_all
    finally:
        for generator, state in zip(generators, states, strict=True):
            _set_state(generator, state)


def _get_state(generator: Any) -> Any:
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.getstate() if isinstance(generator, random.Random) else generator.get_state()


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)


def _seed(generator: Any, seed: int) -> None:
    if isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = type(generator.bit_generator)(seed).state
    elif isinstance(generator, random.Random):
        generator.seed(seed)
    else:
        generator.seed([seed & 0xFFFFFFFF, seed >> 32])
