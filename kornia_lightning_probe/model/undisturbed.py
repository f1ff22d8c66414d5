"""A model that is run in eval mode and left exactly as it was: flags, buffers, streams, modes."""

from __future__ import annotations

import sys
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
    buffers (values and identity; one that the forward adds is removed), the random streams of Python, NumPy, torch
    and ``device``, grad mode and the default dtype.

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
        # Where nobody has imported dynamo nothing is compiled, and importing it takes 80 MB.
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(_buffers_kept(model))
        stack.enter_context(_evaluating(model))
        yield


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
        (module, dict(module._buffers.items()), set(module._non_persistent_buffers_set)) for module in model.modules()
    ]
    values = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for module, buffers, non_persistent in kept:
            _put_back(module, buffers)
            module._non_persistent_buffers_set = non_persistent
        for buffer, value in values:
            _write_back(buffer, value)


def _put_back(module: nn.Module, buffers: dict[str, Tensor | None]) -> None:
    for name in [name for name in module._buffers if name not in buffers]:
        del module._buffers[name]
    for name, buffer in buffers.items():
        if name not in module._buffers or module._buffers[name] is not buffer:
            module._buffers[name] = buffer


def _write_back(buffer: Tensor, values: Tensor) -> None:
    # Writing bumps the version that autograd checks, so an untouched buffer stays untouched.
    if not torch.equal(buffer, values):
        buffer.copy_(values)
