from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from nets import Failing, HuggingViT, InPlace, Pair, ResNet, Returns, SharedTwice, ViT, hooks
from torch import Tensor, nn

from kornia_lightning_probe.recorder import ActivationRecorder

IMAGES = torch.linspace(-1, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)


def record(*outputs: object) -> ActivationRecorder:
    """Records one layer per output, on an input of ones (2, 3)."""
    net = nn.Sequential(*[nn.Sequential(Returns(output)) for output in outputs])
    with ActivationRecorder({f"f{i}": layer for i, layer in enumerate(net)}) as recorder:
        for layer in net:
            layer(torch.ones(2, 3))
    return recorder


@dataclass
class Features:
    maps: Tensor
    note: str


@pytest.mark.parametrize("net", [ResNet(), ViT(), HuggingViT(depth=2)])
def test_a_model_stands_for_its_selected_layers(net: nn.Module) -> None:
    with ActivationRecorder(net) as recorder:
        net(IMAGES)
    assert list(recorder.calls) == list(recorder.layers)
    assert all(activation.shape[0] == 2 for activation in recorder.activations.values())
    assert recorder.left_out == {}


def test_activations_come_in_the_order_of_execution() -> None:
    net = ResNet().eval()
    with ActivationRecorder({"head": net.fc, "stem": net.conv1, "late": net.layer4}) as recorder:
        net(IMAGES)
    assert list(recorder.activations) == ["stem", "late", "head"]


def test_an_in_place_operation_afterwards_does_not_reach_the_clones() -> None:
    net = InPlace()
    with ActivationRecorder({"conv": net.conv}) as recorder:
        net(IMAGES)
    # A convolution alone is what the hook saw, before the ReLU overwrote it.
    assert torch.equal(recorder.activations["conv"], net.conv(IMAGES).detach())
    assert (recorder.activations["conv"] < 0).any()


def test_a_second_call_is_a_layer_of_its_own_until_reset() -> None:
    net = SharedTwice()
    with ActivationRecorder({"shared": net.shared, "fc": net.fc}) as recorder:
        net(IMAGES)
        assert list(recorder.activations) == ["shared", "shared.call2", "fc"]
        assert recorder.calls == {"shared": 2, "fc": 1}
        first = net.shared(IMAGES)
        recorder.reset()
        assert recorder.activations == recorder.calls == {}
        net(IMAGES)
    assert list(recorder.activations) == ["shared", "shared.call2", "fc"]
    assert torch.equal(recorder.activations["shared"], first)


def test_receive_gets_the_models_own_tensor_detached_and_nothing_is_kept() -> None:
    seen: dict[str, Tensor] = {}
    layer = nn.Linear(3, 2)
    with ActivationRecorder({"fc": layer}, receive=seen.__setitem__) as recorder:
        output = layer(torch.ones(4, 3))
    assert seen["fc"].data_ptr() == output.data_ptr()
    assert not seen["fc"].requires_grad
    assert recorder.activations == {}


def test_no_graph_is_kept() -> None:
    net = ResNet()
    with ActivationRecorder(net) as recorder:
        net(IMAGES)
    assert all(not kept.requires_grad and kept.grad_fn is None for kept in recorder.activations.values())


def test_outputs_of_several_tensors_are_taken_apart() -> None:
    recorder = record(
        lambda x: (x, [x, x]),
        lambda x: {"maps": x, "pairs": Pair(x, x)},
        lambda x: Features(x, "a note"),
    )
    assert list(recorder.activations) == [
        *("f0[0]", "f0[1][0]", "f0[1][1]"),
        *("f1[maps]", "f1[pairs][0]", "f1[pairs][1]"),
        "f2[maps]",
    ]


def test_a_second_call_of_a_tuple_numbers_the_call_before_the_entry() -> None:
    layer = Returns(lambda x: (x, x))
    with ActivationRecorder({"f": layer}) as recorder:
        layer(layer(torch.ones(2, 3))[0])
    assert list(recorder.activations) == ["f[0]", "f[1]", "f.call2[0]", "f.call2[1]"]


def test_a_model_output_is_taken_apart_by_its_keys() -> None:
    net = HuggingViT(depth=2)
    with ActivationRecorder({"encoder": net.encoder}) as recorder:
        net(IMAGES)
    names = ["encoder[last_hidden_state]", *(f"encoder[hidden_states][{i}]" for i in range(3))]
    assert list(recorder.activations) == names


@pytest.mark.parametrize(
    ("output", "left_out"),
    [
        ((torch.ones(2, 3), None), {"f0[1]": "no tensor in the output (NoneType)"}),
        ("text", {"f0": "no tensor in the output (str)"}),
        ((), {"f0": "no tensor in the output (tuple)"}),
        (Features(torch.ones(2, 1), "a note"), {"f0[note]": "no tensor in the output (str)"}),
        (Features, {"f0": "no tensor in the output (Features)"}),
        ({"ids": torch.arange(2), "mask": torch.ones(2).bool()}, {"f0[ids]": "integer tensor (int64)", "f0[mask]": "integer tensor (bool)"}),
        ((torch.ones(2), torch.tensor(1.0)), {"f0[1]": "scalar tensor (no axis of images)"}),
    ],
)  # fmt: skip
def test_what_is_no_activation_is_named_with_its_reason(output: object, left_out: dict[str, str]) -> None:
    recorder = record(lambda x: output) if output is not Features else record(lambda x: Features(x, "")["maps"] if x is None else Features)
    expected = {name: reason.replace("(Features)", "(type)") for name, reason in left_out.items()}
    assert recorder.left_out == expected
    assert not set(recorder.activations) & set(left_out)
