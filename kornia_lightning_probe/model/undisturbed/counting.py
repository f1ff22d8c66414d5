"""What a module counts or logs when it runs (torchmetrics states, Lightning's log), which a probe must not add to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn

from kornia_lightning_probe.model.undisturbed.modules import dotted, has_base_in
from kornia_lightning_probe.model.undisturbed.registers import refill
from kornia_lightning_probe.model.undisturbed.tensors import KeptTensor, Step, take_all

_METRICS = "torchmetrics"
# Lightning's module is told by where its class is defined, since this room must run without Lightning.
_LIGHTNING = ("lightning", "pytorch_lightning")
_LOGS = ("log", "log_dict")


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
    """Tensors with their values, lists and dicts with their entries; tensors in a list are only ever replaced."""
    if isinstance(value, Tensor):
        yield name, KeptTensor(value).put_back
    else:
        yield from _of_container(name, value)


def _of_container(name: str, value: object) -> Iterator[Step]:
    entries: Iterable[object] = ()
    if isinstance(value, dict):
        yield name, partial(refill, value, dict(value))
        entries = value.values()
    elif isinstance(value, list):
        yield name, partial(_refill_list, value, list(value))
        entries = value
    for entry in entries:
        yield from _of_container(name, entry)


def _refill_list(now: list[object], before: list[object]) -> None:
    now[:] = before


def _put_back_log(module: nn.Module, name: str, own: object) -> None:
    # What the instance has of its own; a method of its class stands for nothing.
    if own is None:
        del vars(module)[name]
    else:
        vars(module)[name] = own


def _log_nothing(*_args: object, **_kwargs: object) -> None:
    """Stand in for a LightningModule's `log` while it is probed."""
