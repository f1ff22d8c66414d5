"""Training flags and the default dtype, changed for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch
from torch import nn

from kornia_lightning_probe.model.undisturbed.parameters import own_parameters
from kornia_lightning_probe.model.undisturbed.tensors import Step, take_all


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Another default dtype for as long as the block lasts."""
    before = torch.get_default_dtype()
    if before == dtype:
        yield
        return
    try:
        torch.set_default_dtype(dtype)
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def evaluating(model: nn.Module, modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """Eval mode for as long as the block lasts; then every module has its own training flag again.

    A class may do more than set a flag in `train`: some merge weights in eval mode and part them again in train mode.
    So such modules are told of their mode by `train`, and their own parameters, which parting rounds, are put back.

    Args:
        model: what is set to eval mode.
        modules: all modules by name, also those that `model.eval()` doesn't reach.
    """
    switching = {name: module for name, module in modules.items() if _switches(module)}
    steps = [*_steps(_switch, switching), *_steps(_flag, modules)]
    training = {name: module for name, module in switching.items() if module.training}
    for name, parameter in own_parameters(training).items():
        steps.append((name, parameter.put_back))
    try:
        # An exported program has no modes, and raises.
        with suppress(NotImplementedError):
            model.eval()
        yield
    finally:
        take_all(steps)


def _steps(put_back: Callable[[nn.Module, Any], None], modules: Mapping[str, nn.Module]) -> Iterator[Step]:
    for name, module in modules.items():
        yield f"the training flag of {name!r}", partial(put_back, module, _flag_of(module))


def _switches(module: nn.Module) -> bool:
    return type(module).train is not nn.Module.train and _flag_of(module) is not None


def _switch(module: nn.Module, training: bool) -> None:
    if module.training != training:
        module.train(training)


def _flag_of(module: nn.Module) -> bool | None:
    # A frozen TorchScript module has none.
    return getattr(module, "training", None)


def _flag(module: nn.Module, training: bool | None) -> None:
    if training is None:
        vars(module).pop("training", None)
    elif module.training != training:
        module.training = training
