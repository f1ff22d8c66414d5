"""Every module that a model may run: its children, and what it hides from them in plain attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

import torch
from torch import nn

_OWN = frozenset(vars(nn.Module()))
# A longer list is data, and looking through it costs time.
_LONGEST, _DEEPEST = 1000, 3
# What ZeRO and FSDP write on parameters, where the wrapper itself is outside of the model.
_SHARDED_MARKS = {"ds_id", "_fsdp_flattened"}
_SHARDED = ("FSDPModule", "FullyShardedDataParallel", "DeepSpeedEngine")


def every_module(model: nn.Module) -> dict[str, nn.Module]:
    """All modules of a model by name, each once, with those in plain lists, dicts and attributes.

    A list hides a module from `parameters()` and `state_dict()`, as people do with a frozen teacher, or by mistake with
    metrics; a forward runs it all the same.

    Example:
        >>> net = nn.Sequential(nn.Flatten())
        >>> net.teachers = [nn.ReLU()]
        >>> list(every_module(net))
        ['', '0', 'teachers[0]']
    """
    found: dict[str, nn.Module] = {}
    seen: set[nn.Module] = set()
    waiting = [("", model)]
    while waiting:
        prefix, root = waiting.pop(0)
        for inner, module in root.named_modules():
            if module in seen:
                continue
            seen.add(module)
            name = dotted(prefix, inner)
            found[name] = module
            waiting += _hidden_in(name, module)
    return found


def parameters_of(modules: Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    """The parameters of these modules themselves, not of their children, by name, each once."""
    found: dict[str, nn.Parameter] = {}
    seen: set[nn.Parameter] = set()
    for name, module in modules.items():
        for key, parameter in module.named_parameters(recurse=False):
            if parameter not in seen:
                seen.add(parameter)
                found[dotted(name, key)] = parameter
    return found


def dotted(*names: str) -> str:
    """The name of what is in a module, which is empty for the model itself.

    Example:
        >>> dotted("", "conv"), dotted("block", "conv")
        ('conv', 'block.conv')
    """
    return ".".join(filter(None, names))


def is_scripted(module: nn.Module) -> bool:
    """Whether a module lives in TorchScript, which keeps its tensors and children out of Python's reach."""
    return isinstance(module, torch.jit.ScriptModule)


def is_sharded(modules: Mapping[str, nn.Module]) -> bool:
    """Whether a strategy moves the parameters between shards and wholes by itself, as FSDP and ZeRO do."""
    classes = chain.from_iterable(type(module).__mro__ for module in modules.values())
    if any(base.__name__ in _SHARDED for base in classes):
        return True
    marks = chain.from_iterable(vars(parameter) for parameter in parameters_of(modules).values())
    return not _SHARDED_MARKS.isdisjoint(marks)


def has_base_in(module: nn.Module, *packages: str) -> bool:
    """Whether a module's class, or one that it is derived from, is defined in one of these packages."""
    origins = [base.__module__.partition(".")[0] for base in type(module).__mro__]
    return not set(origins).isdisjoint(packages)


def _hidden_in(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    if is_scripted(module):
        return
    for key, value in vars(module).items():
        if key not in _OWN:
            yield from _modules_in(dotted(name, key), value)


def _modules_in(name: str, value: object, depth: int = 0) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(value, nn.Module):
        yield name, value
    elif depth < _DEEPEST:
        for key, inner in _items(value):
            yield from _modules_in(f"{name}[{key}]", inner, depth + 1)


def _items(value: object) -> list[tuple[object, object]]:
    if not isinstance(value, Mapping | list | tuple) or len(value) > _LONGEST:
        return []
    if isinstance(value, Mapping):
        return list(value.items())
    return list(enumerate(value))
