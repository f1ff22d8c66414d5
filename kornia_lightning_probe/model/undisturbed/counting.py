"""What a module counts or logs when it runs (torchmetrics states, Lightning's log), which a probe must not add to."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from kornia_lightning_probe.model.undisturbed.modules import dotted, has_base_in
from kornia_lightning_probe.model.undisturbed.registers import refill
from kornia_lightning_probe.model.undisturbed.tensors import KeptTensor, Step, take_all

_METRICS = "torchmetrics"
# Lightning's module is told by where its class is defined, since this room must run without Lightning.
_LIGHTNING = ("lightning", "pytorch_lightning")
_LOGS = ("log", "log_dict")
_CHANGEABLE = (list, deque, set)
_MOST_COPIED = 1000
_MOST_COPIED_BYTES = 16 * 2**20


@contextmanager
def metrics_kept(modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """Put back all that metrics among these modules have counted: states, counters, caches, groups of a collection.

    Args:
        modules: all modules by name.
    """
    steps: list[Step] = []
    for name, module in modules.items():
        if has_base_in(module, _METRICS):
            steps += _of_metric(name or type(module).__name__, module)
    try:
        yield
    finally:
        take_all(steps)


@contextmanager
def nothing_logged(modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """Have `self.log` and `self.log_dict` of a LightningModule do nothing.

    Args:
        modules: all modules by name.
    """
    steps: list[Step] = []
    try:
        for name, module in modules.items():
            if has_base_in(module, *_LIGHTNING):
                steps += _silenced(name, module)
        yield
    finally:
        take_all(steps)


def _silenced(name: str, module: nn.Module) -> Iterator[Step]:
    attributes = vars(module)
    for log in _LOGS:
        yield dotted(name, log), partial(_put_back_log, module, log, attributes.get(log))
        attributes[log] = _log_nothing


def _of_metric(name: str, metric: nn.Module) -> Iterator[Step]:
    yield name, partial(refill, vars(metric), dict(vars(metric)))
    for key, value in vars(metric).items():
        yield from _of_value(dotted(name, key), value)


def _of_value(name: str, value: object) -> Iterator[Step]:
    """Tensors with their values, containers with their entries."""
    if isinstance(value, Tensor):
        yield name, KeptTensor(value).put_back
        return
    entries: list[object] = []
    if isinstance(value, dict):
        yield name, partial(refill, value, dict(value))
        entries = list(value.values())
    elif isinstance(value, _CHANGEABLE):
        entries = list(value)
        yield name, partial(_refill, value, entries)
    elif isinstance(value, tuple):
        entries = list(value)
    tensors = [entry for entry in entries if isinstance(entry, Tensor)]
    yield from _of_tensors(name, tensors)
    for entry in entries:
        if not isinstance(entry, Tensor):
            yield from _of_value(name, entry)


def _of_tensors(name: str, tensors: list[Tensor]) -> Iterator[Step]:
    """Tensors of a container: copied where they are few and small, as counters are; else only watched.

    A list that is concatenated at the end may hold an epoch's outputs. It grows by appending, so that a copy of it
    would be for nothing.
    """
    size = sum(tensor.nbytes for tensor in tensors)
    if len(tensors) <= _MOST_COPIED and size <= _MOST_COPIED_BYTES:
        for tensor in tensors:
            yield name, KeptTensor(tensor).put_back
    else:
        versions = [(tensor, tensor._version) for tensor in tensors if not tensor.is_inference()]
        yield name, partial(_require_versions, versions)


def _require_versions(versions: list[tuple[Tensor, int]]) -> None:
    changed = sum(tensor._version != version for tensor, version in versions)
    if changed:
        raise RuntimeError(
            f"{changed} of its {len(versions)} tensors were written to, which are too many or too large to be copied: "
            "update the metric in training_step or validation_step, not in forward"
        )


def _refill(now: Any, before: list[object]) -> None:
    """Give a list, deque or set the very entries that it had; one that has them is not written to."""
    entries = list(now)
    if [id(entry) for entry in entries] == [id(entry) for entry in before]:
        return
    now.clear()
    if isinstance(now, set):
        now.update(before)
    else:
        now.extend(before)


def _put_back_log(module: nn.Module, name: str, own: object) -> None:
    # What the instance has of its own; a method of its class stands for nothing.
    if own is None:
        del vars(module)[name]
    else:
        vars(module)[name] = own


def _log_nothing(*_args: object, **_kwargs: object) -> None:
    """Stand in for a LightningModule's `log` while it is probed."""
