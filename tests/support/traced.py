"""A net around a function, and the trace of its pass: what the tests of tracing share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from kornia_lightning_probe.model.tracing import Activation, Grid, Trace, trace


class Watched(nn.Module):
    """Runs a function in which `self.seen` marks what is looked at."""

    def __init__(self, function, **layers: nn.Module) -> None:
        super().__init__()
        self.seen = nn.Identity()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, *images: Tensor) -> Tensor:
        return self.function(self, *images)


def traced(net: nn.Module, *images: Tensor) -> Trace:
    """The trace of a pass, after it was seen that output, hooks and modes are as without it."""
    layers = {name: module for name, module in net.named_modules() if name}
    net.eval()
    plain = net(*images)
    with trace(layers, images, model=net) as tracing:
        output = net(*images)
    assert hooks_of(net) == 0
    assert _get_current_dispatch_mode() is None
    assert torch.equal(output, plain)
    return tracing.result(output)


def seen(function, *images: Tensor, **layers: nn.Module) -> Activation:
    """What is known of `self.seen` in a function."""
    torch.manual_seed(0)
    with torch.no_grad():
        return traced(Watched(function, **layers), *images).activations["seen"]


def hooks_of(net: nn.Module) -> int:
    """How many hooks a net has."""
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in net.modules())


def lines(grid: Grid | str) -> list[float] | str:
    """Stride and offset along the rows, or why there is no grid."""
    return grid if isinstance(grid, str) else [float(grid.stride[0]), float(grid.offset[0])]
