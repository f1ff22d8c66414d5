import pytest
import torch
from support.activations import normal

from kornia_lightning_probe.activations.readouts import (
    SMALL,
    readouts_of,
    split_by_views,
)
from kornia_lightning_probe.metrics import CentredCosine, Readout, RetrievalAUC, Site


def pooled_of(shape):
    """The pooled readouts of a layer by their names' endings."""
    site = Site("layer", 3, shape, is_embedding=True)
    return {one.site.name.removeprefix("layer"): one for one in readouts_of(site) if one.whole}


@pytest.mark.parametrize("kind", ["input", "layer", "output"])
@pytest.mark.parametrize("shape", [(), (5,), (10, 4), (3, 8, 8)])
def test_the_activation_itself_is_always_read_in_batches_of_any_size(kind, shape):
    site = Site("layer", 3, shape, kind)
    first = next(readouts_of(site))
    x = normal(2, *shape)
    assert first.site is site
    assert first.take(x) is x
    assert not first.whole


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
        assert torch.equal(taken, before) is readout.whole


def test_a_readout_begins_without_metrics_of_its_own():
    site = Site("layer", 1, (4,))
    first, second = (Readout(site, torch.clone, whole=False) for _ in range(2))
    first.metrics.append("a metric")
    assert not second.metrics


def test_metrics_that_take_several_views_are_read_apart_from_the_others():
    class Turned(CentredCosine):
        name = "turned"

        def measure(self, clean, augmented, about):
            return super().measure(clean, augmented, about)

    # A class with a measure of its own may look at about.view, so it is asked about one view at a time.
    merging, alone = CentredCosine(), Turned()
    small, large = (
        split_by_views(Readout(Site("layer", 1, shape), torch.clone, whole=False, metrics=[merging, alone]))
        for shape in ((SMALL,), (SMALL + 1,))
    )
    assert [(readout.whole, readout.metrics) for readout in small] == [(True, [merging]), (False, [alone])]
    # At large ones nothing is kept but the distances that the first one asks for.
    assert [(readout.distances, readout.metrics) for readout in large] == [
        (("squared_distance", "squared_deviation"), [merging]),
        ((), [alone]),
    ]
    assert not any(readout.whole for readout in large)


@pytest.mark.parametrize("size", [SMALL, SMALL + 1])
def test_a_metric_that_must_see_whole_blocks_does_at_any_size(size):
    metric = RetrievalAUC()
    (found,) = split_by_views(Readout(Site("layer", 1, (size,)), torch.clone, whole=False, metrics=[metric]))
    assert (found.whole, found.distances, found.metrics) == (True, (), [metric])


def test_a_measure_of_ones_own_inherits_no_promise_that_it_must_see_whole_blocks():
    class Own(RetrievalAUC):
        def measure(self, clean, augmented, about):
            return super().measure(clean, augmented, about)

    assert not Own.whole_blocks
    with pytest.raises(TypeError, match=r"Alone says that its measure needs whole_blocks.* must say merges_views"):

        class Alone(RetrievalAUC):
            whole_blocks = True

            def measure(self, clean, augmented, about):
                return super().measure(clean, augmented, about)


def test_a_measure_of_ones_own_inherits_no_promise_about_what_it_needs():
    class Own(CentredCosine):
        merges_views = True

        def measure(self, clean, augmented, about):
            return super().measure(clean, augmented, about)

    class Renamed(CentredCosine):
        name = "renamed"

    assert (Own.merges_views, Own.distances) == (True, ())
    assert Renamed.distances == CentredCosine.distances == ("squared_distance", "squared_deviation")
    with pytest.raises(TypeError, match="several views at once and must say merges_views = True"):

        class Alone(CentredCosine):
            distances = ("squared_distance",)

            def measure(self, clean, augmented, about):
                return super().measure(clean, augmented, about)
