from contextlib import suppress

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.nets import Returns
from support.probing import CPU
from torch import nn
from torch.ao.quantization import get_default_qat_qconfig, prepare_qat

from kornia_lightning_probe.model.undisturbed import undisturbed
from kornia_lightning_probe.model.undisturbed.registers import refill, registers_kept

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Please use quant_min and quant_max:UserWarning"),
]


class Changing(nn.Module):
    """Changes itself in its forward, and raises afterwards where it is told to."""

    def __init__(self, change, *, raises):
        super().__init__()
        self.change, self.raises = change, raises
        self.inner = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("table", torch.arange(3.0), persistent=False)
        self.register_buffer("nothing", None)
        self.scale = nn.Parameter(torch.ones(2))
        self.own = self.register_forward_pre_hook(lambda *_: None)

    def forward(self, x):
        self.change(self)
        if self.raises:
            raise RuntimeError("this forward fails")
        return self.inner(x) * self.scale


def freeze(net):
    net.inner.requires_grad_(False)


def learn(net):
    with torch.enable_grad():
        net.inner(torch.ones(2, 2)).sum().backward()


CHANGES = {
    "counts in place": lambda net: net.count.add_(1),
    "counts by a new tensor": lambda net: setattr(net, "count", net.count + 1),
    "gives a buffer other data": lambda net: setattr(net.count, "data", torch.ones(4)),
    "grows a buffer": lambda net: net.table.resize_(9).fill_(1),
    "shrinks a buffer": lambda net: net.table.resize_(1).fill_(7),
    "fills an empty buffer": lambda net: setattr(net, "nothing", torch.ones(1)),
    "adds a buffer": lambda net: net.register_buffer("late", torch.ones(1), persistent=False),
    "deletes a buffer": lambda net: delattr(net, "table"),
    "saves what was not saved": lambda net: net.register_buffer("table", net.table, persistent=True),
    "adds a child": lambda net: net.add_module("late", nn.Linear(2, 2)),
    "replaces a child": lambda net: net.inner.__setitem__(1, nn.Linear(2, 2)),
    "sets a child to train": lambda net: net.inner[0].train(),
    "adds a parameter": lambda net: setattr(net, "late", nn.Parameter(torch.ones(1))),
    "replaces a parameter": lambda net: setattr(net, "scale", nn.Parameter(torch.zeros(2))),
    "deletes a parameter and uses a tensor": lambda net: (delattr(net, "scale"), setattr(net, "scale", torch.ones(2))),
    "adds hooks": lambda net: (net.register_forward_hook(print), net.inner.register_full_backward_hook(print)),
    "removes a hook": lambda net: net.own.remove(),
    "freezes": freeze,
    "has gradients": learn,
}


def everything(net):
    """Whatever is registered in a net, by name, order, object and bits."""
    registers = [attribute for attribute, value in vars(net).items() if isinstance(value, dict)]
    return [
        *((name, module.training, module) for name, module in net.named_modules()),
        *((name, id(p), p.requires_grad, p.grad, p.tolist()) for name, p in net.named_parameters()),
        *((name, id(b), b.untyped_storage()._cdata, b.tolist()) for name, b in net.named_buffers()),
        *((name, list(vars(net)[name].items())) for name in registers if name != "_buffers"),
        (list(net._buffers), list(net.state_dict()), net._non_persistent_buffers_set),
    ]


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_whatever_a_forward_registers_is_as_before(change, raises):
    net = Changing(CHANGES[change], raises=raises).train()
    before = everything(net)
    with undisturbed(net, device=CPU):
        if raises:
            with pytest.raises(RuntimeError, match="this forward fails"):
                net(torch.ones(2, 2))
        else:
            net(torch.ones(2, 2))
    assert everything(net) == before
    assert "scale" not in vars(net)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(sorted(CHANGES)), max_size=6), st.booleans(), st.booleans())
def test_whatever_a_forward_does_in_whatever_order_is_undone(changes, raises, training):
    def change(net):
        for name in changes:
            # One change may take away what the next one needs; then the forward has failed half way.
            CHANGES[name](net)

    net = Changing(change, raises=raises).train(training)
    net.inner[0].train(not training)
    before = everything(net)
    with suppress(Exception), undisturbed(net, device=CPU):
        net(torch.ones(2, 2))
    assert everything(net) == before


def test_observers_that_get_their_size_at_the_first_forward_are_as_before():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)).train()
    net.qconfig = get_default_qat_qconfig("x86")
    prepare_qat(net, inplace=True)
    before = {name: (id(buffer), buffer.shape, buffer.tolist()) for name, buffer in net.named_buffers()}
    with undisturbed(net, device=CPU):
        net(torch.rand(2, 3, 8, 8))
        resized = [name for name, buffer in net.named_buffers() if buffer.shape != before[name][1]]
    assert resized, "an observer of channels gets its size from them"
    assert {name: (id(buffer), buffer.shape, buffer.tolist()) for name, buffer in net.named_buffers()} == before
    net(torch.rand(2, 3, 8, 8))


def test_buffers_behind_one_that_can_not_be_put_back_are_put_back_and_it_is_named():
    # All three entries of an expanded tensor are one number in memory, so it can't be written to as three.
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(2))
    base = torch.zeros(1)
    net[0].register_buffer("expanded", base.expand(3))

    def fill():
        base.fill_(1)
        net[1].running_mean.fill_(1)

    with (
        pytest.raises(RuntimeError, match=r"not as it was before it was probed: 0\.expanded \("),
        undisturbed(net, device=CPU),
    ):
        fill()
    assert net[1].running_mean.tolist() == [0, 0]
    assert net.training


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("in_place", torch.zeros(()))
        self.register_buffer("replaced", torch.zeros(()))

    def forward(self, x):
        self.in_place += 1
        self.replaced = self.replaced + 1
        return x + self.replaced


@pytest.mark.parametrize(
    "make", [torch.jit.script, lambda net: torch.jit.trace(net, torch.ones(3, 2), check_trace=False)]
)
@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python boolean")
@pytest.mark.parametrize("nest", [lambda child: child, lambda child: nn.Sequential(nn.BatchNorm1d(2), child)])
def test_buffers_of_torchscript_are_as_before(make, nest):
    child = make(nn.Sequential(nn.BatchNorm1d(2), Counts()))
    net = nest(child).train()
    before = {name: buffer.tolist() for name, buffer in net.named_buffers()}
    numbers = {name: id(buffer) for name, buffer in net.named_buffers()}
    with undisturbed(net, device=CPU):
        net(torch.ones(3, 2))
        assert float(dict(child.named_buffers())["1.in_place"]) > before[[*before][-2]]
    assert {name: buffer.tolist() for name, buffer in net.named_buffers()} == before
    assert {name: id(buffer) for name, buffer in net.named_buffers()} == numbers
    assert all(module.training for module in net.modules())


def test_a_frozen_scripted_child_has_no_flag_before_and_none_afterwards():
    net = nn.Sequential(torch.jit.freeze(torch.jit.script(nn.BatchNorm1d(2).eval())))
    with undisturbed(net, device=CPU):
        net(torch.ones(3, 2))
    assert not hasattr(net[0], "training")


def test_parameters_and_hooks_of_a_sharded_model_are_its_strategys_business():
    class FullyShardedDataParallel(nn.Linear):
        """Called as torch's, so that what it swaps is left as it is."""

    net, whole = FullyShardedDataParallel(2, 2), nn.Parameter(torch.ones(2, 2))
    with registers_kept({"": net}):
        net.weight = whole
        hook = net.register_forward_hook(lambda *_: None)
        net.register_buffer("late", torch.ones(1))
    assert net.weight is whole
    assert list(net._forward_hooks) == [hook.id]
    assert not net._buffers


def test_a_register_of_a_classs_own_kind_is_left_alone():
    net = Returns(None)
    vars(net)["_forward_hooks"] = ()
    with registers_kept({"": net}):
        pass
    assert vars(net)["_forward_hooks"] == ()


def test_a_dict_gets_entries_and_their_order_back():
    now = {"b": 1, "c": 2}
    refill(now, {"a": 0, "b": 1})
    assert list(now.items()) == [("a", 0), ("b", 1)]
