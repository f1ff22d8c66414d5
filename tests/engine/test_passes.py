from dataclasses import replace

import pytest
import torch
from support.nets import AlwaysDropout, Composed, InPlace, LeftAndRight, SequenceFirst, SmallCNN, hooks
from support.probing import images_of, plain_bank, run, same
from support.scouting import scouting, subject_of
from torch import nn

from kornia_lightning_probe.engine.passes import Forward, ignore, room_for
from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.randomness import isolated_rng

IMAGES = images_of(40)


def test_an_in_place_relu_behind_a_layer_changes_none_of_its_numbers():
    net = InPlace()
    expected = run(net, IMAGES, plain_bank(), layers=["conv", "fc"])
    net.relu = nn.ReLU(inplace=False)
    same(run(net, IMAGES, plain_bank(), layers=["conv", "fc"]), expected)


def test_a_model_that_writes_into_its_input_does_not_write_into_the_probe_images():
    # Many models normalise in their forward; the same arithmetic in place must give the same numbers.
    def normalised(x, features):
        return features

    class Normalises(nn.Module):
        def __init__(self, *, in_place):
            super().__init__()
            self.net, self.in_place = Composed(normalised), in_place

        def forward(self, x):
            return self.net(x.sub_(0.4).div_(0.3) if self.in_place else (x - 0.4) / 0.3)

    net = Normalises(in_place=False)
    expected = run(net, IMAGES, plain_bank(), layers=["net.conv", "net.head"])
    net.in_place = True
    for batch_size in (32, 7):
        result = run(net, IMAGES, plain_bank(), layers=["net.conv", "net.head"], batch_size=batch_size)
        assert result.metadata["noise_floor"] == 0
        same(result, expected, rtol=1e-5, atol=0)


def untold(tokens):
    """The same numbers, in which nobody can follow where the images are."""
    return torch.from_numpy(tokens.numpy().copy())


def test_a_sequence_as_long_as_the_first_block_is_left_out_as_soon_as_it_gives_itself_away():
    class Untold(SequenceFirst):
        def forward(self, x):
            return self.head(self.tokens(untold(self.conv(x).flatten(2).permute(2, 0, 1))).mean(0))

    # 4 x 4 cells are 16 tokens in front of 16 images; in company, or merged with a second view, these are others.
    with_merging = run(Untold(), images_of(16, size=6), plain_bank(), layers=nn.Linear, batch_size=64)
    assert with_merging.layers == ("head",)
    # 17 images and then 16: the tokens fit the second block only.
    with_blocks = run(Untold(), images_of(33, size=6), plain_bank(), layers=nn.Linear)
    assert with_blocks.layers == ("head",)


def test_a_layer_that_runs_on_later_images_only_is_left_out_with_the_reason():
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.always, self.rare, self.calls = nn.Flatten(), nn.Flatten(), 0

        def forward(self, x):
            self.calls += 1
            return self.rare(x) if self.calls > 6 else self.always(x)

    net = nn.Sequential(Sometimes(), nn.Linear(432, 2))
    result = run(net, IMAGES, plain_bank(), layers=["re:.*(always|rare)", "1"])
    assert result.metadata["left_out"]["0.rare"] in (
        "it did not run in the model's forward",
        "it ran on some images only, and not on the first block",
    )
    # The second block of 20 images never reached `always`.
    assert set(result.table("sensitivity").num_images[:, 1].tolist()) == {20}


@pytest.mark.parametrize("metrics", [["sensitivity"], ["spread"]])
def test_a_layer_whose_size_depends_on_the_view_is_an_error_where_it_was_named_and_left_out_otherwise(metrics):
    class Cropping(nn.Module):
        def __init__(self):
            super().__init__()
            self.crop, self.flat = nn.Identity(), nn.Flatten()

        def forward(self, x):
            return self.flat(self.crop(x if x.mean() > 0.4 else x[..., ::2, ::2]).mean((2, 3)))

    text = r"it gave \(3, 6, 6\) for each image and \(3, 12, 12\) for others before"
    with pytest.raises(ValueError, match=f"layer 'crop': {text}.*leave it out"):
        run(Cropping(), IMAGES, plain_bank(), layers=["crop"], metrics=metrics)
    result = run(Cropping(), IMAGES, plain_bank(), layers="*", metrics=metrics)
    assert result.layers == ("flat",)
    assert result.metadata["left_out"]["crop"].startswith("it gave (3, 6, 6) for each image and (3, 12, 12)")
    assert "crop" not in result.table(metrics[0]).layers


# The model with its hooks open.


def block_of(images=IMAGES):
    return ProbeImages(images).scout


def test_hooks_live_from_entering_to_leaving_also_after_an_exception():
    net = SmallCNN()
    with Forward(subject_of(net), seed=0):
        assert hooks(net) > 0
    assert hooks(net) == 0
    with pytest.raises(RuntimeError, match="stop here"), Forward(subject_of(net), seed=0):
        raise RuntimeError("stop here")
    assert hooks(net) == 0


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
def test_the_default_dtype_is_float32_but_for_the_forward_where_it_is_the_callers(default):
    seen = {}

    def forward(x):
        seen["forward"] = torch.get_default_dtype()
        return net(x)

    def sink(name, activation):
        seen[name] = torch.get_default_dtype()

    net = SmallCNN()
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        with Forward(subject_of(net, forward=forward), seed=0) as passes:
            passes.run(block_of(), block_of().images[0], sink, draw="clean")
            seen["around"] = torch.get_default_dtype()
        assert torch.get_default_dtype() == default
    finally:
        torch.set_default_dtype(before)
    assert seen.pop("forward") == default
    assert set(seen.values()) == {torch.float32}


def test_autocast_of_a_forward_is_off_where_its_activations_are_received():
    seen = []

    def sink(name, activation):
        seen.append(torch.is_autocast_enabled("cpu"))

    net = SmallCNN()
    with Forward(subject_of(net), seed=0) as passes, torch.autocast("cpu", torch.bfloat16):
        passes.run(block_of(), block_of().images[0], sink, draw="clean")
    assert not any(seen)


def test_a_pass_finds_the_random_stream_of_its_block_and_its_draw():
    net = AlwaysDropout()
    with isolated_rng(), Forward(subject_of(net), seed=0) as passes:

        def result(draw, index=0):
            block = replace(block_of(), index=index)
            return passes.run(block, block.images[0], ignore, draw=draw)

        first = result("clean")
        torch.rand(3)
        assert torch.equal(result("clean"), first)
        assert not torch.equal(result("halve"), first)
        assert not torch.equal(result("clean", index=1), first)


def test_several_entries_are_the_pixels_side_by_side():
    net = LeftAndRight()
    images, others = images_of(4), images_of(4, seed=1)
    block = ProbeImages((images, others), image_keys=(0, 1)).scout
    kept = {}
    with Forward(subject_of(net, forward=lambda pair: net(*pair)), seed=0) as passes:
        passes.run(block, block.inputs, kept.__setitem__, draw="clean")
    expected = torch.cat([entry.flatten(1) for entry in block.images], 1)
    assert torch.equal(kept["input"], expected)


# Memory of clean activations.


def test_clean_activations_are_copies_whose_memory_is_used_again():
    with scouting(SmallCNN(), images_of(40)) as (scouted, passes):
        first = passes.keep_clean(scouted.block)
        assert first.keys() == scouted.activations.keys()
        again = passes.keep_clean(scouted.block.first(10), instead_of=first)
        for name, activation in again.items():
            assert activation.data_ptr() == first[name].data_ptr()
            torch.testing.assert_close(activation, scouted.activations[name][:10], rtol=1e-5, atol=1e-6)


def test_half_precision_is_kept_as_float32():
    net = SmallCNN().bfloat16()
    with scouting(net, images_of(4), forward=lambda x: net(x.bfloat16())) as (scouted, passes):
        for found in (scouted.activations, passes.keep_clean(scouted.block)):
            assert {activation.dtype for activation in found.values()} == {torch.float32}


@pytest.mark.parametrize(
    "old", [torch.zeros(3, 5), torch.zeros(9, 6), torch.zeros(9, 5, dtype=torch.float64), None], ids=range(4)
)
def test_memory_that_does_not_fit_is_not_used(old):
    activation = torch.ones(2, 5)
    room = room_for(activation, 4, old)
    assert (room.shape, room.dtype) == ((4, 5), torch.float32)
    assert old is None or room.data_ptr() != old.data_ptr()


def test_memory_for_more_rows_has_the_layout_of_those_that_came():
    activation = torch.ones(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    assert room_for(activation, 5).is_contiguous(memory_format=torch.channels_last)
    assert room_for(activation.contiguous(), 5).is_contiguous()
