"""Features of all images against what the model gives for them at once; nothing of the model is left changed."""

import pytest
import torch
from support.nets import ViT
from support.probing import images_of, streams
from torch import nn

from kornia_lightning_probe.engine import features as features_module
from kornia_lightning_probe.engine.features import collect_features
from kornia_lightning_probe.engine.memory import PassSize
from kornia_lightning_probe.engine.processes import OtherRankError, World
from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.model.layers import exact_names, select_layers
from kornia_lightning_probe.model.subject import Subject

CPU = torch.device("cpu")
ALONE = World()


def conv_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5)
    )


def collect(model, inputs, *, layers="auto", embedding=None, forward=None, world=ALONE, batch_size=32, **options):
    subject = Subject(
        model, forward or model, select_layers(model, layers), CPU, exact_names(model, layers), embedding=embedding
    )
    images = ProbeImages(inputs, rank=world.rank, world_size=world.size)
    return collect_features(subject, images, world=world, size=PassSize(batch_size), **options)


def in_order(inputs):
    """The images by their number in the tables."""
    return inputs[torch.tensor(ProbeImages(inputs).image_ids)]


def test_rows_are_the_spatial_means_of_each_image_in_order():
    net, inputs = conv_net(), images_of(70)
    found = collect(net, inputs, layers=["0", "4"])
    with torch.no_grad():
        maps = net[0](in_order(inputs)).double()
        logits = net(in_order(inputs)).double()
    torch.testing.assert_close(found.clean.tables["0"], maps.mean((2, 3)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.clean.tables["4"], logits, rtol=1e-5, atol=1e-6)
    assert {table.dtype for table in found.clean.tables.values()} == {torch.float64}
    assert found.clean.layers == ("0", "4")


@pytest.mark.parametrize("batch_size", [1, 7, 32, 500])
def test_the_batch_size_changes_nothing(batch_size):
    net, inputs = conv_net(), images_of(41)
    expected = collect(net, inputs)
    found = collect(net, inputs, batch_size=batch_size)
    for name, table in expected.clean.tables.items():
        torch.testing.assert_close(found.clean.tables[name], table, rtol=1e-5, atol=1e-6)
    assert found.findings.facts["content_hash"] == expected.findings.facts["content_hash"]


def test_large_activations_are_read_a_few_images_at_a_time(monkeypatch):
    net, inputs = conv_net(), images_of(20)
    expected = collect(net, inputs)
    monkeypatch.setattr(features_module, "_PIECE", 500)
    found = collect(net, inputs)
    for name, table in expected.clean.tables.items():
        assert torch.equal(found.clean.tables[name], table)


def test_a_mean_over_many_cells_is_taken_in_float64():
    # Cells of 1000 + k / 1024 have a mean that float32 sums can't hold.
    cells = 1000 + torch.arange(4096.0).view(1, 1, 64, 64) / 1024
    inputs = cells.expand(8, 3, 64, 64) + torch.arange(8.0).view(8, 1, 1, 1)
    net = nn.Sequential(nn.Identity(), nn.Identity())
    found = collect(net, inputs, layers=["0"])
    torch.testing.assert_close(found.clean.tables["0"], in_order(inputs).double().mean((2, 3)), rtol=1e-14, atol=0)


def test_flattened_features_are_the_whole_activation():
    net, inputs = conv_net(), images_of(9)
    found = collect(net, inputs, layers=["0"], flatten=True)
    with torch.no_grad():
        expected = net[0](in_order(inputs)).double().flatten(1)
    torch.testing.assert_close(found.clean.tables["0"], expected, rtol=1e-5, atol=1e-6)
    assert found.findings.facts["readout"] == "flattened"


def test_layers_too_large_to_be_flattened_are_pooled_and_named(monkeypatch):
    # 9 images x 16 features x 8 bytes fit, 9 x 400 x 8 don't.
    monkeypatch.setattr(features_module, "MOST_FLATTENED_BYTES", 2000)
    found = collect(conv_net(), images_of(9), layers=["0", "3"], flatten=True)
    assert {name: table.shape[1] for name, table in found.clean.tables.items()} == {"0": 4, "3": 16}
    (sentence,) = found.findings.warnings
    assert sentence.startswith("these layers were pooled although flatten=True")
    assert sentence.endswith(": 0")


def test_a_class_token_and_the_patches_have_a_table_each():
    torch.manual_seed(0)
    found = collect(ViT(2), images_of(8, size=16), layers=["blocks.0", "blocks.1", "head"], embedding="blocks.1")
    assert list(found.clean.tables) == ["blocks.0:cls", "blocks.0:patch", "blocks.1:cls", "blocks.1:patch", "head"]
    assert found.clean.layers == ("blocks.0", "blocks.1", "head")
    assert found.clean.embedding == "blocks.1:cls"


def test_the_embedding_is_the_last_layer_that_is_neither_the_output_nor_a_change_of_shape():
    net, inputs = conv_net(), images_of(8)
    assert collect(net, inputs, layers=["0", "2", "3", "4"]).clean.embedding == "2"
    assert collect(net, inputs, layers=["0", "2"]).clean.embedding == "2"
    assert collect(net, inputs, layers=["0", "3", "4"]).clean.embedding == "0"
    assert collect(net, inputs, layers=["4"]).clean.embedding == "4"


def test_an_unknown_embedding_is_an_error():
    with pytest.raises(ValueError, match=r"embedding='1' is none of the layers that gave an activation: \['0'\]"):
        collect(conv_net(), images_of(8), layers=["0"], embedding="1")


def test_a_layer_named_exactly_must_fire_and_another_is_left_out():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Flatten(), nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    with pytest.raises(ValueError, match=r"no activation came from 'unused' \(it did not run"):
        collect(Idle(), images_of(8), layers=["used", "unused"])
    found = collect(Idle(), images_of(8), layers="*used")
    assert found.clean.layers == ("used",)
    assert "unused" in found.findings.left_out


def test_an_activation_with_its_images_elsewhere_is_read_with_them_in_front():
    class ChannelsFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.turned, self.flat = nn.Identity(), nn.Flatten()

        def forward(self, x):
            return self.flat(self.turned(x.transpose(0, 1)).transpose(0, 1))

    inputs = images_of(8)
    found = collect(ChannelsFirst(), inputs, layers="*")
    assert found.clean.layers == ("turned", "flat")
    # As a map (C, H, W) of each image.
    torch.testing.assert_close(found.clean.tables["turned"], in_order(inputs).double().mean((2, 3)))


def test_an_activation_in_which_nobody_knows_the_images_is_left_out_and_named():
    class Untold(nn.Module):
        def __init__(self):
            super().__init__()
            self.turned, self.flat = nn.Identity(), nn.Flatten()

        def forward(self, x):
            self.turned(torch.from_numpy(x.transpose(0, 1).numpy().copy()))
            return self.flat(x)

    found = collect(Untold(), images_of(8), layers="*")
    assert found.clean.layers == ("flat",)
    assert "its first axis has 3 entries where 8 images went in" in found.findings.left_out["turned"]


def test_a_layer_that_runs_on_some_images_only_has_nan_for_the_others():
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.early, self.late = nn.Flatten(), nn.Identity()

        def forward(self, x):
            return self.late(self.early(x)) if len(x) == 17 else self.late(self.late(x))

    # 33 images are a block of 17, where one layer runs once, and one of 16, where the other runs twice.
    net = Sometimes()
    found = collect(net, images_of(33, size=1), layers="*", forward=lambda x: net(x.flatten(1)))
    assert found.clean.layers == ("early", "late")
    assert found.clean.tables["early"][:17].isfinite().all()
    assert found.clean.tables["early"][17:].isnan().all()
    assert found.clean.tables["late"].isfinite().all()
    assert found.findings.left_out["late.call2"] == "it ran on some images only, and not on the first block"


def test_activations_of_several_sizes_are_an_error():
    class Cropping(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, x):
            return self.layer(x.flatten(1)[:, : len(x)])

    with pytest.raises(
        ValueError, match=r"'layer': it gave \(16,\) for each image and \(17,\) for others before.*; leave it"
    ):
        collect(Cropping(), images_of(33), layers="layer")


def test_a_second_call_is_a_layer_of_its_own():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.flat, self.linear = nn.Flatten(), nn.Linear(432, 432)

        def forward(self, x):
            return self.linear(self.linear(self.flat(x)))

    torch.manual_seed(0)
    found = collect(Twice(), images_of(8), layers=["linear"])
    assert found.clean.layers == ("linear", "linear.call2")
    assert not torch.equal(found.clean.tables["linear"], found.clean.tables["linear.call2"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_activations_are_reduced_in_float64(dtype):
    net = nn.Sequential(nn.Identity(), nn.Flatten())
    inputs = images_of(8)
    found = collect(net, inputs, layers=["0"], forward=lambda x: net(x.to(dtype)))
    torch.testing.assert_close(
        found.clean.tables["0"], in_order(inputs).to(dtype).double().mean((2, 3)), rtol=1e-14, atol=0
    )
    assert found.findings.facts["activation_dtypes"] == [str(dtype).removeprefix("torch.")]


def test_autocast_is_the_models_own_business():
    net, inputs = conv_net(), images_of(8)

    def forward(x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return net(x)

    found = collect(net, inputs, forward=forward)
    assert "bfloat16" in found.findings.facts["activation_dtypes"]
    assert found.clean.tables["4"].dtype == torch.float64


def test_an_activation_that_is_not_finite_stays_in_its_row():
    inputs = images_of(8)
    inputs[3] = torch.inf
    found = collect(nn.Sequential(nn.Identity(), nn.Flatten()), inputs, layers=["0"])
    row = ProbeImages(inputs).image_ids.index(3)
    assert found.clean.tables["0"].isfinite().all(1).tolist() == [i != row for i in range(8)]


def test_the_model_is_left_as_it_was_also_after_an_exception():
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(), nn.Flatten(), nn.Linear(432, 2))
    net[1].eval()
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    before = streams()

    def fails(x):
        net(x)
        torch.rand(3)
        raise RuntimeError("the forward fails")

    collect(net, images_of(8))
    with pytest.raises(RuntimeError, match="the forward fails"):
        collect(net, images_of(8), forward=fails)
    assert streams() == before
    assert [module.training for module in net] == [True, False, True, True]
    assert not any(module._forward_hooks for module in net.modules())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in net.named_buffers())
    assert torch.is_grad_enabled()


def test_it_works_under_inference_mode():
    net, inputs = conv_net(), images_of(8)
    with torch.inference_mode():
        found = collect(net, inputs)
    assert not any(table.is_inference() for table in found.clean.tables.values())


def test_a_batch_size_below_one_is_an_error():
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        collect(conv_net(), images_of(8), batch_size=0)


def collect_on_all(size, net, inputs, *, lockstep=False, passes=None, **options):
    """The features on `size` simulated processes: all send what they would sum, then all receive the sum."""
    sent = []

    def send(tensor):
        sent.append(tensor.clone())
        return tensor

    def on(rank, add):
        def forward(x):
            if passes is not None:
                passes[rank] += 1
            return net(x)

        world = World(rank=rank, size=size, add=add, gather=lambda text: [text] * size, lockstep=lockstep)
        return collect(net, inputs, world=world, forward=forward, **options)

    for rank in range(size):
        on(rank, send)
    assert len(sent) == size
    total = torch.stack(sent).sum(0)
    return [on(rank, lambda _: total.clone()) for rank in range(size)]


@pytest.mark.parametrize("size", [2, 3, 5])
def test_unequal_shares_of_any_number_of_processes_give_the_same_tables_in_one_sum(size):
    # 100 images are four blocks, so that of five processes one owns none.
    net, inputs = conv_net(), images_of(100)
    expected = collect(net, inputs)
    for found in collect_on_all(size, net, inputs):
        assert found.clean.embedding == expected.clean.embedding
        assert found.findings.facts["content_hash"] == expected.findings.facts["content_hash"]
        for name, table in expected.clean.tables.items():
            assert torch.equal(found.clean.tables[name], table)


@pytest.mark.parametrize("batch_size", [32, 10])
def test_in_lockstep_all_processes_run_equally_many_passes(batch_size):
    # Of three blocks the first process has the scout, which all run; the others have one more.
    net, inputs, passes = conv_net(), images_of(70), [0, 0, 0]
    results = collect_on_all(3, net, inputs, lockstep=True, passes=passes, batch_size=batch_size)
    assert passes[0] == passes[1] == passes[2] > 0
    for name, table in collect(net, inputs, batch_size=batch_size).clean.tables.items():
        assert torch.equal(results[0].clean.tables[name], table)


def test_a_process_whose_forward_fails_says_so_to_the_others():
    said = []

    def gather(text):
        said.append(text)
        return [text]

    def fails(_):
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        collect(conv_net(), images_of(8), forward=fails, world=World(gather=gather))
    assert said == ["failed: RuntimeError: no memory"]


def test_processes_that_see_different_layers_all_raise():
    world = World(gather=lambda text: [text, "other layers"])
    with pytest.raises(OtherRankError, match="the processes differ in the layers that run"):
        collect(conv_net(), images_of(8), world=world)
