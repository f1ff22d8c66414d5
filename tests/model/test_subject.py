import pytest
import torch
from support.nets import HuggingViT, SharedTwice
from support.probing import CPU
from torch import nn

from kornia_lightning_probe.model.subject import choose_subject


def subject_of(net, layers="auto", embedding=None):
    return choose_subject(net, net, layers=layers, embedding=embedding, device=CPU)


def test_a_subject_holds_the_chosen_layers_and_which_were_named():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 2))
    subject = subject_of(net, ["2", nn.Linear])
    assert subject.layers == {"1": net[1], "2": net[2]}
    assert subject.exact == {"2"}
    assert subject.embedding is None
    assert (subject.model, subject.forward, subject.device) == (net, net, CPU)


@pytest.mark.parametrize(
    ("net", "embedding", "layer"),
    [
        (SharedTwice(), "shared", "shared"),
        (SharedTwice(), "shared.call2", "shared"),
        (SharedTwice(), "shared.call02", "shared"),
        (HuggingViT(depth=2), "encoder[hidden_states][1]", "encoder"),
        (HuggingViT(depth=2), "encoder.call2[last_hidden_state]", "encoder"),
    ],
)
def test_a_named_embedding_is_added_and_must_run(net, embedding, layer):
    subject = subject_of(net, [nn.Linear], embedding)
    assert subject.layers[layer] is net.get_submodule(layer)
    assert subject.exact == {layer}
    assert subject.embedding == embedding


def test_an_embedding_goes_by_the_name_that_the_layer_has_without_wrappers():
    net = torch.compile(SharedTwice(), backend="eager")
    assert subject_of(net, "fc", "_orig_mod.shared.call2").embedding == "shared.call2"


def test_modules_called_input_and_output_leave_these_names_to_pixels_and_prediction():
    net = nn.ModuleDict({"input": nn.Linear(2, 2), "output": nn.Linear(2, 2), "other": nn.Linear(2, 2)})
    subject = subject_of(net, ["input", "o*"], "output")
    assert list(subject.layers) == ["model.input", "model.output", "other"]
    assert subject.exact == {"model.input"}
    assert subject.embedding == "model.output"
    assert subject_of(net, ["input", "other"], "other").embedding == "other"
    assert subject_of(net, ["input", "other"]).embedding is None


@pytest.mark.parametrize(
    ("embedding", "text"),
    [
        ("shred", "embedding='shred': no layer matches 'shred'; near names: 'shared'"),
        ("s*", r"embedding='s\*' must be one layer's name; it is none, and matches \['shared'\]"),
    ],
)
def test_an_embedding_that_is_no_layers_name_is_refused(embedding, text):
    with pytest.raises(ValueError, match=text):
        subject_of(SharedTwice(), "fc", embedding)


@pytest.mark.parametrize("lazy", [lambda: nn.LazyLinear(2), lambda: nn.LazyBatchNorm2d(affine=False)])
def test_layers_that_have_seen_no_image_ask_for_one(lazy):
    with pytest.raises(
        ValueError, match=r"'1\..* of Sequential do not exist yet.* call the model once on a batch before"
    ):
        subject_of(nn.Sequential(nn.Linear(2, 2), lazy()))
