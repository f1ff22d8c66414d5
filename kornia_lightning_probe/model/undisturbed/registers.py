"""What is registered in modules (children, parameters, buffers, hooks), put back under the same names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from kornia_lightning_probe.model.undisturbed.modules import is_scripted, is_sharded
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
    attributes = [*_NAMES] if is_sharded(modules) else [*_NAMES, "_parameters", *_HOOKS]
    steps: list[Step] = []
    for name, module in modules.items():
        steps += _of_script(name, module) if is_scripted(module) else _of_module(name, module, attributes)
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
    if list(now) == list(before) and all(now[key] is value for key, value in before.items()):
        return
    now.clear()
    now.update(before)


def _of_module(name: str, module: nn.Module, attributes: list[str]) -> Iterator[Step]:
    registers = {attribute: vars(module).get(attribute) for attribute in attributes}
    for attribute, register in registers.items():
        # An attribute that is no dict is a class's own invention.
        if isinstance(register, dict):
            yield f"{_of(name)}{attribute}", partial(_put_back, module, register, dict(register))
    non_persistent = module._non_persistent_buffers_set
    yield f"{_of(name)}buffers that are not saved", partial(_refill_set, non_persistent, set(non_persistent))
    if "_parameters" in registers:
        for key, parameter in module._parameters.items():
            if parameter is not None:
                yield f"{_of(name)}{key}", partial(_put_back_flags, parameter, parameter.requires_grad, parameter.grad)
    for key, buffer in module._buffers.items():
        if buffer is not None:
            yield f"{_of(name)}{key}", KeptTensor(buffer).put_back


def _of_script(name: str, module: nn.Module) -> Iterator[Step]:
    for key, buffer in module.named_buffers(recurse=False):
        yield f"{_of(name)}{key}", partial(_put_into_script, module, key, buffer)
        yield f"{_of(name)}{key}", KeptTensor(buffer).put_back


def _of(name: str) -> str:
    return f"{name}." if name else ""


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
