"""A model that is run in eval mode and left exactly as it was: flags, buffers, streams, modes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from kornia_lightning_probe.randomness import isolated_rng


@contextmanager
def undisturbed(model: nn.Module, *, device: torch.device) -> Iterator[None]:
    """Run a model for inspection, and put back all that running it may move, also after an exception.

    Inside: eval mode, no graph, tensors that later code may update in place (no inference tensors), and eager
    execution, since hooks on a compiled model do not fire. Afterwards, as before: every module's own training flag,
    buffers (values and identity), the random streams of Python, NumPy, torch and ``device``, grad mode and the default
    dtype.

    Args:
        model: any module; its hooks are not this function's business.
        device: the device whose random stream is kept.

    Example:
        >>> net = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout()).train()
        >>> with undisturbed(net, device=torch.device("cpu")):
        ...     print(net.training, torch.is_grad_enabled())
        False False
        >>> net.training
        True
    """
    with ExitStack() as stack:
        stack.enter_context(isolated_rng(device=device))
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(_buffers_kept(model))
        stack.enter_context(_evaluating(model))
        yield


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    flags = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    kept = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        for module, name, buffer, values in kept:
            module._buffers[name] = buffer
            _write_back(buffer, values)


def _write_back(buffer: Tensor, values: Tensor) -> None:
    # Writing bumps the version that autograd checks, so an untouched buffer stays untouched.
    if not torch.equal(buffer, values):
        buffer.copy_(values)
