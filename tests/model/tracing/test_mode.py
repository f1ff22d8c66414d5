"""The following itself: it changes nothing, keeps nothing, and survives whatever a model does."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from kornia_lightning_probe.model.tracing import Grid, Rows, Trace, trace
from kornia_lightning_probe.model.tracing.operators import rules

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Watched(nn.Module):
    """Runs a function in which `self.seen` marks what is looked at."""

    def __init__(self, function, **layers: nn.Module) -> None:
        super().__init__()
        self.seen = nn.Identity()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def hooks_of(net: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in net.modules())


def traced(net: nn.Module, images: Tensor = IMAGES) -> Trace:
    """The trace, after it was seen that output and hooks are as without it."""
    layers = {name: module for name, module in net.named_modules() if name}
    net.eval()
    plain = net(images)
    with trace(layers, [images], model=net) as tracing:
        output = net(images)
    assert hooks_of(net) == 0
    assert _get_current_dispatch_mode() is None
    assert torch.equal(output, plain)
    return tracing.result(output)


def seen(function, **layers: nn.Module):
    torch.manual_seed(0)
    with torch.no_grad():
        return traced(Watched(function, **layers)).activations["seen"]


def lines(grid: Grid | str) -> list[float] | str:
    """Stride and offset along the rows, or why there is no grid."""
    return grid if isinstance(grid, str) else [float(grid.stride[0]), float(grid.offset[0])]


MODELS = {
    "in place": nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.ReLU(inplace=True), nn.Hardswish(inplace=True)),
    "attention": nn.Sequential(
        nn.Conv2d(3, 8, 2, 2),
        nn.Flatten(2),
        nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 8, batch_first=True), 2),
    ),
    "recurrent": nn.Sequential(nn.Flatten(2), nn.LSTM(64, 4, batch_first=True)),
}


@pytest.mark.parametrize("grad", [False, True])
def test_the_output_is_the_same_bit_for_bit(grad):
    net = nn.Sequential(MODELS["in place"], nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    with torch.set_grad_enabled(grad):
        found = traced(net)
    assert found.head.layers == ("4",)
    assert lines(found.activations["1"].grid) == [1, 0]


def test_the_fast_path_of_attention_is_followed():
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    found = seen(
        lambda net, x: net.seen(net.encoder(net.patches(x).flatten(2).transpose(1, 2))),
        patches=nn.Conv2d(3, 4, 2, 2),
        encoder=encoder,
    )
    assert lines(found.grid) == [2, 0.5]
    assert found.rows.axis == 0
    assert found.grid.maps(torch.rand(2, 16, 4))[0].shape == (2, 4, 4, 4)


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


def test_a_rule_that_fails_makes_its_results_unknown(monkeypatch):
    def broken(call):
        raise KeyError("axis")

    monkeypatch.setitem(rules.RULES, "relu", broken)
    found = seen(lambda net, x: net.seen(F.relu(x)))
    assert found.grid == found.rows == "relu: fault in its rule (KeyError: 'axis')"
    assert found.depends is True


def test_a_fault_of_the_tracing_itself_keeps_what_depends_on_the_image(monkeypatch):
    def broken(*_args, **_named):
        raise RuntimeError("no")

    monkeypatch.setattr("kornia_lightning_probe.model.tracing.mode.placed", broken)
    found = seen(lambda net, x: net.seen(F.relu(x)))
    assert found.grid == "aten.relu.default: fault in the tracing (RuntimeError: no)"
    assert found.depends is True


def written_by_channel(net, x):
    out = torch.zeros(2, 6, 8, 8)
    out[:, 0::2] = x
    out[:, 1::2] = -x
    return net.seen(out)


def written_into_the_middle(net, x):
    out = torch.zeros(2, 3, 12, 12)
    out[:, :, 2:10, 2:10] = x
    return net.seen(out)


def written_into_another_place(net, x):
    x = x.clone()
    x[..., :-1] = x[..., 1:].clone()
    return net.seen(x)


def images_one_by_one(net, x):
    """As detectors put images of different sizes into one batch."""
    batch = torch.zeros(2, 3, 12, 10)
    for image, place in zip(x, batch, strict=True):
        place[:, :8, :8].copy_(image)
    return net.seen(batch)


def halves_written(net, x):
    out = torch.empty(2, 3, 8, 8)
    out[..., :4, :] = x[..., :4, :]
    out[..., 4:, :] = x[..., 4:, :]
    return net.seen(out)


def every_second_cell(net, x):
    out = torch.zeros(2, 3, 16, 16)
    out[..., ::2, ::2] = x
    return net.seen(out)


def rectified_through_a_view(net, x):
    x = x.clone()
    x.view(2, -1).relu_()
    return net.seen(x)


def emptied_in_part(net, x):
    x = x.clone()
    x[:, :, 0] = 0
    return net.seen(x)


def filled(net, x):
    x = x.clone()
    x.fill_(1.0)
    return net.seen(x)


def chunked(net, x):
    first, second = torch.cat([x, x], 1).chunk(2, dim=1)
    return net.seen(torch.cat([first.relu(), second], 1))


def halves_put_together(net, x):
    top, bottom = x.split([3, 5], dim=2)
    return net.seen(torch.cat([top, bottom], 2))


WRITES = {
    "channels": (written_by_channel, [1, 0]),
    # The first of twelve rows is two rows above the image.
    "middle": (written_into_the_middle, [1, -2]),
    "elsewhere": (written_into_another_place, "written into a part of it: it held other cells"),
    "one by one": (images_one_by_one, [1, 0]),
    "halves": (halves_written, [1, 0]),
    "every second": (every_second_cell, "written into a part of it: every few of its cells"),
    "view": (rectified_through_a_view, [1, 0]),
    "constant": (emptied_in_part, [1, 0]),
    "chunks": (chunked, [1, 0]),
    "halves together": (halves_put_together, [1, 0]),
}


@pytest.mark.parametrize("name", WRITES)
def test_writes_through_views_reach_the_tensor_they_look_at(name):
    function, expected = WRITES[name]
    found = seen(function)
    assert lines(found.grid) == expected
    assert isinstance(found.rows, Rows)
    assert found.depends is True


def test_a_tensor_that_is_filled_depends_on_nothing():
    assert seen(filled).depends is False


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(_ctx, x):
        return x * 2

    @staticmethod
    def backward(_ctx, gradient):
        return gradient * 2


def test_custom_functions_of_autograd_are_followed():
    found = traced(Watched(lambda net, x: net.seen(Doubled.apply(net.conv(x))), conv=nn.Conv2d(3, 4, 2, 2)))
    assert lines(found.activations["seen"].grid) == [2, 0.5]


def test_autocast_is_followed():
    net = nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.Flatten(), nn.Linear(64, 2))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = traced(net)
    assert found.head.layers == ("2",)
    assert lines(found.activations["0"].grid) == [2, 0.5]


def test_inference_mode_is_followed():
    net = nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 2))
    with torch.inference_mode():
        found = traced(net)
    assert found.head.layers == ("3",)
    assert lines(found.activations["1"].grid) == [2, 0.5]


def test_a_compiled_model_is_followed_where_it_runs_eagerly():
    net = nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)).eval()
    compiled = torch.compile(net, backend="eager")
    with torch.no_grad():
        compiled(IMAGES)
        with torch.compiler.set_stance("force_eager"), trace(dict(net.named_children()), [IMAGES]) as tracing:
            output = compiled(IMAGES)
    assert tracing.result(output).head.layers == ("3",)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
def test_nested_tensors_lose_places_and_nothing_else():
    def padded(net, x):
        mask = torch.zeros(2, 16, dtype=torch.bool)
        mask[1, 12:] = True
        return net.seen(net.encoder(net.patches(x).flatten(2).transpose(1, 2), src_key_padding_mask=mask))

    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    found = seen(padded, patches=nn.Conv2d(3, 4, 2, 2), encoder=nn.TransformerEncoder(layer, 1))
    assert found.depends is True
    assert "nested" in found.grid


def test_products_of_all_kinds_keep_the_places_of_their_queries():
    def attended(net, x):
        tokens = x.flatten(2).transpose(1, 2)
        scores = torch.einsum("bqc,bkc->bqk", tokens, tokens).softmax(-1)
        by_hand = torch.einsum("bqk,bkc->bqc", scores, tokens)
        fused = F.scaled_dot_product_attention(tokens[:, None], tokens[:, None], tokens[:, None])[:, 0]
        return net.seen(by_hand + fused)

    found = seen(attended)
    assert lines(found.grid) == [1, 0]
    assert found.grid.maps(torch.rand(2, 64, 3))[0].shape == (2, 3, 8, 8)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda net, x: net.seen(x.sort(2).values), "sort: cells chosen by their values"),
        (lambda net, x: net.seen(torch.fft.fft(x).real), "_fft_r2c: no rule for this operator"),
        (lambda net, x: net.seen(x.roll(2, 3)), "its cells are rolled"),
        (lambda net, x: net.seen(x.mean((2, 3))), "no cells: a vector"),
        (lambda net, x: net.seen(x.mean(2)), "its cells lie along one coordinate only"),
        (lambda net, x: net.seen(x + x.transpose(2, 3)), "add: operands of other layouts"),
        (lambda net, x: net.seen(x.reshape(2, 3, 4, 16)[..., :12]), "slice: a part of folded cells"),
    ],
)
def test_where_a_grid_is_lost_the_operator_is_named(function, reason):
    assert seen(function).grid == reason


def test_circular_padding_is_known_where_its_border_is_one_cell_wide():
    # The first of ten rows is one row above the image; the border itself is the only thing that lies elsewhere.
    assert lines(seen(lambda net, x: net.seen(F.pad(x, (1, 1, 1, 1), mode="circular"))).grid) == [1, -1]
    wide = seen(lambda net, x: net.seen(F.pad(x, (2, 2, 2, 2), mode="circular"))).grid
    assert wide.startswith("branches disagree by up to")


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


def test_a_buffer_that_the_image_is_written_into_depends_on_it():
    class Cache(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("kept", torch.zeros(2, 3, 8, 8))
            self.seen = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            self.kept.copy_(x)
            return self.seen(self.kept + 1)

    with torch.no_grad():
        found = traced(Cache()).activations["seen"]
    assert found.depends is True
    assert lines(found.grid) == [1, 0]


def test_norms_in_train_mode_keep_their_statistics_as_weights():
    net = nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)).train()
    with torch.no_grad(), trace(dict(net.named_children()), [IMAGES], model=net) as tracing:
        output = net(IMAGES)
    found = tracing.result(output)
    assert isinstance(found.activations["1"].rows, Rows)
    assert found.head.layers == ("2",)
