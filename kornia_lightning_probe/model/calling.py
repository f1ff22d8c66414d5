"""How a model is called with the inputs of a block."""

from __future__ import annotations

from collections.abc import Callable
from inspect import getattr_static
from operator import attrgetter
from typing import Any

import torch
from torch import nn

from kornia_lightning_probe.images.nested import map_tensors

Forward = Callable[[Any, Any], Any] | str


def forward_of(model: nn.Module, forward: Forward | None = None) -> Callable[[Any], Any]:
    """The call that runs a model: ``model(tensor)``, ``model(dict)`` or ``model(*tuple)``.

    Args:
        model: the model.
        forward: a callable ``(model, inputs)`` that replaces the call, or the dotted name of a method or submodule
            that is called instead of the model, for example ``"backbone"``.

    Returns:
        A function of the inputs.

    Raises:
        ValueError: where the model has no forward of its own, or there is no such name.
        TypeError: where what is named isn't callable, or `forward` is neither a callable nor a name.

    Example:
        >>> net = nn.ModuleDict({"backbone": nn.Flatten()})
        >>> forward_of(net, "backbone")(torch.zeros(2, 3, 4)).shape
        torch.Size([2, 12])
    """
    if callable(forward):
        return lambda inputs: forward(model, inputs)
    target = model if forward is None else _named(model, forward)
    if isinstance(target, nn.Module) and not has_forward(target):
        children = ", ".join(repr(name) for name, _ in target.named_children()) or "no submodules"
        raise ValueError(
            f"{_class_name(target)} has no forward() of its own, so it is not known how to run it: define one, or pass "
            "forward=, a callable (model, inputs) or the dotted name of a method or submodule of the model; "
            f"{_class_name(target)} has {children}"
        )
    return lambda inputs: target(*inputs) if isinstance(inputs, tuple) else target(inputs)


def has_forward(model: nn.Module) -> bool:
    """Whether a class has defined ``forward``; nn.Module and LightningModule only hold a place for it."""
    model = getattr(model, "_orig_mod", model)
    # Read without calling descriptors: a ScriptModule's forward can only be looked up on an instance.
    name = getattr(getattr_static(type(model), "forward", None), "__qualname__", "")
    return "forward" in vars(model) or name not in {"_forward_unimplemented", "LightningModule.forward"}


def device_of(model: nn.Module) -> torch.device | None:
    """The device of the model's first parameter or buffer; None where it has neither."""
    first = next((tensor for tensors in (model.parameters(), model.buffers()) for tensor in tensors), None)
    return None if first is None else first.device


def cast_inputs(model: nn.Module, forward: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Give float inputs the dtype of the model's parameters, where they have one (``model.half()``, ``.double()``)."""
    dtypes = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    if len(dtypes) != 1:
        return forward
    (dtype,) = dtypes
    return lambda inputs: forward(
        map_tensors(inputs, lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)
    )


def _named(model: nn.Module, name: str) -> Callable[..., Any]:
    if not isinstance(name, str):
        raise TypeError(
            f"forward must be a callable (model, inputs), or the dotted name of a method or submodule, got {name!r}"
        )
    try:
        target = attrgetter(name)(model)
    except AttributeError as error:
        children = ", ".join(repr(child) for child, _ in model.named_children()) or "no submodules"
        raise ValueError(
            f"forward={name!r} is no method and no submodule of {_class_name(model)}, which has {children}"
        ) from error
    if not callable(target):
        raise TypeError(f"forward={name!r} is a {type(target).__name__}, expected a method or a submodule")
    return target  # type: ignore[no-any-return]  # an attribute found by name


def _class_name(model: nn.Module) -> str:
    return type(getattr(model, "_orig_mod", model)).__name__
