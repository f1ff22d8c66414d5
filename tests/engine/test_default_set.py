import math
import warnings

import kornia.augmentation as K  # noqa: N812 - the name that Kornia's own documentation uses
import pytest
import torch
import torch.distributed as dist
from support.activations import LAYER, measured, pair, prepared
from support.nets import ResNet, SmallCNN, ViT
from support.plain_measures import PLAIN
from support.probing import images_of, random_bank, run, run_on_all, same
from torch import nn

from kornia_lightning_probe import AugmentationBank, probe_model
from kornia_lightning_probe.engine.processes import World
from kornia_lightning_probe.metrics import resolve_metrics

POOLED = ["spread", "spread_ratio", "shared_shift", "channel_dominance", "channel_median"]
OUTPUT = ["flip_rate", "js_divergence", "accuracy", "accuracy_drop"]
OURS = ["sensitivity", "sensitivity_flat", "sensitivity_pooled", "cosine", *POOLED, "retrieval_auc", *OUTPUT]
# Float32 forwards of different batch sizes differ by 1e-6 relative; cosine and ratios near 0 by as much absolutely.
ROUNDING = {"rtol": 1e-4, "atol": 1e-5}

every_measure = pytest.mark.parametrize("name", PLAIN)


def metric_of(name):
    return resolve_metrics([name])[0]


# One block against the definitions.


class Layer(nn.Module):
    """Images as a layer puts them out that adds a mean: (C, H, W), (H, W, C), tokens, or tokens after a class token."""

    def __init__(self, layout, mean, dtype):
        super().__init__()
        self.layout, self.mean, self.dtype = layout, mean, dtype

    def forward(self, x):
        x = (x + self.mean).to(self.dtype)
        if self.layout == "map":
            return x
        if self.layout == "channels last":
            return x.permute(0, 2, 3, 1)
        tokens = x.flatten(2).transpose(1, 2)
        return tokens if self.layout == "tokens" else torch.cat([tokens[:, :1], tokens], 1)


# At 1000, bfloat16 has steps of 4, and all images are the same.
@pytest.mark.parametrize(
    ("mean", "dtype"),
    [*((mean, torch.float32) for mean in (0, 10, 100, 1000)), *((mean, torch.bfloat16) for mean in (0, 10, 100))],
)
@pytest.mark.parametrize("layout", ["map", "channels last", "tokens", "class and tokens"])
def test_pooled_features_keep_what_images_differ_by_however_large_the_mean(layout, dtype, mean):
    images = torch.rand(31, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    bank = AugmentationBank({"darker": lambda x: 0.7 * x})
    result = probe_model(nn.Sequential(Layer(layout, mean, dtype)), images, bank, layers=["0"])
    layer, pooled = Layer("map", mean, dtype), "0:patch" if layout == "class and tokens" else "0"
    clean, augmented = (layer(x).double().mean((2, 3)) for x in (images, 0.7 * images))
    # Up to 1e-5 of the distance between images is lost to rounding by choice; the view moves them by several times it.
    assert result.value("sensitivity_pooled", pooled) == pytest.approx(
        PLAIN["sensitivity"](clean, augmented).item(), rel=1e-5
    )
    assert result.value("spread", pooled) == pytest.approx(PLAIN["spread"](clean, augmented).item(), rel=1e-5)


def test_pooled_features_keep_their_digits_beside_an_image_that_is_not_finite():
    images = torch.rand(31, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    images[3] = 0.0

    class Breaking(Layer):
        def forward(self, x):
            return super().forward(torch.where(x.flatten(1).any(1).view(-1, 1, 1, 1), x, torch.nan))

    bank = AugmentationBank({"darker": lambda x: 0.7 * x})
    with pytest.warns(UserWarning, match="not finite"):
        result = probe_model(nn.Sequential(Breaking("map", 1000, torch.float32)), images, bank, layers=["0"])
    others = torch.cat([images[:3], images[4:]])
    clean, augmented = ((x + 1000).double().mean((2, 3)) for x in (others, 0.7 * others))
    assert result.value("sensitivity_pooled", "0") == pytest.approx(
        PLAIN["sensitivity"](clean, augmented).item(), rel=1e-5
    )


# Standard errors.


# In a probe.


def views():
    """A move, two photometric views and a random one."""
    return AugmentationBank(
        {
            "hflip": K.RandomHorizontalFlip(p=1.0),
            "darken": {0.2: K.RandomBrightness((0.8, 0.8), p=1.0), 0.5: K.RandomBrightness((0.5, 0.5), p=1.0)},
            "noise": K.RandomGaussianNoise(std=0.1, p=1.0),
        }
    )


def cnn(**options):
    torch.manual_seed(0)
    return SmallCNN(width=16, **options)


CNN_LAYERS = ["block1", "block2", "head"]


def test_everything_that_applies_to_a_classifier_is_measured_by_default():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "one channel holds more")
        result = probe_model(cnn(), images_of(40, size=16), views(), layers=CNN_LAYERS, labels=[0, 1] * 20)
    found = {name: result.table(name).layers for name in result.metrics}
    everywhere = ("input", *CNN_LAYERS)
    assert {name: found[name] for name in OURS} == {
        "sensitivity": everywhere,
        "sensitivity_flat": everywhere,
        "sensitivity_pooled": ("input", "block1", "block2"),
        "cosine": everywhere,
        "spread": everywhere,
        "spread_ratio": everywhere,
        "shared_shift": everywhere,
        "channel_dominance": ("block1", "block2"),
        "channel_median": ("block1", "block2"),
        # The head is the output itself.
        "retrieval_auc": ("block2",),
        **dict.fromkeys(OUTPUT, ("output",)),
    }
    assert not set(OURS) & set(result.metadata.get("metrics_left_out", {}))
    for name in OURS:
        assert result.tensor(name).isfinite().all()
        assert (result.table(name).num_images == 40).all()
        has_error = name not in ("channel_dominance", "channel_median")
        assert result.table(name).std_error.isfinite().all() == has_error


def test_what_does_not_apply_is_named_in_the_metadata():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 8), nn.ReLU(), nn.Linear(8, 1))
    result = probe_model(net, images_of(10), views(), layers=["1", "3"])
    named = {name for name in result.metadata["metrics_left_out"] if name in OURS}
    # The pixels are a map; fewer than 16 channels, one number for an output, no labels.
    assert named == {"channel_dominance", "channel_median", *OUTPUT}
    assert "one number for each image" in result.metadata["left_out"]["output"]
    assert not named & set(result.metrics)


def test_a_class_token_and_the_patches_have_rows_of_their_own():
    torch.manual_seed(0)
    # The image's 16 patches behind a class token.
    result = run(ViT(2), images_of(10, size=16), views(), layers=["patch_embed", "blocks.0", "norm"], metrics=None)
    rows = ("input", "patch_embed", "blocks.0:cls", "blocks.0:patch", "norm:cls", "norm:patch")
    assert result.table("sensitivity_pooled").layers == rows
    assert result.table("spread_ratio").layers == rows
    assert result.table("sensitivity").layers == ("input", "patch_embed", "blocks.0", "norm")
    index = {row.layer: row.layer_index for row in result.rows if row.metric == "spread"}
    assert index["norm:cls"] == index["norm:patch"] == 3
    assert result.layers == ("patch_embed", "blocks.0", "norm")


@pytest.mark.parametrize(
    ("model", "layers"), [(cnn, CNN_LAYERS), (ViT, ["blocks.0", "norm", "head"])], ids=["CNN", "ViT"]
)
@pytest.mark.parametrize("batch_size", [1, 7, 33, 100])
def test_the_batch_size_does_not_matter(model, layers, batch_size):
    torch.manual_seed(0)
    net, images = model(), images_of(33, size=16)
    ours = [metric_of(name) for name in OURS if name not in ("accuracy", "accuracy_drop")]
    expected = run(net, images, random_bank(), layers=layers, metrics=ours)
    same(run(net, images, random_bank(), layers=layers, metrics=ours, batch_size=batch_size), expected, **ROUNDING)


def test_a_view_reads_the_same_alone_as_among_others():
    net, images = cnn(), images_of(33, size=16)
    together = run(net, images, views(), layers=CNN_LAYERS, metrics=None)
    ladders = {
        "hflip": K.RandomHorizontalFlip(p=1.0),
        "noise": K.RandomGaussianNoise(std=0.1, p=1.0),
    }
    for name, transform in ladders.items():
        alone = run(net, images, AugmentationBank({name: transform}), layers=CNN_LAYERS, metrics=None)
        for metric in alone.metrics:
            pair_of = [
                result.tensor(metric)[at] for result, at in ((alone, 0), (together, 0 if name == "hflip" else 3))
            ]
            torch.testing.assert_close(*pair_of, equal_nan=True, **ROUNDING)


@pytest.mark.parametrize("count", [2, 4, 31, 33])
def test_few_images_and_blocks_of_unequal_size_have_finite_values(count):
    result = run(cnn(), images_of(count, size=16), views(), layers=CNN_LAYERS, metrics=None)
    for name in set(OURS) - {"accuracy", "accuracy_drop"}:
        assert result.tensor(name).isfinite().all(), name
        assert (result.table(name).num_images == count).all()


class Breaks(nn.Module):
    """Two layers; between them the features of an image that is black become infinite."""

    def __init__(self):
        super().__init__()
        self.before, self.after, self.head = nn.Conv2d(3, 16, 3), nn.Identity(), nn.Linear(16, 4)

    def forward(self, x):
        features = self.before(x)
        black = x.flatten(1).amax(1) == 0
        return self.head(self.after(torch.where(black.view(-1, 1, 1, 1), math.inf, features)).mean((2, 3)))


def blackens_one(x):
    """Halves, but the image whose first pixel is zero becomes black."""
    return torch.where(x[:, :1, :1, :1] == 0, 0.0, x / 2)


def brightens(x):
    return x / 2 + 0.5


def broken(which, images=None):
    """A probe of 33 images, of which image 20 is not finite in no view, in one view, or without a view."""
    torch.manual_seed(0)
    images = images_of(33)
    images[20, :, 0, 0] = 0.0
    if which == "clean":
        images[20] = 0.0
    halve = blackens_one if which == "one view" else (lambda x: x / 2)
    bank = AugmentationBank({"bright": brightens, "halve": halve})
    return Breaks(), images, bank


def values(result, view=None, layers=None):
    """All values by metric, layer and view."""
    found = {(r.metric, r.layer, r.augmentation): (r.value, r.num_images) for r in result.rows if r.metric in OURS}
    return {k: v for k, v in found.items() if (not view or k[2] == view) and (not layers or k[1] in layers)}


def test_an_image_that_is_not_finite_in_one_view_leaves_all_other_cells_unharmed():
    net, images, bank = broken("none")
    whole = run(net, images, bank, layers=["before", "after", "head"], metrics=None, embedding="after")
    _, images, bank = broken("one view")
    result = run(net, images, bank, layers=["before", "after", "head"], metrics=None, embedding="after")
    # To the last bit, but for the view's pixels and the layer before, where one image is another and finite.
    assert values(result, "bright") == values(whole, "bright")
    hurt = values(result, "halve", ["after", "head", "output"])
    assert len(hurt) > 10
    same_under_all_views = {"spread", "channel_dominance"}
    for (metric, layer, _), (value, count) in hurt.items():
        assert math.isfinite(value), (metric, layer)
        assert count == (33 if metric in same_under_all_views else 32), (metric, layer)
        if metric in same_under_all_views:
            assert value == values(whole)[metric, layer, "halve"][0]
    assert all(count == 33 for _, count in values(result, "halve", ["input", "before"]).values())
    assert result.metadata["non_finite"] == {"after": [20], "head": [20]}
    (sentence,) = [text for text in result.metadata["warnings"] if "not finite" in text]
    assert "after, head (images 20 of the source)" in sentence


def test_an_image_that_is_not_finite_without_a_view_is_masked_counted_and_named():
    net, images, bank = broken("clean")
    result = run(net, images, bank, layers=["before", "after", "head"], metrics=None, embedding="after")
    for (metric, layer, _), (value, count) in values(result).items():
        assert math.isfinite(value), (metric, layer)
        assert count == (33 if layer in ("input", "before") else 32), (metric, layer)
    assert result.metadata["non_finite"] == {"after": [20], "head": [20]}
    assert result.metadata["non_finite_cells"] == 2 * 2


@pytest.mark.parametrize("which", ["none", "one view", "clean"])
def test_simulated_ranks_of_unequal_shares_agree_with_one(which):
    net, images, bank = broken(which)
    alone, *ranks = (
        result
        for size in (1, 3)
        for result in run_on_all(size, net, images, bank, layers=["before", "after", "head"], metrics=None)
    )
    for result in ranks:
        same(result, alone)
        assert result.metadata.get("non_finite") == alone.metadata.get("non_finite")


def on_rank():
    """A probe of 70 images in 3 blocks of which this rank owns two or one; an image of one rank is not finite."""

    def add(tensor):
        dist.all_reduce(tensor)
        return tensor

    def gather(text):
        texts = [None] * dist.get_world_size()
        dist.all_gather_object(texts, text)
        return texts

    torch.manual_seed(0)
    images = images_of(70)
    images[40] = 0.0
    world = (
        World(rank=dist.get_rank(), size=dist.get_world_size(), add=add, gather=gather)
        if dist.is_initialized()
        else None
    )
    bank = AugmentationBank({"bright": brightens})
    return run(Breaks(), images, bank, layers=["before", "after", "head"], metrics=None, world=world)


def test_two_processes_of_unequal_shares_agree_with_one(gloo):
    alone = on_rank()
    assert alone.metadata["non_finite"] == {"after": [40], "head": [40]}
    for result in gloo(2)(on_rank):
        same(result, alone)
        assert result.metadata["non_finite"] == alone.metadata["non_finite"]


class Collapsed(nn.Module):
    """Features that are the same for all images, up to a zero-initialised head."""

    def __init__(self):
        super().__init__()
        self.conv, self.dead, self.head = nn.Conv2d(3, 16, 3), nn.Identity(), nn.Linear(16, 4)
        nn.init.zeros_(self.head.weight)

    def forward(self, x):
        return self.head(self.dead(self.conv(x).mean((2, 3)) * 0 + 0.1))


def test_a_dead_layer_is_named_and_never_a_number_where_images_are_compared():
    result = run(Collapsed(), images_of(33), views(), layers=["conv", "dead", "head"], metrics=None, embedding="dead")
    assert result.metadata["dead_layers"] == ["dead", "head"]
    for name in ("sensitivity", "cosine", "spread_ratio", "shared_shift"):
        table = result.table(name)
        for layer in ("dead", "head"):
            column = table.layers.index(layer)
            assert table.value[:, column].isnan().all(), (name, layer)
        assert table.value[:, table.layers.index("conv")].isfinite().all()
    assert result.value("spread", "dead") == 0
    assert math.isnan(result.value("channel_median", "dead"))
    # All distances tie; the prediction never changes.
    assert result.value("retrieval_auc", "dead") == 0.5
    assert result.value("flip_rate") == result.value("js_divergence") == 0


def test_one_image_beside_a_reference_has_the_measures_that_need_no_other():
    images = images_of(33, size=16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = probe_model(
            cnn(), images[0], views(), layers=CNN_LAYERS, reference=images[1:], metrics=OURS, labels=[1]
        )
    for name in ("sensitivity", "sensitivity_pooled", "cosine", "spread", *OUTPUT):
        assert result.tensor(name).isfinite().all(), name
        assert (result.table(name).num_images == 1).all()
    for name in ("spread_ratio", "shared_shift", "retrieval_auc"):
        assert result.tensor(name).isnan().all(), name
    # Never as if nothing moved.
    assert (result.tensor("channel_median") != 0).all()
    assert not result.tensor("channel_dominance").isinf().any()


def test_a_reference_gives_a_few_images_the_spread_of_many():
    net, images = cnn(), images_of(64, size=16)
    many = probe_model(net, images[4:], views(), layers=["block1"], metrics=["spread"])
    few = probe_model(net, images[:4], views(), layers=["block1"], metrics=["spread"], reference=images[4:])
    assert few.value("spread", "block1") == pytest.approx(many.value("spread", "block1"), rel=0.02)


def test_a_residual_network_in_bfloat16_reads_as_in_float32_up_to_its_own_rounding():
    torch.manual_seed(0)
    net, images = ResNet((1, 1, 1, 1)).eval(), images_of(16, size=16)
    ours = ("sensitivity", "sensitivity_pooled", "cosine", "spread", "spread_ratio", "retrieval_auc")
    wide = probe_model(net, images, views(), layers=["layer1", "layer3"], metrics=ours)
    half = probe_model(net.bfloat16(), images, views(), layers=["layer1", "layer3"], metrics=ours)
    assert half.metadata["activation_dtypes"] == ["bfloat16"]
    for name in ours:
        # 8 bits: 2^-8 of an activation, times the mean that a ReLU leaves over the spread, in each of few roundings.
        torch.testing.assert_close(half.tensor(name), wide.tensor(name), rtol=0.05, atol=0.05)


def test_measures_that_were_not_asked_for_are_not_there():
    ready = measured(metric_of("cosine"), *pair(4))
    assert ready.layers == prepared(metric_of("cosine"), 4).layers == (LAYER,)
    result = run(cnn(), images_of(4), views(), metrics=("cosine", "flip_rate"))
    assert set(result.metrics) == {"cosine", "flip_rate"}


def test_an_in_place_operation_behind_a_layer_changes_no_measure_of_it():
    # A layer's output is what it returns, whatever the next one does to it.
    def result(*, inplace):
        weights = torch.Generator().manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.ReLU(inplace=inplace), nn.Linear(32, 5)).eval()
        for parameter in net.parameters():
            parameter.data.normal_(generator=weights)
        return probe_model(net, images_of(40, size=8), random_bank(), layers=["1", "3"])

    same(result(inplace=True), result(inplace=False))


def test_a_metric_that_knows_its_view_stands_beside_one_that_merges_them():
    def degree(clean, augmented):
        return (augmented - clean).flatten(1).abs().mean(1)

    images, net = images_of(33, size=8), nn.Sequential(nn.Flatten(), nn.Linear(192, 5)).eval()
    both = probe_model(net, images, random_bank(), layers=["1"], metrics=["cosine", degree], batch_size=7)
    for metric in ("cosine", degree):
        alone = probe_model(net, images, random_bank(), layers=["1"], metrics=[metric], batch_size=7)
        name = metric if isinstance(metric, str) else metric.__name__
        assert torch.equal(both.tensor(name), alone.tensor(name)), name
