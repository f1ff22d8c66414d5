import math

import pytest
import torch
from support.nets import Composed, LeftAndRight, SmallCNN
from support.probing import halved, images_of, mirrored, plain_bank, unchanged
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from kornia_lightning_probe import AugmentationBank, probe_model
from kornia_lightning_probe.images.blocks import deal_blocks
from kornia_lightning_probe.metrics import LayerSensitivity, RelativeChange

IMAGES = images_of(40)
VIEWS = {"halve": halved, "mirror": mirrored}

# Nets of four channels have a leading one.
pytestmark = [
    pytest.mark.filterwarnings("ignore:one channel holds more than half"),
]


def features_of(model, layers, x):
    """Plain hooks on a float64 copy of the model, everything stored: {layer: (N, D)}."""
    stored = {"input": x.flatten(1)}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda _m, _x, out, name=name: stored.__setitem__(name, out.detach().flatten(1).clone())
        )
        for name in layers
    ]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return stored


# The numbers.


def test_sensitivity_and_its_error_are_those_of_a_plain_float64_computation():
    layers = ("block1", "block2", "head")
    model = SmallCNN()
    result = probe_model(model, images_of(33), plain_bank(), layers=list(layers))
    wide, images = SmallCNN().double().eval(), images_of(33).double()
    wide.load_state_dict(model.state_dict())
    ids, deal = torch.tensor(result.metadata["image_ids"]), deal_blocks(33)
    clean = {name: rows[ids] for name, rows in features_of(wide, layers, images).items()}
    for row, transform in enumerate(VIEWS.values()):
        augmented = features_of(wide, layers, transform(images))
        for column, name in enumerate(("input", *layers)):
            a, b = clean[name], augmented[name][ids]
            d = (b - a).square().sum(1)
            # e_i = n/(n-1) |a_i - m|^2 with the block's own mean, for blocks of 17 and 16 images.
            blocks = [a[block.start : block.stop] for block in deal]
            e = torch.cat([(x - x.mean(0)).square().sum(1) * len(x) / (len(x) - 1) for x in blocks])
            value = (d.mean() / (2 * e.mean())).sqrt()
            influence = value / 2 * ((d / d.mean() - 1) - (e / e.mean() - 1))
            table = result.table("sensitivity")
            assert float(table.value[row, column]) == pytest.approx(float(value), rel=1e-5)
            error = float(influence.std()) / math.sqrt(33)
            assert float(table.std_error[row, column]) == pytest.approx(error, rel=1e-4)
            assert int(table.num_images[row, column]) == 33


def test_swapping_every_image_for_another_one_is_about_one():
    # d is the squared distance of two different images, whose mean over all pairs is 2 mean e: S = 1 in expectation.
    bank = AugmentationBank({"swap": lambda x: x.roll(1, 0)})
    result = probe_model(SmallCNN(), images_of(160), bank)
    assert all(value == pytest.approx(1, abs=0.1) for value in result.tensor("sensitivity")[0].tolist())


def test_scale_shift_and_repetition_of_features_change_nothing():
    class Changed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.scaled, self.repeated = nn.Conv2d(3, 4, 3), nn.Identity(), nn.Identity()

        def forward(self, x):
            features = self.conv(x)
            self.scaled(5 * features + 3)
            return self.repeated(features.repeat(1, 3, 1, 1))

    table = probe_model(Changed(), IMAGES, plain_bank(), layers="*").tensor("sensitivity")
    torch.testing.assert_close(table[:, 2:], table[:, 1:2].expand(-1, 2), rtol=1e-4, atol=0)


def test_the_pixels_are_always_measured_as_layer_zero_and_are_no_chosen_layer():
    result = probe_model(SmallCNN(), IMAGES, plain_bank(), layers="head")
    assert result.layers == ("head",)
    rows = [row for row in result.rows if row.metric == "sensitivity"]
    assert [(row.layer, row.layer_index, row.augmentation, row.level) for row in rows] == [
        ("input", 0, "halve", 1),
        ("head", 1, "halve", 1),
        ("input", 0, "mirror", 1),
        ("head", 1, "mirror", 1),
    ]
    assert {row.num_images for row in rows} == {40}


# One image, and a reference.


@pytest.mark.parametrize("image", [IMAGES[0], IMAGES[:1]])
def test_one_image_without_a_reference_is_nan_with_a_sentence_and_its_relative_change(image):
    with pytest.warns(UserWarning, match="no other image to be compared with.*relative_change is given.*reference="):
        result = probe_model(SmallCNN(), image, plain_bank())
    assert result.tensor("sensitivity").isnan().all()
    # ||a/2 - a|| / ||a|| = 1/2 at the pixels.
    assert result.value("relative_change", layer="input", augmentation="halve") == pytest.approx(0.5)
    assert result.tensor("relative_change").isfinite().all()
    assert any("no other image" in note for note in result.metadata["notes"])


def test_one_image_says_why_sensitivity_is_nan_also_where_it_was_asked_for():
    with pytest.warns(UserWarning, match=r"so sensitivity is NaN; pass reference=") as caught:
        result = probe_model(SmallCNN(), IMAGES[0], plain_bank(), metrics="sensitivity")
    assert len(caught) == 1
    assert result.metrics == ("sensitivity",)


@pytest.mark.parametrize("make", [unchanged, lambda x: list(TensorDataset(x)), lambda x: DataLoader(TensorDataset(x))])
def test_one_image_with_a_reference_is_measured_against_its_distances(make):
    model, layers = SmallCNN(), ("block1", "head")
    result = probe_model(model, IMAGES[0], plain_bank(), layers=list(layers), reference=make(IMAGES[1:11]))
    model.eval()
    clean = features_of(model, layers, IMAGES[:1])
    others = features_of(model, layers, IMAGES[1:11])
    for view, transform in VIEWS.items():
        augmented = features_of(model, layers, transform(IMAGES[:1]))
        for name in ("input", *layers):
            # One block of 10 reference images, whose mean e is the trace of their covariance: S = |b-a| / sqrt(2 tr).
            distance = (augmented[name] - clean[name]).double().norm()
            trace = others[name].double().var(0).sum()
            expected = float(distance / (2 * trace).sqrt())
            assert result.value("sensitivity", layer=name, augmentation=view) == pytest.approx(expected, rel=1e-4)
    assert result.metadata["warnings"] == []


def test_a_reference_replaces_the_inputs_own_distances():
    # Images of a tenth of the contrast lie a tenth as far apart, so the same movement is ten times as large.
    inputs = IMAGES[:20]
    bank, model = AugmentationBank({"mirror": mirrored}), nn.Sequential(nn.Conv2d(3, 4, 3))
    own = probe_model(model, inputs, bank, layers="0", metrics="sensitivity").tensor("sensitivity")
    referred = probe_model(model, inputs, bank, layers="0", metrics="sensitivity", reference=inputs / 10).tensor(
        "sensitivity"
    )
    torch.testing.assert_close(referred, 10 * own, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        (IMAGES[0], "reference has 1 image; at least 2 are needed"),
        (images_of(10, size=8), r"reference has images of \(3, 8, 8\) and the inputs have \(3, 12, 12\).*resize"),
    ],
)
def test_a_reference_that_says_nothing_about_the_inputs_is_refused(reference, text):
    with pytest.raises(ValueError, match=text):
        probe_model(SmallCNN(), IMAGES[0], plain_bank(), reference=reference)


# Layers, embedding, metrics.


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("auto", ("block1", "block2", "head")),
        ("block?", ("block1", "block2")),
        (r"re:block\d\.0", ("block1.0", "block2.0")),
        (nn.Linear, ("head",)),
        (lambda name, _module: name.endswith("1"), ("block1.1", "block1", "block2.1")),
        (["head", "block1"], ("block1", "head")),
    ],
)
def test_layers_take_every_form_of_selector(layers, expected):
    assert probe_model(SmallCNN(), IMAGES, plain_bank(), layers=layers).layers == expected


def test_a_pattern_that_matches_nothing_shows_near_names():
    with pytest.raises(ValueError, match="no layer matches 'blok1'; near names: 'block1'"):
        probe_model(SmallCNN(), IMAGES, plain_bank(), layers="blok1")


def test_a_layer_that_was_named_and_never_runs_is_an_error_and_one_that_was_matched_a_warning():
    def skips(model, x):
        return model.block1(x)

    with pytest.raises(ValueError, match=r"no activation came from 'head' \(it did not run"):
        probe_model(SmallCNN(), IMAGES, plain_bank(), layers=["block1", "head"], forward=skips)
    options = {"metrics": "sensitivity", "forward": skips}
    with pytest.warns(UserWarning, match="left out layers that gave no activation: block2, head;") as caught:
        result = probe_model(SmallCNN(), IMAGES, plain_bank(), layers="re:block.|head", **options)
    assert len(caught) == 1
    assert {"block2", "head"} <= set(result.metadata["left_out"])
    # "auto" chooses among those that run, and has nothing to say.
    assert probe_model(SmallCNN(), IMAGES, plain_bank(), **options).metadata["left_out"] == {}


def test_the_embedding_may_be_named_and_is_chosen_with_the_layers():
    result = probe_model(SmallCNN(), IMAGES, plain_bank(), layers=["head"], embedding="block2.0")
    assert result.layers == ("block2.0", "head")
    assert result.metadata["embedding"] == "block2.0"


@pytest.mark.parametrize("embedding", ["net.head.call2", "net.head"])
def test_the_embedding_may_be_a_later_call(embedding):
    result = probe_model(
        LeftAndRight(), (IMAGES, IMAGES), plain_bank(), image_keys=0, layers="net.block1", embedding=embedding
    )
    assert result.layers == ("net.block1", "net.head", "net.block1.call2", "net.head.call2")
    assert result.metadata["embedding"] == embedding


def test_the_embedding_of_a_wrapped_model_goes_by_its_plain_name():
    model = torch.compile(SmallCNN(), backend="eager")
    assert probe_model(model, IMAGES, plain_bank(), embedding="_orig_mod.drop").metadata["embedding"] == "drop"


@pytest.mark.parametrize(
    ("embedding", "text"),
    [
        ("blok2", "embedding='blok2': no layer matches 'blok2'; near names: 'block2'"),
        ("block?", r"embedding='block\?' must be one layer's name; it is none, and matches \['block1', 'block2'\]"),
        ("head.call2", "embedding='head.call2' is none of the layers that gave an activation"),
    ],
)
def test_an_embedding_that_is_no_layer_is_an_error(embedding, text):
    with pytest.raises(ValueError, match=text):
        probe_model(SmallCNN(), IMAGES, plain_bank(), embedding=embedding)


def test_modules_named_input_and_output_are_told_apart_from_pixels_and_prediction():
    class HasInput(nn.Module):
        def __init__(self):
            super().__init__()
            self.input, self.output = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def forward(self, x):
            return self.output(self.input(x).mean((2, 3)))

    for options in ({}, {"embedding": "input"}, {"layers": ["input", "output"]}):
        result = probe_model(HasInput(), IMAGES, plain_bank(), **options)
        assert result.layers == ("model.input", "model.output")
        assert result.metadata["embedding"] == "model.input"
    # ||a/2 - a|| / ||a|| = 1/2 at the pixels, whatever the convolution does.
    changed = probe_model(HasInput(), IMAGES, plain_bank(), metrics="relative_change")
    assert changed.value("relative_change", "input", "halve") == pytest.approx(0.5)


def half_distance(clean, augmented):
    return (augmented - clean).flatten(1).norm(dim=1) / 2


@pytest.mark.parametrize(
    ("metrics", "names"),
    [
        ("relative_change", ("relative_change",)),
        (["relative_change", "sensitivity"], ("relative_change", "sensitivity")),
        (RelativeChange(), ("relative_change",)),
        ([LayerSensitivity, half_distance], ("sensitivity", "half_distance")),
    ],
)
def test_metrics_are_names_objects_classes_or_functions(metrics, names):
    assert probe_model(SmallCNN(), IMAGES, plain_bank(), metrics=metrics).metrics == names


def test_a_function_of_clean_and_augmented_is_averaged_over_the_images():
    # Halving moves each image by half its length, and this is half of that.
    result = probe_model(SmallCNN(), IMAGES, plain_bank(), metrics=half_distance)
    expected = float(IMAGES.flatten(1).norm(dim=1).mean()) / 4
    assert result.value("half_distance", layer="input", augmentation="halve") == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("metrics", "error", "text"),
    [
        ("sensitivty", ValueError, "no metric is named 'sensitivty'; near names: sensitivity"),
        (["sensitivity", LayerSensitivity()], ValueError, "each name once.*'sensitivity', 'sensitivity'"),
        ([], ValueError, "one or more"),
        ([3], TypeError, "a metric is a name, a ProbeMetric or a function .* got 3"),
    ],
)
def test_metrics_that_are_none_are_refused(metrics, error, text):
    with pytest.raises(error, match=text):
        probe_model(SmallCNN(), IMAGES, plain_bank(), metrics=metrics)


def test_a_users_metric_object_stays_as_it_was():
    metric = RelativeChange()
    probe_model(SmallCNN(), IMAGES, plain_bank(), metrics=metric)
    assert not metric.is_prepared


# What is said aloud.


@pytest.mark.parametrize(
    ("model", "bank", "text"),
    [
        (SmallCNN(), {"twin": unchanged, "mirror": mirrored}, "changed no pixel of any image: twin;"),
        (Composed(lambda _x, features: torch.zeros_like(features)), VIEWS, "same activation.*: changed, head;"),
        (Composed(lambda _x, features: features + torch.rand(())), VIEWS, "does not repeat itself"),
    ],
)
def test_what_a_reader_of_the_numbers_should_know_is_one_warning(model, bank, text):
    with pytest.warns(UserWarning, match=text) as caught:
        result = probe_model(model, IMAGES, AugmentationBank(bank), layers="*", metrics="sensitivity")
    assert len(caught) == 1
    # At the line of the caller, who can do something about it.
    assert caught[0].filename == __file__
    assert result.metadata["warnings"] == [str(caught[0].message)]


def test_a_preset_leaves_out_what_grey_images_can_not_show():
    grey = images_of(8, channels=1)
    with pytest.warns(UserWarning, match="need images of 3 channels"):
        result = probe_model(SmallCNN(channels=1), grey, AugmentationBank.preset("photometric"), metrics="sensitivity")
    assert "saturation" not in result.augmentations


def test_progress_shows_a_bar_on_stderr_and_silence_is_the_default(capfd):
    probe_model(SmallCNN(), IMAGES, plain_bank())
    assert capfd.readouterr() == ("", "")
    probe_model(SmallCNN(), IMAGES, plain_bank(), progress=True)
    out, err = capfd.readouterr()
    # Two blocks of 20 images under two views: scout, eight in company, 2 views; clean, 2 views.
    assert "probe" in err
    assert "/7 [" in err
    assert out == ""


def test_an_augmentation_that_fails_is_named():
    def broken(x):
        raise RuntimeError("no such filter")

    with pytest.raises(RuntimeError, match=r"broken.*no such filter"):
        probe_model(SmallCNN(), IMAGES, AugmentationBank({"broken": broken}))
