"""How a model is called with the inputs of a block."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import torch
from torch import nn

from kornia_lightning_probe.batches import map_tensors

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
        TypeError: where the name isn't callable.

    Example:
        >>> net = nn.ModuleDict({"backbone": nn.Flatten()})
        >>> forward_of(net, "backbone")(torch.zeros(2, 3, 4)).shape
        torch.Size([2, 12])
    """
    if callable(forward):
        return lambda inputs: forward(model, inputs)
    target = model if forward is None else _named(model, forward)
    if target is model and not has_forward(model):
        raise ValueError(
            f"{type(model).__name__} has no forward() of its own, so it is not known how to run it: define one, or pass "
            'forward=, a callable (model, inputs) or a name such as forward="backbone"; it has '
            f"{', '.join(name for name, _ in model.named_children()) or 'no submodules'}"
        )
    return lambda inputs: target(*inputs) if isinstance(inputs, tuple) else target(inputs)


def has_forward(model: nn.Module) -> bool:
    """Whether a class has defined ``forward``; nn.Module and LightningModule only hold a place for it."""
    name = getattr(type(model).forward, "__qualname__", "")
    return name not in {"_forward_unimplemented", "LightningModule.forward"}


def device_of(model: nn.Module) -> torch.device | None:
    """The device of the model's first parameter or buffer; None where it has neither."""
    first = next((tensor for tensors in (model.parameters(), model.buffers()) for tensor in tensors), None)
    return None if first is None else first.device


def cast_inputs(model: nn.Module, forward: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Give float inputs the model's own dtype where that is one and not float32 (``model.half()``, ``.double()``)."""
    dtypes = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    if len(dtypes) != 1 or dtypes == {torch.float32}:
        return forward
    (dtype,) = dtypes
    return lambda inputs: forward(
        map_tensors(inputs, lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)
    )


def _named(model: nn.Module, name: str) -> Callable[..., Any]:
    try:
        target = attrgetter(name)(model)
    except AttributeError as error:
        children = ", ".join(child for child, _ in model.named_children()) or "no submodules"
        raise ValueError(
            f"forward={name!r}: {type(model).__name__} has no such attribute; it has {children}"
        ) from error
    if not callable(target):
        raise TypeError(f"forward={name!r} is a {type(target).__name__}, expected a method or a submodule")
    return target  # type: ignore[no-any-return]  # an attribute found by name
