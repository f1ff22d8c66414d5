"""Where a model ends: which layers are its head, and which one lies directly in front of it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
from torch import Tensor, nn
from torch.ao.quantization import DeQuantStub, QuantStub, convert, get_default_qconfig, prepare

from kornia_lightning_probe.model.tracing import Trace, trace

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def traced(net: nn.Module, images: Tensor = IMAGES) -> Trace:
    layers = {name: module for name, module in net.named_modules() if name}
    with torch.no_grad(), trace(layers, [images], model=net.eval()) as tracing:
        output = net(images)
    return tracing.result(output)


class Net(nn.Module):
    """A backbone of two convolutions with norms, and what a test makes of their maps (B, 8, 8, 8)."""

    def __init__(self, end, **layers: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8))
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._end = end

    def forward(self, x: Tensor) -> Tensor:
        return self._end(self, self.body(self.stem(x)))


def pooled_then_linear(net, x):
    return net.fc(net.drop(net.flatten(net.pool(x))))


def convolution_then_pooled(net, x):
    return F.relu(net.classes(net.drop(x))).mean((2, 3))


def enlarged_class_maps(net, x):
    return F.interpolate(net.classes(x), size=(16, 16), mode="bilinear")


def mean_of_two_heads(net, x):
    pooled = x.mean((2, 3))
    return (net.fc(pooled) + net.distilled(pooled)) / 2


def sum_of_low_and_high(net, x):
    low = net.low(x)
    high = net.high(F.avg_pool2d(net.deeper(x), 2))
    return low + F.interpolate(high, size=low.shape[-2:])


def boxes(net, x):
    offsets = net.boxes(x).sigmoid()
    anchors = torch.arange(8.0).view(1, 1, 8, 1)
    return torch.cat([offsets[:, :2] * 4 + anchors, offsets[:, 2:].exp()], 1)


def scaled_and_shifted(net, x):
    return net.fc(x.mean((2, 3))) * net.scale + net.shift


def similarity_to_texts(net, x):
    texts = F.normalize(net.text.weight, dim=-1)
    return F.normalize(net.norm(net.project(x.mean((2, 3)))), dim=-1) @ texts.T


def written_into_one_tensor(net, x):
    out = x.new_zeros(len(x), 6)
    pooled = x.mean((2, 3))
    out[:, :3] = net.fc(pooled)
    out[:, 3:] = net.distilled(pooled)
    return out


HEADS = {
    "linear": (
        Net(
            pooled_then_linear,
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            drop=nn.Dropout(),
            fc=nn.Linear(8, 5),
        ),
        ("fc",),
        "pool",
    ),
    # As squeezenet ends: rectified and pooled class maps.
    "convolution": (
        Net(convolution_then_pooled, drop=nn.Dropout(), classes=nn.Conv2d(8, 5, 1)),
        ("classes",),
        "body.1",
    ),
    "segmentation": (Net(enlarged_class_maps, classes=nn.Conv2d(8, 5, 1)), ("classes",), "body.1"),
    "two": (Net(mean_of_two_heads, fc=nn.Linear(8, 5), distilled=nn.Linear(8, 5)), ("fc", "distilled"), "body.1"),
    # As lraspp ends: one head on the way to the other one's branch.
    "low and high": (
        Net(
            sum_of_low_and_high,
            low=nn.Conv2d(8, 5, 1),
            deeper=nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)),
            high=nn.Conv2d(8, 5, 1),
        ),
        ("low", "high"),
        "deeper.1",
    ),
    "boxes": (Net(boxes, boxes=nn.Conv2d(8, 4, 1)), ("boxes",), "body.1"),
    "similarity": (
        Net(similarity_to_texts, project=nn.Linear(8, 6), norm=nn.LayerNorm(6), text=nn.Embedding(4, 6)),
        (),
        "norm",
    ),
    "written": (
        Net(written_into_one_tensor, fc=nn.Linear(8, 3), distilled=nn.Linear(8, 3)),
        ("fc", "distilled"),
        "body.1",
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_is_a_product_with_a_weight_and_what_lies_behind_it(name):
    net, layers, in_front = HEADS[name]
    found = traced(net)
    assert found.head.exists
    assert found.head.layers == layers
    assert found.embedding() == in_front


def test_a_scale_and_a_shift_behind_the_head_are_a_part_of_it():
    net = Net(scaled_and_shifted, fc=nn.Linear(8, 5))
    net.scale, net.shift = nn.Parameter(torch.ones(5)), nn.Parameter(torch.zeros(5))
    assert traced(net).head.layers == ("fc",)


def test_a_head_without_a_module_is_seen():
    net = Net(lambda net, x: F.linear(x.mean((2, 3)), net.weight))
    net.weight = nn.Parameter(torch.rand(4, 8))
    found = traced(net)
    assert found.head.exists
    assert (found.head.layers, found.embedding()) == ((), "body.1")


def residual_sum(net, x):
    return x + net.mlp(x)


ENCODERS = {
    "norm": (Net(lambda net, x: net.norm(x), norm=nn.GroupNorm(1, 8)), "norm"),
    "pooling": (Net(lambda net, x: net.pool(x), pool=nn.AdaptiveAvgPool2d(1)), "pool"),
    "residual sum": (Net(residual_sum, mlp=nn.Conv2d(8, 8, 1)), "mlp"),
    "attention": (
        Net(lambda net, x: net.block(x.flatten(2).transpose(1, 2)), block=nn.TransformerEncoderLayer(8, 2, 16)),
        "block.norm2",
    ),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_without_a_head_ends_with_its_last_layer(name):
    net, last = ENCODERS[name]
    found = traced(net)
    assert not found.head.exists
    assert found.head.layers == ()
    assert found.embedding() == last


def test_a_stream_of_products_alone_is_a_residual_sum_too():
    class Stream(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 8, 4, 4)
            self.first, self.second = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.patches(x)
            x = x + self.first(x)
            return x + self.second(x)

    found = traced(Stream())
    assert (found.head.exists, found.embedding()) == (False, "second")


def test_what_passes_a_tensor_on_gives_way_to_the_layer_that_made_it():
    net, _, _ = HEADS["linear"]
    found = traced(net)
    assert found.head.front[-1] == "drop"
    assert {found.activations[name].source for name in ("pool", "flatten", "drop")} == {"pool"}
    assert found.holding_the_same("drop") == ("pool", "flatten", "drop")
    assert found.embedding(["body", "body.1", "stem"]) == "body.1"


def test_what_passes_on_what_no_layer_made_gives_way_to_the_layer_before_it():
    def class_token(net, x):
        tokens = net.norm(x.flatten(2).transpose(1, 2))
        return net.fc(net.drop(tokens[:, 0]))

    found = traced(Net(class_token, norm=nn.LayerNorm(8), drop=nn.Dropout(), fc=nn.Linear(8, 2)))
    assert found.activations["drop"].passes_on
    assert found.embedding() == "norm"
    assert found.embedding(["drop", "norm"]) == "drop"


def test_a_layer_that_writes_into_what_it_was_given_passes_nothing_on():
    net = Net(lambda net, x: net.fc(net.relu(x).mean((2, 3))), relu=nn.ReLU(inplace=True), fc=nn.Linear(8, 2))
    found = traced(net)
    assert found.embedding() == "relu"
    assert [name for name, each in found.activations.items() if each.passes_on] == []


def test_layers_that_do_not_lead_to_the_output_are_not_in_front_of_its_head():
    def with_auxiliary_head(net, x):
        net.auxiliary(net.neck(x).mean((2, 3)))
        return net.fc(x.mean((2, 3)))

    net = Net(with_auxiliary_head, neck=nn.Conv2d(8, 8, 1), auxiliary=nn.Linear(8, 2), fc=nn.Linear(8, 2))
    found = traced(net)
    assert found.head.layers == ("fc",)
    assert "neck" not in found.head.front
    assert "neck" in found.activations


def test_of_several_outputs_the_one_that_is_used_decides():
    net = Net(lambda net, x: (net.boxes(x), net.fc(x.mean((2, 3)))), boxes=nn.Conv2d(8, 4, 1), fc=nn.Linear(8, 2))
    layers = dict(net.named_children())
    with torch.no_grad(), trace(layers, [IMAGES], model=net.eval()) as tracing:
        _, scores = net(IMAGES)
    assert tracing.result(scores).head.layers == ("fc",)


class Beside(Net):
    """With a position embedding, a tower of constants, a teacher that sees the image and leads nowhere."""

    def __init__(self) -> None:
        super().__init__(lambda net, x: net.fc((x + net.position(net.places).T.view(1, 8, 8, 8)).mean((2, 3))))
        self.position = nn.Embedding(64, 8)
        self.register_buffer("places", torch.arange(64))
        self.tower = nn.Linear(8, 8)
        self.teacher = nn.Conv2d(3, 2, 1)
        self.fc = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.teacher(x)
        self.tower(torch.ones(2, 8))
        return super().forward(x)


def test_what_the_image_does_not_reach_is_seen():
    found = traced(Beside())
    depends = {name: activation.depends for name, activation in found.activations.items()}
    assert depends == {
        "teacher": True,
        "tower": False,
        "stem.0": True,
        "stem.1": True,
        "stem.2": True,
        "stem": True,
        "body.0": True,
        "body.1": True,
        "body": True,
        "position": False,
        "fc": True,
    }
    assert found.activations["tower"].grid == "it does not depend on the image"
    assert found.activations["tower"].rows == "it does not depend on the image"
    # It leads to the output, but nothing can be measured there.
    assert found.embedding() == "body.1"


class ByNumpy(nn.Module):
    """Leaves torch for NumPy and comes back, with a copy or on the same memory."""

    def __init__(self, *, copied: bool) -> None:
        super().__init__()
        self.copied = copied
        self.before = nn.Conv2d(3, 4, 1)
        self.after = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        array = self.before(x).numpy()
        return self.after(torch.from_numpy(array.copy() if self.copied else array))


def test_a_tensor_that_came_by_numpy_is_unknown_unless_it_shares_memory():
    copied = traced(ByNumpy(copied=True)).activations["after"]
    assert copied.depends is None
    assert copied.grid == copied.rows == "the trace was lost"
    shared = traced(ByNumpy(copied=False)).activations["after"]
    assert shared.depends is True
    assert shared.grid == "a tensor that came from outside of torch's operators"


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:must run observer before calling calculate_qparams:UserWarning")
@pytest.mark.filterwarnings("ignore:Please use quant_min and quant_max:UserWarning")
def test_a_quantised_product_is_a_head_and_what_leads_to_it_is_in_front():
    quantised = nn.Sequential(
        QuantStub(), nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2), DeQuantStub()
    ).eval()
    quantised.qconfig = get_default_qconfig(torch.backends.quantized.engine)
    found = traced(convert(prepare(quantised)), IMAGES)
    assert found.head.layers == ("4", "5")
    assert found.embedding() == "2"
    assert found.activations["1"].rows.axis == 0
