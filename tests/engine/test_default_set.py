import warnings

import kornia.augmentation as K  # noqa: N812 - the name that Kornia's own documentation uses
import pytest
import torch
from support.activations import LAYER, measured, pair, prepared
from support.nets import SmallCNN, ViT
from support.plain_measures import OURS, OUTPUT
from support.probing import images_of, mixed_bank, random_bank, run, same
from torch import nn

from kornia_lightning_probe import AugmentationBank, probe_model
from kornia_lightning_probe.metrics import resolve_metrics

# Float32 forwards of different batch sizes differ by 1e-6 relative; cosine and ratios near 0 by as much absolutely.
ROUNDING = {"rtol": 1e-4, "atol": 1e-5}


def metric_of(name):
    return resolve_metrics([name])[0]


def cnn(**options):
    torch.manual_seed(0)
    return SmallCNN(width=16, **options)


OF_LABELS = ["accuracy", "accuracy_drop", "sensitivity_within"]
CNN_LAYERS = ["block1", "block2", "head"]


def test_everything_that_applies_to_a_classifier_is_measured_by_default():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "one channel holds more")
        result = probe_model(cnn(), images_of(40, size=16), mixed_bank(), layers=CNN_LAYERS, labels=[0, 1] * 20)
    found = {name: result.table(name).layers for name in result.metrics}
    everywhere = ("input", *CNN_LAYERS)
    assert {name: found[name] for name in OURS} == {
        "sensitivity": everywhere,
        "sensitivity_flat": everywhere,
        "sensitivity_pooled": ("input", "block1", "block2"),
        "sensitivity_median": everywhere,
        "sensitivity_within": everywhere,
        "cosine": everywhere,
        "spread": everywhere,
        "spread_ratio": everywhere,
        "shared_shift": everywhere,
        "channel_dominance": ("block1", "block2"),
        "channel_median": ("block1", "block2"),
        "image_dominance": everywhere,
        # The head is the output itself.
        "retrieval_auc": ("block2",),
        **dict.fromkeys(OUTPUT, ("output",)),
    }
    assert not set(OURS) & set(result.metadata.get("metrics_left_out", {}))
    for name in OURS:
        known = known_of(result, name)
        assert known.all(), name
        assert (result.table(name).num_images == 40)[result.tensor(name).isfinite()].all()
        without_error = result.table(name).std_error.isnan()
        # The error of a cosine below 0 is known to be too small.
        expected = {"cosine": result.tensor(name) < 0, "shared_shift": result.tensor(name).isnan()}
        has_none = name in ("channel_dominance", "channel_median", "image_dominance")
        assert torch.equal(without_error, expected.get(name, torch.full_like(without_error, has_none)))


def known_of(result, name):
    """Which cells of a metric are finite, and that of a flipped input's shared shift is not."""
    known = result.tensor(name).isfinite()
    if name == "shared_shift":
        # A flip leaves the mean colour where it is: what moves it is rounding, and shared by none.
        assert not known[0, 0]
        known[0, 0] = True
    return known


def test_what_does_not_apply_is_named_in_the_metadata():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 8), nn.ReLU(), nn.Linear(8, 1))
    result = probe_model(net, images_of(10), mixed_bank(), layers=["1", "3"])
    named = {name for name in result.metadata["metrics_left_out"] if name in OURS}
    # The pixels are a map; fewer than 16 channels, one number for an output, no labels.
    assert named == {"channel_dominance", "channel_median", *OF_LABELS, *OUTPUT}
    assert "one number for each image" in result.metadata["left_out"]["output"]
    assert not named & set(result.metrics)


def test_a_class_token_and_the_patches_have_rows_of_their_own():
    torch.manual_seed(0)
    # The image's 16 patches behind a class token.
    result = run(ViT(2), images_of(10, size=16), mixed_bank(), layers=["patch_embed", "blocks.0", "norm"], metrics=None)
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
    ours = [metric_of(name) for name in OURS if name not in OF_LABELS]
    expected = run(net, images, random_bank(), layers=layers, metrics=ours)
    same(run(net, images, random_bank(), layers=layers, metrics=ours, batch_size=batch_size), expected, **ROUNDING)


def test_a_view_reads_the_same_alone_as_among_others():
    net, images = cnn(), images_of(33, size=16)
    together = run(net, images, mixed_bank(), layers=CNN_LAYERS, metrics=None)
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
    result = run(cnn(), images_of(count, size=16), mixed_bank(), layers=CNN_LAYERS, metrics=None)
    for name in set(OURS) - set(OF_LABELS):
        assert known_of(result, name).all(), name
        counted = result.table(name).num_images == count
        assert (counted | result.tensor(name).isnan()).all(), name


def test_one_image_beside_a_reference_has_the_measures_that_need_no_other():
    images = images_of(33, size=16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = probe_model(
            cnn(), images[0], mixed_bank(), layers=CNN_LAYERS, reference=images[1:], metrics=OURS, labels=[1]
        )
    for name in ("sensitivity", "sensitivity_pooled", "sensitivity_median", "cosine", "spread", *OUTPUT):
        assert result.tensor(name).isfinite().all(), name
        assert (result.table(name).num_images == 1).all()
    for name in ("spread_ratio", "shared_shift", "retrieval_auc", "sensitivity_within"):
        assert result.tensor(name).isnan().all(), name
    # Never as if nothing moved.
    assert (result.tensor("channel_median") != 0).all()
    assert not result.tensor("channel_dominance").isinf().any()


def test_a_reference_gives_a_few_images_the_spread_of_many():
    net, images = cnn(), images_of(64, size=16)
    many = probe_model(net, images[4:], mixed_bank(), layers=["block1"], metrics=["spread"])
    few = probe_model(net, images[:4], mixed_bank(), layers=["block1"], metrics=["spread"], reference=images[4:])
    assert few.value("spread", "block1") == pytest.approx(many.value("spread", "block1"), rel=0.02)


def test_measures_that_were_not_asked_for_are_not_there():
    ready = measured(metric_of("cosine"), *pair(4))
    assert ready.layers == prepared(metric_of("cosine"), 4).layers == (LAYER,)
    result = run(cnn(), images_of(4), mixed_bank(), metrics=("cosine", "flip_rate"))
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
