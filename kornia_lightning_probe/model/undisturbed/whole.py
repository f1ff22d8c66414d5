"""The one context in which a model is run: eval mode, no trace left, also after an exception."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from kornia_lightning_probe.model.undisturbed.counting import metrics_kept, nothing_logged
from kornia_lightning_probe.model.undisturbed.modes import evaluating
from kornia_lightning_probe.model.undisturbed.modules import every_module, parameters_of
from kornia_lightning_probe.model.undisturbed.parameters import guarded_parameters
from kornia_lightning_probe.model.undisturbed.registers import registers_kept
from kornia_lightning_probe.randomness import isolated_rng


@contextmanager
def undisturbed(
    model: nn.Module, *, device: torch.device, graph: bool = False, check_parameters: bool = False
) -> Iterator[None]:
    """Run a model for inspection, and put back all that running it may move, also after an exception.

    Inside: eval mode, no graph, tensors that later code may update in place (no inference tensors), eager execution,
    since hooks on a compiled model do not fire, and a `log` and `log_dict` of LightningModules that do nothing.

    Afterwards, as before:

    - every module's own training flag;
    - buffers (values and identity; one that the forward replaces, resizes, adds or deletes too, also of TorchScript);
    - the names of children, parameters and hooks, and what parameters are trained;
    - states, counters and caches of torchmetrics' metrics;
    - the random streams of Python, NumPy, torch, and of ``device`` and wherever else the model is;
    - grad mode and the default dtype.

    All of it also for modules that sit in plain lists and dicts. Not put back: what a forward counts in plain Python
    attributes, and tensors that are not registered.

    Args:
        model: any module; hooks that are added before are left alone.
        device: the device whose random stream is kept.
        graph: whether gradients can be taken inside; take them by `torch.autograd.grad`, which adds to no ``.grad``.
        check_parameters: whether parameters are copied to the host, compared afterwards, and put back where the
            forward has changed them.

    Raises:
        RuntimeError: at the end, where parameters have changed, or something could not be put back, by name; all else
            is put back all the same.

    Example:
        >>> net = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout()).train()
        >>> with undisturbed(net, device=torch.device("cpu")):
        ...     print(net.training, torch.is_grad_enabled())
        False False
        >>> net.training
        True
    """
    modules = every_module(model)
    with ExitStack() as stack:
        for place in _devices(modules, device):
            stack.enter_context(isolated_rng(device=place))
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(graph))
        # Where nobody has imported dynamo nothing is compiled, and importing it takes 80 MB.
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(registers_kept(modules))
        stack.enter_context(metrics_kept(modules))
        stack.enter_context(nothing_logged(modules))
        stack.enter_context(evaluating(model, modules))
        if check_parameters:
            stack.enter_context(guarded_parameters(model))
        yield


def _devices(modules: dict[str, nn.Module], device: torch.device) -> list[torch.device]:
    """The device, and all others that a model which is spread over several has its parameters on."""
    places = {parameter.device for parameter in parameters_of(modules).values()}
    return [device, *sorted(places - {device}, key=str)]
