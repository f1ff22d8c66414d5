"""The following itself: it changes nothing, keeps nothing, and survives whatever a model does."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
from support.traced import Watched, lines, seen, traced
from torch import Tensor, nn

from kornia_lightning_probe.model.tracing import Rows, trace
from kornia_lightning_probe.model.tracing.operators import rules

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


IN_PLACE = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.ReLU(inplace=True), nn.Hardswish(inplace=True))


@pytest.mark.parametrize("grad", [False, True])
def test_the_output_is_the_same_bit_for_bit(grad):
    net = nn.Sequential(IN_PLACE, nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    with torch.set_grad_enabled(grad):
        found = traced(net, IMAGES)
    assert found.head.layers == ("4",)
    assert lines(found.activations["1"].grid) == [1, 0]


def test_the_fast_path_of_attention_is_followed():
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    found = seen(
        lambda net, x: net.seen(net.encoder(net.patches(x).flatten(2).transpose(1, 2))),
        IMAGES,
        patches=nn.Conv2d(3, 4, 2, 2),
        encoder=encoder,
    )
    assert lines(found.grid) == [2, 0.5]
    assert found.rows.axis == 0
    assert found.grid.maps(torch.rand(2, 16, 4))[0].shape == (2, 4, 4, 4)


def test_a_rule_that_fails_makes_its_results_unknown(monkeypatch):
    def broken(call):
        raise KeyError("axis")

    monkeypatch.setitem(rules.RULES, "relu", broken)
    found = seen(lambda net, x: net.seen(F.relu(x)), IMAGES)
    assert found.grid == found.rows == "relu: fault in its rule (KeyError: 'axis')"
    assert found.depends is True


def test_a_fault_of_the_tracing_itself_keeps_what_depends_on_the_image(monkeypatch):
    def broken(*_args, **_named):
        raise RuntimeError("no")

    monkeypatch.setattr("kornia_lightning_probe.model.tracing.mode.placed", broken)
    found = seen(lambda net, x: net.seen(F.relu(x)), IMAGES)
    assert found.grid == "aten.relu.default: fault in the tracing (RuntimeError: no)"
    assert found.depends is True


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(_ctx, x):
        return x * 2

    @staticmethod
    def backward(_ctx, gradient):
        return gradient * 2


def test_custom_functions_of_autograd_are_followed():
    found = traced(Watched(lambda net, x: net.seen(Doubled.apply(net.conv(x))), conv=nn.Conv2d(3, 4, 2, 2)), IMAGES)
    assert lines(found.activations["seen"].grid) == [2, 0.5]


def test_autocast_is_followed():
    net = nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.Flatten(), nn.Linear(64, 2))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = traced(net, IMAGES)
    assert found.head.layers == ("2",)
    assert lines(found.activations["0"].grid) == [2, 0.5]


def test_inference_mode_is_followed():
    net = nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 2))
    with torch.inference_mode():
        found = traced(net, IMAGES)
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
    found = seen(padded, IMAGES, patches=nn.Conv2d(3, 4, 2, 2), encoder=nn.TransformerEncoder(layer, 1))
    assert found.depends is True
    assert "nested" in found.grid


def test_products_of_all_kinds_keep_the_places_of_their_queries():
    def attended(net, x):
        tokens = x.flatten(2).transpose(1, 2)
        scores = torch.einsum("bqc,bkc->bqk", tokens, tokens).softmax(-1)
        by_hand = torch.einsum("bqk,bkc->bqc", scores, tokens)
        fused = F.scaled_dot_product_attention(tokens[:, None], tokens[:, None], tokens[:, None])[:, 0]
        return net.seen(by_hand + fused)

    found = seen(attended, IMAGES)
    assert lines(found.grid) == [1, 0]
    assert found.grid.maps(torch.rand(2, 64, 3))[0].shape == (2, 3, 8, 8)


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
        found = traced(Cache(), IMAGES).activations["seen"]
    assert found.depends is True
    assert lines(found.grid) == [1, 0]


def test_norms_in_train_mode_keep_their_statistics_as_weights():
    net = nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)).train()
    with torch.no_grad(), trace(dict(net.named_children()), [IMAGES], model=net) as tracing:
        output = net(IMAGES)
    found = tracing.result(output)
    assert isinstance(found.activations["1"].rows, Rows)
    assert found.head.layers == ("2",)
