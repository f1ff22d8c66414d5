from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from support.nets import Failing, HuggingViT, InPlace, Pair, ResNet, Returns, SharedTwice, ViT, hooks
from torch import Tensor, nn

from kornia_lightning_probe.model.recorder import ActivationRecorder

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


def test_with_graph_an_activation_has_gradients_with_respect_to_the_input() -> None:
    net = nn.Sequential(nn.Linear(3, 2, bias=False), nn.ReLU(inplace=True))
    x = torch.ones(4, 3, requires_grad=True)
    seen: dict[str, Tensor] = {}
    with ActivationRecorder({"fc": net[0]}, graph=True) as recorder, ActivationRecorder(net, receive=seen.__setitem__):
        net(x)
    (slope,) = torch.autograd.grad(recorder.activations["fc"][:, 0].sum(), x)
    # d(W x)_0 / dx is the first row of W.
    torch.testing.assert_close(slope, net[0].weight[0].detach().expand(4, 3))
    assert not seen["0"].requires_grad


def test_with_graph_what_is_received_is_on_the_way_to_the_output() -> None:
    net, seen = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1, bias=False)), {}
    with ActivationRecorder({"0": net[0]}, receive=seen.__setitem__, graph=True):
        output = net(torch.ones(4, 3))
    (slope,) = torch.autograd.grad(output.sum(), seen["0"])
    # d(w h) / dh is w.
    torch.testing.assert_close(slope, net[1].weight.detach().expand(4, 2))


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


def test_a_layer_that_is_itself_called_call2_is_told_from_a_second_call() -> None:
    class Holds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.call2 = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return self.call2(self.call2(x) + 1)

    net = Holds()
    with ActivationRecorder({"f": net, "f.call2": net.call2, "f.call02": nn.Identity()}) as recorder:
        net(net(torch.zeros(2)))
    # Each call of the child adds what the calls before it have added: 0, 1, then 1, 2 of the net's second call.
    found = {name: float(activation[0]) for name, activation in recorder.activations.items()}
    children = {"f.call2": 0, "f.call2.call2": 1, "f.call2.call3": 1, "f.call2.call4": 2}
    assert found == children | {"f": 1, "f.call002": 2}


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_quantised_outputs_are_dequantised() -> None:
    # Steps of a half hold 1.5 exactly.
    recorder = record(lambda x: torch.quantize_per_tensor(1.5 * x, 0.5, 0, torch.qint8))
    assert torch.equal(recorder.activations["f0"], torch.full((2, 3), 1.5))
    assert recorder.left_out == {}


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
        ((torch.ones(2, 3), None), {}),
        (None, {"f0": "no tensor in the output (NoneType)"}),
        ((None,), {"f0": "no tensor in the output (tuple)"}),
        ("text", {"f0": "no tensor in the output (str)"}),
        ((), {"f0": "no tensor in the output (tuple)"}),
        (Features(torch.ones(2, 1), "a note"), {"f0[note]": "no tensor in the output (str)"}),
        (Features, {"f0": "no tensor in the output (type)"}),
        ({"ids": torch.arange(2)}, {"f0[ids]": "integer tensor (int64)"}),
        (torch.ones(2).bool(), {"f0": "integer tensor (bool)"}),
        ((torch.ones(2), torch.tensor(1.0)), {"f0[1]": "scalar tensor (no axis of images)"}),
        ((torch.ones(2), torch.tensor(1.0 + 1.0j)), {"f0[1]": "scalar tensor (no axis of images)"}),
    ],
)
def test_what_is_no_activation_is_named_with_its_reason(output: object, left_out: dict[str, str]) -> None:
    recorder = record(lambda _: output)
    assert recorder.left_out == left_out
    assert not set(recorder.activations) & set(left_out)


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage:UserWarning")
def test_nested_tensors_are_padded_with_zeros(layout: torch.layout) -> None:
    # Rows of 1 and 2 tokens become a table of 2 x 2 tokens; the missing one is zero.
    nested = torch.nested.nested_tensor([torch.ones(1, 3), torch.ones(2, 3)], layout=layout)
    padded = record(lambda _: nested).activations["f0"]
    assert padded.sum(2).tolist() == [[3, 0], [3, 3]]


def test_complex_numbers_become_pairs_of_real_ones() -> None:
    # conj(1 + 2i) = 1 - 2i
    activation = record(lambda _: torch.full((2, 3), 1 + 2j).conj()).activations["f0"]
    assert activation.shape == (2, 3, 2)
    assert activation[0, 0].tolist() == [1, -2]


def test_hooks_are_gone_after_the_with() -> None:
    net = ResNet()
    with ActivationRecorder(net) as recorder:
        assert hooks(net) == len(recorder.layers)
    assert hooks(net) == 0
    net(IMAGES)
    assert recorder.activations == {}


def test_hooks_are_gone_after_an_exception_in_the_model() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 1), Failing())
    with pytest.raises(RuntimeError, match="this layer fails"), ActivationRecorder({"0": net[0], "1": net[1]}):
        net(IMAGES)
    assert hooks(net) == 0


def test_hooks_are_gone_after_an_exception_in_receive() -> None:
    def refuse(name: str, activation: Tensor) -> None:
        raise ValueError(name)

    net = ResNet()
    with pytest.raises(ValueError, match="conv1"), ActivationRecorder(net, receive=refuse):
        net(IMAGES)
    assert hooks(net) == 0


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*is deprecated:DeprecationWarning")
def test_half_an_opening_is_undone() -> None:
    scripted = torch.jit.script(nn.Linear(3, 3))
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), scripted, nn.Linear(3, 3))
    recorder = ActivationRecorder(dict(net.named_children()))
    with pytest.raises(TypeError, match=r"layer '2' .* takes no hooks: .*; choose layers outside of it"), recorder:
        pytest.fail("the recorder opened")
    assert hooks(net[0]) == hooks(net[1]) == hooks(net[3]) == 0


def test_the_users_own_hooks_stay() -> None:
    net = nn.Linear(3, 3)
    net.register_forward_hook(lambda _module, _args, output: 2 * output)
    with ActivationRecorder({"fc": net}) as recorder:
        output = net(torch.ones(2, 3))
    # Our hook comes last, so that it sees what goes on to the next layer.
    assert torch.equal(recorder.activations["fc"], output.detach())
    assert hooks(net) == 1


def test_entering_twice_is_refused_and_the_first_opening_stays_whole() -> None:
    net = nn.Sequential(nn.Linear(3, 3))
    recorder = ActivationRecorder({"0": net[0]})
    with recorder:
        with pytest.raises(RuntimeError, match="open already"), recorder:
            pytest.fail("the recorder opened twice")
        net(torch.ones(2, 3))
    assert list(recorder.activations) == ["0"]
    assert hooks(net) == 0


def test_a_recorder_can_be_used_again() -> None:
    net = nn.Sequential(nn.Linear(3, 3))
    recorder = ActivationRecorder({"0": net[0]})
    for _ in range(2):
        with recorder:
            net(torch.ones(2, 3))
        assert list(recorder.activations) == ["0"]
    recorder.__exit__(None, None, None)
    assert hooks(net) == 0


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(TypeError, match=r"layer 'fc' is a str, expected an nn\.Module"):
        ActivationRecorder({"fc": "fc"})  # type: ignore[dict-item]  # the error is what is tested


def test_nothing_in_the_model_changes() -> None:
    net = ResNet().eval()
    net.layer2.train()
    net.layer2.requires_grad_(requires_grad=False)
    flags = [module.training for module in net.modules()]
    stream = torch.get_rng_state()
    with ActivationRecorder(net):
        assert net(IMAGES).requires_grad
    assert [module.training for module in net.modules()] == flags
    assert torch.equal(torch.get_rng_state(), stream)


@pytest.mark.parametrize("whole", [True, False])
def test_hooks_fire_in_a_compiled_model_under_force_eager(*, whole: bool) -> None:
    torch._dynamo.reset()
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)).eval()
    model = torch.compile(net, backend="eager") if whole else net
    if not whole:
        net[0] = torch.compile(net[0], backend="eager")
    with torch.no_grad():
        expected = model(torch.ones(2, 3))
        with torch.compiler.set_stance("force_eager"), ActivationRecorder({"0": net[0], "2": net[2]}) as recorder:
            model(torch.ones(2, 3))
        assert torch.equal(model(torch.ones(2, 3)), expected)
    assert recorder.calls == {"0": 1, "2": 1}
    assert torch.equal(recorder.activations["2"], expected)
