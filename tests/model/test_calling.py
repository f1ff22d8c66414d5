import pytest
import torch
from support.nets import LeftAndRight, SmallCNN
from support.probing import images_of
from torch import nn

from kornia_lightning_probe.model.calling import cast_inputs, device_of, forward_of, has_forward

IMAGES = images_of(4)


class Keyed(nn.Module):
    """Has methods and submodules, and no forward."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Flatten()
        self.blocks = nn.ModuleList([nn.Flatten()])
        self.pair = LeftAndRight().eval()
        self.width = 3

    def encode(self, x):
        return x.mean((2, 3))


def test_a_tensor_or_a_dict_is_one_argument_and_a_tuple_several():
    assert torch.equal(forward_of(nn.Flatten())(IMAGES), IMAGES.flatten(1))

    class Takes(nn.Module):
        def forward(self, *arguments):
            return arguments

    assert forward_of(Takes())({"x": 1}) == ({"x": 1},)
    assert forward_of(Takes())((1, 2)) == (1, 2)


def test_a_named_method_or_submodule_is_called_in_place_of_the_model():
    net = Keyed()
    assert torch.equal(forward_of(net, "encode")(IMAGES), IMAGES.mean((2, 3)))
    assert torch.equal(forward_of(net, "backbone")(IMAGES), IMAGES.flatten(1))
    assert torch.equal(forward_of(net, "blocks.0")(IMAGES), IMAGES.flatten(1))
    assert forward_of(net, "pair")((IMAGES, IMAGES)).count_nonzero() == 0


def test_a_callable_gets_the_model_and_the_inputs_as_they_are():
    assert forward_of(nn.Flatten(), lambda model, inputs: (model, inputs))((1, 2))[1] == (1, 2)


def test_hooks_of_the_model_fire_as_in_an_ordinary_call():
    net, calls = SmallCNN(), []
    net.register_forward_hook(lambda *_: calls.append(1))
    forward_of(net)(IMAGES)
    assert calls == [1]


@pytest.mark.parametrize(
    ("forward", "error", "text"),
    [
        (None, ValueError, r"Keyed has no forward\(\) of its own.*pass forward=.*'backbone', 'blocks', 'pair'"),
        ("blocks", ValueError, r"ModuleList has no forward\(\) of its own.*has '0'"),
        ("bakbone", ValueError, "forward='bakbone' is no method and no submodule of Keyed, which has 'backbone', "),
        ("blocks.3", ValueError, "forward='blocks.3' is no method"),
        ("width", TypeError, "forward='width' is a int, expected a method or a submodule"),
        (3, TypeError, r"forward must be a callable \(model, inputs\), or the dotted name .* got 3"),
    ],
)
def test_what_can_not_be_called_is_an_error_before_anything_runs(forward, error, text):
    with pytest.raises(error, match=text):
        forward_of(Keyed(), forward)


def test_compiled_scripted_and_patched_models_have_a_forward_and_empty_ones_have_none():
    assert has_forward(SmallCNN())
    assert has_forward(torch.compile(SmallCNN(), backend="eager"))
    assert not has_forward(torch.compile(Keyed(), backend="eager"))
    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
        scripted = torch.jit.script(nn.Flatten())
    assert has_forward(scripted)
    patched = Keyed()
    assert not has_forward(patched)
    patched.forward = patched.encode
    assert has_forward(patched)


def test_a_model_is_where_its_first_parameter_or_buffer_is():
    assert device_of(nn.Flatten()) is None
    assert device_of(SmallCNN()) == torch.device("cpu")
    assert device_of(nn.BatchNorm1d(2, affine=False)) == torch.device("cpu")
    assert device_of(nn.Linear(2, 2, device="meta")) == torch.device("meta")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_floats_come_in_the_dtype_of_the_parameters_and_integers_as_they_are(dtype):
    forward = cast_inputs(nn.Linear(2, 2).to(dtype), lambda inputs: inputs)
    came = forward({"image": IMAGES.double(), "ids": torch.arange(4), "text": ["a"]})
    assert came["image"].dtype == dtype
    assert came["ids"].dtype == torch.int64
    assert came["text"] == ["a"]


def test_a_model_of_several_dtypes_or_none_gets_what_came():
    mixed = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2).half()])
    for model in (mixed, nn.Flatten()):
        assert cast_inputs(model, lambda inputs: inputs)(IMAGES.double()).dtype == torch.float64
