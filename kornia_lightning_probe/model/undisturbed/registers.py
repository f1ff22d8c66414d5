"""What is registered in modules (children, parameters, buffers, hooks), put back under the same names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from kornia_lightning_probe.model.undisturbed.modules import dotted, is_scripted, is_sharded, parameters_of
from kornia_lightning_probe.model.undisturbed.tensors import KeptTensor, Step, take_all

_NAMES = ("_buffers", "_modules")
_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


@contextmanager
def registers_kept(modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """Put back what modules hold: buffers with their values, and the names of children, parameters and hooks.

    A buffer stays the same object, also where the forward has replaced, resized, deleted or added one. Of parameters,
    names and flags are put back here and values by `guarded_parameters`; under a sharded strategy, which swaps
    parameters and adds hooks of its own, both are left to it.

    Args:
        modules: all modules by name.
    """
    attributes = list(_NAMES)
    steps: list[Step] = []
    if not is_sharded(modules):
        attributes += ["_parameters", *_HOOKS]
        for name, parameter in parameters_of(modules).items():
            steps.append((name, partial(_put_back_flags, parameter, parameter.requires_grad, parameter.grad)))
    for name, module in modules.items():
        if is_scripted(module):
            steps += _of_script(name, module)
        else:
            steps += _of_module(name, module, attributes)
    try:
        yield
    finally:
        take_all(steps)


def refill(now: dict[Any, Any], before: Mapping[Any, Any]) -> None:
    """Give a dict the entries that it had, in their order; one that has them is not written to.

    Example:
        >>> now = {"a": 1, "late": 2}
        >>> refill(now, {"b": 3, "a": 1})
        >>> now
        {'b': 3, 'a': 1}
    """
    same_names = list(now) == list(before)
    if same_names and all(now[key] is value for key, value in before.items()):
        return
    now.clear()
    now.update(before)


def _of_module(name: str, module: nn.Module, attributes: list[str]) -> Iterator[Step]:
    for attribute in attributes:
        register = vars(module).get(attribute)
        # An attribute that is no dict is a class's own invention.
        if isinstance(register, dict):
            yield dotted(name, attribute), partial(_put_back, module, register, dict(register))
    unsaved = module._non_persistent_buffers_set
    yield dotted(name, "buffers that are not saved"), partial(_refill_set, unsaved, set(unsaved))
    for key, buffer in module._buffers.items():
        if buffer is not None:
            yield dotted(name, key), KeptTensor(buffer).put_back


def _of_script(name: str, module: nn.Module) -> Iterator[Step]:
    for key, buffer in module.named_buffers(recurse=False):
        yield dotted(name, key), partial(_put_into_script, module, key, buffer)
        yield dotted(name, key), KeptTensor(buffer).put_back


def _put_back(module: nn.Module, register: dict[Any, Any], before: dict[Any, Any]) -> None:
    refill(register, before)
    for key in before:
        # A plain attribute of that name, set where the registered one was deleted, would hide it.
        vars(module).pop(key, None)


def _refill_set(now: set[str], before: set[str]) -> None:
    now.clear()
    now.update(before)


def _put_back_flags(parameter: nn.Parameter, requires_grad: bool, grad: Tensor | None) -> None:
    if parameter.requires_grad != requires_grad:
        parameter.requires_grad_(requires_grad)
    if parameter.grad is not grad:
        parameter.grad = grad


def _put_into_script(module: nn.Module, key: str, buffer: Tensor) -> None:
    if dict(module.named_buffers(recurse=False)).get(key) is not buffer:
        setattr(module, key, buffer)
