"""How a model is called with the inputs of a block."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import getattr_static
from itertools import chain
from operator import attrgetter
from typing import Any

import torch
from torch import nn

from kornia_lightning_probe.images.nested import map_tensors
from kornia_lightning_probe.wording import quoted

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
    target: Callable[..., Any] = model
    if forward is not None:
        target = _named(model, forward)
    if isinstance(target, nn.Module) and not has_forward(target):
        raise ValueError(
            f"{_class_name(target)} has no forward() of its own, so it is not known how to run it: define one, or pass "
            "forward=, a callable (model, inputs) or the dotted name of a method or submodule of the model; "
            f"{_class_name(target)} has {_children(target)}"
        )
    return partial(_call, target)


def has_forward(model: nn.Module) -> bool:
    """Whether a class has defined ``forward``; nn.Module and LightningModule only hold a place for it."""
    model = getattr(model, "_orig_mod", model)
    # Read without calling descriptors: a ScriptModule's forward can only be looked up on an instance.
    method = getattr_static(type(model), "forward", None)
    name = getattr(method, "__qualname__", "")
    return "forward" in vars(model) or name not in {"_forward_unimplemented", "LightningModule.forward"}


def device_of(model: nn.Module) -> torch.device | None:
    """The device of the model's first parameter or buffer; None where it has neither."""
    for tensor in chain(model.parameters(), model.buffers()):
        return tensor.device
    return None


def cast_inputs(model: nn.Module, forward: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Give float inputs the dtype of the model's parameters, where they have one (``model.half()``, ``.double()``)."""
    dtypes = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    if len(dtypes) != 1:
        return forward
    (dtype,) = dtypes
    cast = partial(_cast, dtype)
    return lambda inputs: forward(map_tensors(inputs, cast))


def _call(target: Callable[..., Any], inputs: Any) -> Any:
    if isinstance(inputs, tuple):
        return target(*inputs)
    return target(inputs)


def _cast(dtype: torch.dtype, tensor: torch.Tensor) -> torch.Tensor:
    if tensor.is_floating_point():
        return tensor.to(dtype)
    return tensor


def _named(model: nn.Module, name: str) -> Callable[..., Any]:
    if not isinstance(name, str):
        raise TypeError(
            f"forward must be a callable (model, inputs), or the dotted name of a method or submodule, got {name!r}"
        )
    try:
        target = attrgetter(name)(model)
    except AttributeError as error:
        where = _class_name(model)
        raise ValueError(
            f"forward={name!r} is no method and no submodule of {where}, which has {_children(model)}"
        ) from error
    if not callable(target):
        raise TypeError(f"forward={name!r} is a {type(target).__name__}, expected a method or a submodule")
    return target  # type: ignore[no-any-return]  # an attribute found by name


def _children(model: nn.Module) -> str:
    names = dict(model.named_children())
    return quoted(names) if names else "no submodules"


def _class_name(model: nn.Module) -> str:
    return type(getattr(model, "_orig_mod", model)).__name__
