"""One tracing from beginning to end: names, what it keeps, what it leaves behind."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from support.traced import Watched, hooks_of, lines
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from kornia_lightning_probe.model.tracing import trace

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_activations_die_with_the_pass():
    kept = []
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 2)).eval()
    layers = dict(net.named_children())
    images = IMAGES.clone()
    with torch.no_grad(), trace(layers, [images], receive=lambda _, a: kept.append(weakref.ref(a))) as tracing:
        handles = [module.register_forward_hook(lambda _m, _a, out: kept.append(weakref.ref(out))) for module in net]
        output = net(images)
        for handle in handles:
            handle.remove()
    kept += [weakref.ref(output), weakref.ref(images)]
    found = tracing.result(output)
    del output, images
    gc.collect()
    # Neither the open tracing nor its result keeps a tensor.
    assert [ref() for ref in kept] == [None] * 12
    assert len(found.activations) == 5
    assert tracing is not None


def test_an_exception_leaves_no_hook_and_no_mode():
    def broken(net, x):
        net.seen(x)
        raise ZeroDivisionError

    net = Watched(broken)
    with pytest.raises(ZeroDivisionError), trace({"seen": net.seen}, [IMAGES]):
        net(IMAGES)
    assert hooks_of(net) == 0
    assert _get_current_dispatch_mode() is None


def test_a_tracing_follows_one_pass_only():
    tracing = trace({"seen": nn.Identity()}, [IMAGES])
    with tracing, pytest.raises(RuntimeError, match=r"entered before; make another one with trace\(...\)"):
        tracing.__enter__()


def test_what_receives_an_activation_is_not_followed():
    received = {}

    def receive(name, activation):
        received[name] = activation.square().mean().item()

    net = nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.Flatten(), nn.Linear(64, 2)).eval()
    with torch.no_grad(), trace(dict(net.named_children()), [IMAGES], receive=receive) as tracing:
        output = net(IMAGES)
    assert list(received) == list(tracing.result(output).activations) == ["0", "1", "2"]
    assert received["2"] == pytest.approx(output.square().mean().item())


def test_names_are_those_of_the_recorder():
    class Several(nn.Module):
        def forward(self, x: Tensor) -> dict[str, object]:
            return {"maps": x, "several": (x.relu(), None), "number": 3, "places": torch.arange(3)}

    net = nn.Sequential(Several())
    several = net[0]
    with torch.no_grad(), trace({"f": several}, [IMAGES]) as tracing:
        several(IMAGES)
        output = several(IMAGES)
    found = tracing.result(output["several"][0])
    assert list(found.activations) == ["f[maps]", "f[several][0]", "f.call2[maps]", "f.call2[several][0]"]
    assert found.left_out["f[number]"] == "no floating tensor (int)"


class Hookless(nn.Conv2d):
    """Refuses hooks as a ScriptModule does."""

    def register_forward_hook(self, *_args: object, **_named: object) -> None:
        raise RuntimeError("no hooks here")


def test_a_layer_that_takes_no_hooks_is_named_and_followed_through():
    net = nn.Sequential(Hookless(3, 4, 2, 2), nn.ReLU()).eval()
    with torch.no_grad(), trace(dict(net.named_children()), [IMAGES], model=net) as tracing:
        output = net(IMAGES)
    found = tracing.result(output)
    assert found.left_out == {"0": "takes no hooks (no hooks here)"}
    assert lines(found.activations["1"].grid) == [2, 0.5]
    assert hooks_of(net) == 0
