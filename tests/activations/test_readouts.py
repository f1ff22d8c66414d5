import math
from dataclasses import replace

import pytest
import torch
from support.activations import normal

from kornia_lightning_probe.activations.readouts import readouts_of
from kornia_lightning_probe.activations.site import Site


def pooled_of(shape):
    """The pooled readouts of a layer by their names' endings."""
    site = Site("layer", 3, shape, is_embedding=True)
    return {
        one.site.name.removeprefix("layer"): one for one in readouts_of(site) if one.site.representation == "pooled"
    }


@pytest.mark.parametrize("kind", ["input", "layer", "output"])
@pytest.mark.parametrize("shape", [(), (5,), (10, 4), (3, 8, 8)])
def test_the_activation_itself_is_always_read_in_batches_of_any_size(kind, shape):
    site = Site("layer", 3, shape, kind)
    first = next(readouts_of(site))
    x = normal(2, *shape)
    assert first.site is site
    assert first.take(x) is x
    assert first.site.representation == "activation"


def test_an_output_is_read_as_it_is_only():
    assert len(list(readouts_of(Site("output", 4, (3, 8, 8), "output")))) == 1


@pytest.mark.parametrize(
    ("shape", "names", "features"),
    [
        ((), [""], (1,)),  # one number for each image
        ((7,), [""], (7,)),
        ((3, 8, 8), [""], (3,)),  # channels first
        ((8, 8, 8), [""], (8,)),  # as many channels as rows: channels first
        ((3, 5, 9), [""], (3,)),  # rectangular
        ((3, 4, 5, 6), [""], (3,)),  # volumes and clips
        ((7, 7, 96), [""], (96,)),  # channels last, as in a Swin
        ((10, 4), [":cls", ":patch"], (4,)),  # 1 + 3 x 3 tokens
        ((197, 4), [":cls", ":patch"], (4,)),  # 1 + 14 x 14 tokens
        ((16, 4), [""], (4,)),  # a grid without a class token
        ((12, 4), [""], (4,)),
        ((2, 4), [""], (4,)),  # 1 + 1: too few for a grid
    ],
)
def test_pooled_features_are_one_vector_of_the_layers_width(shape, names, features):
    pooled = pooled_of(shape)
    assert list(pooled) == names
    for readout in pooled.values():
        assert readout.take(torch.ones(2, *shape)).shape == (2, *features)
        assert readout.site.shape == features
        assert readout.site.source == shape
        assert readout.site.representation == "pooled"
        assert (readout.site.index, readout.site.is_embedding) == (3, True)


@pytest.mark.parametrize("shape", [(3, 2, 4), (3, 2, 2, 2)])
def test_a_map_is_read_by_the_mean_of_each_channel(shape):
    # Channel c holds c everywhere but for one cell that is 1 higher: its mean is c + 1/cells.
    x = torch.arange(3.0).view(3, *[1] * (len(shape) - 1)).expand(2, *shape).clone()
    x.flatten(2)[:, :, 0] += 1
    cells = x[0, 0].numel()
    torch.testing.assert_close(pooled_of(shape)[""].take(x), (torch.arange(3.0) + 1 / cells).expand(2, 3))


def test_a_map_with_its_channels_last_is_read_by_the_mean_of_each_channel():
    x = normal(2, 7, 7, 5)
    torch.testing.assert_close(pooled_of((7, 7, 5))[""].take(x), pooled_of((5, 7, 7))[""].take(x.permute(0, 3, 1, 2)))


def test_a_rolled_map_and_reordered_tokens_have_the_same_pooled_features():
    maps, tokens = normal(2, 3, 6, 4), normal(2, 12, 5)
    read_map, read_tokens = pooled_of((3, 6, 4))[""].take, pooled_of((12, 5))[""].take
    torch.testing.assert_close(read_map(maps.roll((1, 2), (2, 3))), read_map(maps))
    torch.testing.assert_close(read_tokens(tokens.flip(1)), read_tokens(tokens))


def test_a_class_token_is_read_apart_from_the_patches():
    # Token t holds t: the class token is 0, the mean of patches 1 to 9 is 5.
    tokens = torch.arange(10.0).view(1, 10, 1).expand(2, 10, 4)
    pooled = pooled_of((10, 4))
    assert torch.equal(pooled[":cls"].take(tokens), torch.zeros(2, 4))
    assert torch.equal(pooled[":patch"].take(tokens), torch.full((2, 4), 5.0))


@pytest.mark.parametrize("shape", [(), (5,), (10, 4), (9, 4), (3, 8, 8), (8, 8, 3)])
def test_what_outlives_the_forward_pass_has_memory_of_its_own(shape):
    # An in-place operation that follows would otherwise overwrite it.
    activation = torch.rand(2, *shape)
    for readout in readouts_of(Site("layer", 1, shape)):
        taken = readout.take(activation)
        before = taken.clone()
        activation += 1.0
        assert torch.equal(taken, before) is (readout.site.representation != "activation")


def mean_of(shape):
    """The readouts over all tokens of a sequence with a class token, and only there."""
    return [one for one in readouts_of(Site("layer", 3, shape)) if one.site.representation == "mean"]


def test_a_sequence_with_a_class_token_is_read_by_the_mean_over_all_its_tokens_too():
    # Token t holds t: of 0 to 9 the mean is 4.5, the class token included.
    (readout,) = mean_of((10, 4))
    tokens = torch.arange(10.0).view(1, 10, 1).expand(2, 10, 4)
    assert torch.equal(readout.take(tokens), torch.full((2, 4), 4.5))
    assert (readout.site.name, readout.site.part, readout.site.source) == ("layer", "", (10, 4))


@pytest.mark.parametrize("shape", [(), (5,), (9, 4), (3, 8, 8), (8, 8, 3), (3, 4, 5, 6)])
def test_all_else_has_one_mean_which_is_its_pooled_form(shape):
    assert mean_of(shape) == []


@pytest.mark.parametrize("shape", [(), (5,), (10, 4), (9, 4), (3, 8, 8), (8, 8, 3), (3, 4, 5, 6)])
@pytest.mark.parametrize("is_wide", [False, True])
def test_what_is_put_into_memory_is_what_is_taken_once_it_is_settled(shape, is_wide):
    activation = normal(5, *shape, dtype=torch.float32)
    for readout in readouts_of(Site("layer", 1, shape)):
        if readout.site.representation == "activation":
            continue
        chosen = replace(readout, is_wide=is_wide)
        taken = chosen.take(activation)
        memory = torch.full_like(taken, torch.nan)
        chosen.put(activation, memory)
        assert torch.equal(chosen.settle(memory), taken)


def test_a_wide_readout_keeps_the_digits_of_a_mean_over_many_cells():
    # Cells of 1000 + k / 1024 have a mean that float32 sums can't hold.
    cells = (1000 + torch.arange(4096.0) / 1024).view(1, 1, 64, 64)
    (narrow,) = pooled_of((1, 64, 64)).values()
    wide = replace(narrow, is_wide=True)
    assert wide.take(cells).item() == cells.double().mean().item()
    assert wide.take(cells).dtype == torch.float64


def test_what_holds_rounding_only_is_taken_as_nothing():
    (readout,) = pooled_of((2, 4, 4)).values()
    assert not replace(readout, is_nothing=True).take(normal(3, 2, 4, 4)).any()


# Rounding.


def rounding(maps, dtype=None):
    (readout,) = [r for r in readouts_of(Site("conv", 1, tuple(maps.shape[1:]))) if r.site.representation == "pooled"]
    found = readout.rounding(maps, dtype or maps.dtype)
    return None if found is None else tuple(map(float, found))


def test_rounding_is_that_of_float32_beside_the_distance_of_means_from_their_own():
    # Means of 0 and 2 beside 1: |means| = 2, apart by sqrt(2); |cells| = 2 sqrt(4) over sqrt(4) of them is 2 as well.
    maps = torch.tensor([0.0, 2.0]).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    eps = torch.finfo(torch.float32).eps
    assert rounding(maps) == pytest.approx((eps / 2 * 2 / 2**0.5, 8 * eps * 2 / 2**0.5))


def test_rounding_of_double_precision_is_its_own():
    maps = normal(4, 3, 5, 5)
    share = torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps
    assert rounding(maps) == pytest.approx([share * part for part in rounding(maps.float())], rel=1e-5)


def test_a_mean_of_nothing_but_the_rounding_of_half_precision_is_told_from_one_that_is_large():
    # Cells of 1 and -1: their mean is rounding. With 1 added to all of them it is not, whatever they differ by.
    cells = torch.tensor([1.0, -1.0]).repeat(8).view(1, 1, 4, 4)
    shift = 1e-3 * torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1)
    around_zero, around_one = (rounding(cells + shift + mean, torch.bfloat16)[1] for mean in (0.0, 1.0))
    assert around_zero > 1 > around_one


def test_rounding_leaves_out_images_that_are_not_finite():
    maps = normal(4, 3, 5, 5, dtype=torch.float32)
    spoilt = torch.cat([maps, torch.full((1, 3, 5, 5), torch.nan)])
    assert rounding(spoilt) == pytest.approx(rounding(maps))


def test_of_one_image_all_digits_count_and_nothing_is_known_of_others():
    assert rounding(normal(1, 3, 5, 5, dtype=torch.float32)) == (math.inf, 0.0)


def test_there_is_no_rounding_where_nothing_is_averaged():
    assert rounding(normal(4, 3, dtype=torch.float32)) is None
