import pytest
import torch
from support.nets import SmallCNN
from support.probing import halved, images_of, mirrored, plain_bank, random_bank, same
from torch import nn

from kornia_lightning_probe import probe_model

IMAGES = images_of(40)
VIEWS = {"halve": halved, "mirror": mirrored}

# Nets of four channels have a leading one.
pytestmark = [
    pytest.mark.filterwarnings("ignore:one channel holds more than half"),
]


def test_forward_may_be_a_callable_or_a_name():
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = SmallCNN()

        def embed(self, x):
            return self.net(x)

    model = Holder()
    with pytest.raises(ValueError, match=r"Holder has no forward\(\) of its own.*forward=.*'net'"):
        probe_model(model, IMAGES, plain_bank())
    expected = probe_model(model, IMAGES, plain_bank(), forward="net")
    assert expected.layers == ("net.block1", "net.block2", "net.head")
    for forward in ("embed", lambda called, x: called.net(x)):
        same(probe_model(model, IMAGES, plain_bank(), forward=forward), expected)


@pytest.mark.parametrize("in_place", [False, True])
def test_every_layer_of_a_compiled_model_fires_and_its_code_is_used_again(in_place):
    compilations = []

    def backend(graph, inputs):
        compilations.append(1)
        return graph.forward

    model = SmallCNN().eval()
    expected = probe_model(model, IMAGES, plain_bank())
    if in_place:
        model.compile(backend=backend)
        compiled = model
    else:
        compiled = torch.compile(model, backend=backend)
    with torch.no_grad():
        logits = compiled(IMAGES)
        before = len(compilations)
        same(probe_model(compiled, IMAGES, plain_bank()), expected)
        assert torch.equal(compiled(IMAGES), logits)
    assert len(compilations) == before == 1


def test_a_model_that_is_compiled_but_never_ran_is_probed_too():
    model = SmallCNN()
    same(
        probe_model(torch.compile(model, backend="eager"), IMAGES, plain_bank()),
        probe_model(model, IMAGES, plain_bank()),
    )


def test_autocast_around_a_probe_is_that_of_the_forward_and_of_nothing_else():
    model = SmallCNN()

    def cast(called, x):
        with torch.autocast("cpu", torch.bfloat16):
            return called(x)

    expected = probe_model(model, IMAGES, random_bank(), forward=cast)
    with torch.autocast("cpu", torch.bfloat16):
        result = probe_model(model, IMAGES, random_bank())
    same(result, expected)
    assert result.metadata["activation_dtypes"] == ["bfloat16"]
    plain = probe_model(model, IMAGES, random_bank())
    assert torch.equal(result.tensor("sensitivity")[:, 0], plain.tensor("sensitivity")[:, 0])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.bfloat16, 0.05)])
def test_a_model_in_another_dtype_gets_images_of_its_own(dtype, tolerance):
    model = SmallCNN()
    expected = probe_model(model, IMAGES, random_bank()).tensor("sensitivity")
    result = probe_model(model.to(dtype), IMAGES, random_bank())
    torch.testing.assert_close(result.tensor("sensitivity"), expected, rtol=tolerance, atol=tolerance)
    assert str(dtype).removeprefix("torch.") in result.metadata["activation_dtypes"]


def test_a_model_without_parameters_is_probed_where_the_images_are():
    model = nn.Sequential(nn.AvgPool2d(2), nn.Flatten())
    assert probe_model(model, IMAGES, plain_bank(), layers="*").metadata["device"] == "cpu"


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_the_device_may_be_said(device):
    model = SmallCNN()
    same(probe_model(model, IMAGES, plain_bank(), device=device), probe_model(model, IMAGES, plain_bank()))


def test_lazy_layers_that_have_seen_no_image_are_refused_and_stay_lazy():
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
    with pytest.raises(ValueError, match=r"'1\.weight', '1\.bias' of Sequential do not exist yet.*call the model once"):
        probe_model(model, IMAGES, plain_bank())
    assert model[1].has_uninitialized_params()


@pytest.mark.parametrize(
    ("model", "bank", "text"),
    [
        (lambda x: x, plain_bank(), "model must be an nn.Module, got a function"),
        (
            SmallCNN(),
            VIEWS,
            r"bank must be an AugmentationBank, got a dict; AugmentationBank\(\{name: augmentation\}\)",
        ),
    ],
)
def test_a_model_or_bank_of_another_type_is_refused(model, bank, text):
    with pytest.raises(TypeError, match=text):
        probe_model(model, IMAGES, bank)
