import pytest
import torch
from support.nets import (
    AlwaysDropout,
    Composed,
    Failing,
    HuggingViT,
    InPlace,
    Returns,
    SequenceFirst,
    SharedTwice,
    SmallCNN,
)
from support.probing import BOTH, halved, images_of, mirrored, plain_bank, random_bank, run, same, unchanged
from torch import nn

from kornia_lightning_probe.bank.bank import AugmentationBank
from kornia_lightning_probe.engine.processes import OtherRankError, World
from kornia_lightning_probe.engine.under_views import Plan, run_probe
from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.metrics import LayerSensitivity, resolve_metrics
from kornia_lightning_probe.model.layers import select_layers
from kornia_lightning_probe.model.subject import Subject

IMAGES = images_of(40)
MARKED = 17


@pytest.fixture(autouse=True)
def seeded():
    """Nets draw their weights from the global stream."""
    torch.manual_seed(0)


def marked_images():
    """Images below 0.9, of which number 17 of the source has one white pixel."""
    inputs = IMAGES * 0.9
    inputs[MARKED, :, 0, 0] = 1.0
    return inputs


def where_marked(value):
    """Puts `value` into the features of images with the white pixel."""
    return lambda x, features: torch.where(x[:, :1, :1, :1] > 0.99, value, features)


def said(result):
    return "\n".join(result.metadata["warnings"])


# Order of execution, repeated calls and outputs of several tensors.


def test_layers_come_in_order_of_execution_and_the_input_before_them():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.second, self.first = nn.Linear(4, 2), nn.Linear(432, 4)

        def forward(self, x):
            return self.second(self.first(x.flatten(1)))

    result = run(Backwards(), IMAGES, plain_bank(), layers=["second", "first"])
    assert result.layers == ("first", "second")
    assert result.table("sensitivity").layers == ("input", "first", "second")


def test_a_module_that_is_called_twice_is_two_layers():
    net = SharedTwice()
    result = run(net, IMAGES, plain_bank(), layers=["shared", "fc"])
    assert result.layers == ("shared", "shared.call2", "fc")

    class Unrolled(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.fc = nn.Identity(), nn.Identity(), nn.Identity()

        def forward(self, x):
            hidden = self.a(net.shared(x))
            return self.fc(net.fc(self.b(net.shared(torch.tanh(hidden))).mean((2, 3))))

    unrolled = run(Unrolled(), IMAGES, plain_bank(), layers=["a", "b", "fc"])
    assert torch.equal(unrolled.tensor("sensitivity"), result.tensor("sensitivity"))


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda x: (x, 2 * x), ("0[0]", "0[1]")),
        (lambda x: {"maps": x, "ids": torch.arange(len(x)), "more": [x + 1]}, ("0[maps]", "0[more][0]")),
    ],
)
def test_each_tensor_of_an_output_is_a_layer(make, names):
    result = run(nn.Sequential(Returns(make)), IMAGES, plain_bank(), layers="0")
    assert result.layers == names
    # Scale and shift change no sensitivity, so all are that of the pixels.
    table = result.tensor("sensitivity")
    torch.testing.assert_close(table, table[:, :1].expand_as(table), rtol=1e-5, atol=0)


def test_an_integer_entry_is_left_out_with_its_reason():
    net = nn.Sequential(Returns(lambda x: {"maps": x, "ids": torch.arange(len(x))}))
    result = run(net, IMAGES, plain_bank(), layers="0")
    assert result.metadata["left_out"] == {"0[ids]": "integer tensor (int64)"}


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


# The scout: layers that do not fire, or whose first axis is not the images.


def test_an_exact_layer_that_never_runs_is_an_error():
    net = nn.Sequential(nn.Flatten(), nn.Linear(432, 2))
    with pytest.raises(ValueError, match=r"no activation came from '1' \(it did not run in the model's forward\)"):
        run(net, IMAGES, plain_bank(), layers=["0", "1"], forward=net[0])


def test_a_pattern_may_match_layers_that_never_run_and_one_sentence_names_them():
    net = HuggingViT(depth=1)
    result = run(net, images_of(8, size=16), plain_bank(), layers="encoder.layer.0.attn*")
    assert result.layers == ("encoder.layer.0.attn[0]",)
    assert result.metadata["left_out"] == {"encoder.layer.0.attn.out_proj": "it did not run in the model's forward"}
    assert len(result.metadata["warnings"]) == 1


def test_a_layer_whose_first_axis_is_the_sequence_is_left_out_with_the_reason():
    # 10 x 10 cells are 100 tokens in front of 20 images.
    reason = "its first axis has 100 entries where 20 images went in"
    result = run(SequenceFirst(), IMAGES, plain_bank(), layers=nn.Linear)
    assert result.layers == ("head",)
    assert result.metadata["left_out"] == {"tokens": reason}
    with pytest.raises(ValueError, match=rf"no activation came from 'tokens' \({reason}\)"):
        run(SequenceFirst(), IMAGES, plain_bank(), layers=["tokens", "head"])


def test_a_sequence_as_long_as_the_first_block_is_left_out_as_soon_as_it_gives_itself_away():
    # 4 x 4 cells are 16 tokens in front of 16 images; merged with a second view there are 32 images.
    with_merging = run(SequenceFirst(), images_of(16, size=6), plain_bank(), layers=nn.Linear, batch_size=64)
    assert with_merging.layers == ("head",)
    # 17 images and then 16: the tokens fit the second block only.
    with_blocks = run(SequenceFirst(), images_of(33, size=6), plain_bank(), layers=nn.Linear)
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


class Dimmed(nn.Module):
    """Its layer `bright` runs on bright images only; small or large is a matter of their size."""

    def __init__(self):
        super().__init__()
        self.bright, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 2)

    def forward(self, x):
        features = self.bright(x) if x.mean() > 0.4 else torch.zeros(len(x), 4, 1, 1)
        return self.head(features.mean((2, 3)))


@pytest.mark.parametrize("size", [8, 24])
@pytest.mark.parametrize("batch_size", [3, 10])
def test_a_layer_that_runs_under_some_views_only_has_values_under_these(size, batch_size):
    images = images_of(10, size=size)
    net, options = Dimmed(), {"layers": ["bright", "head"], "metrics": BOTH, "batch_size": batch_size}
    views = {"turn": mirrored, "halve": halved, "still": unchanged}
    result = run(net, images, AugmentationBank(views), **options)
    alone = run(net, images, AugmentationBank({"turn": mirrored}), **options)
    for name, layer in (("sensitivity", "bright"), ("spread", "bright"), ("sensitivity", "head")):
        table = result.table(name)
        column = table.layers.index(layer)
        assert table.num_images[:, column].tolist() == ([10, 10, 10] if layer == "head" else [10, 0, 10])
        assert torch.equal(table.value[0, column], alone.table(name).value[0, column])


@pytest.mark.parametrize("metrics", [["sensitivity"], ["spread"]])
def test_a_layer_whose_size_depends_on_the_view_is_an_error(metrics):
    class Cropping(nn.Module):
        def __init__(self):
            super().__init__()
            self.crop = nn.Identity()

        def forward(self, x):
            return self.crop(x if x.mean() > 0.4 else x[..., ::2, ::2]).mean((1, 2, 3))

    with pytest.raises(
        ValueError, match=r"'crop' gave \(3, 6, 6\) for each image under a view, and \(3, 12, 12\) with"
    ):
        run(Cropping(), IMAGES, plain_bank(), layers=["crop"], metrics=metrics)


@pytest.mark.parametrize("batch_size", [5, 16, 40, 64])
@pytest.mark.parametrize("reference", [None, 7])
def test_distances_taken_in_the_passes_are_those_of_whole_activations(batch_size, reference):
    class Plain(LayerSensitivity):
        name = "plain"

        def measure(self, clean, augmented, about):
            distance = (augmented.double() - clean.double()).square().flatten(1).sum(1)
            return {"distance": distance, "deviation": about.deviation}

    class PlainPooled(Plain):
        name, representation = "plain_pooled", "pooled"

    # 16 and 17 images a block, layers of 3 to 3456 numbers.
    kept, plain = ["sensitivity", "sensitivity_pooled"], [Plain(), PlainPooled()]
    net, images = InPlace(), images_of(33, size=24)
    options = {
        "batch_size": batch_size,
        "reference": None if reference is None else ProbeImages(images_of(reference, size=24, seed=1)),
    }
    result = run(net, images, random_bank(), metrics=[*kept, *plain], **options)
    for mine, theirs in zip(kept, ("plain", "plain_pooled"), strict=True):
        left = result.table(mine)
        right = result.table(theirs)
        columns = [right.layers.index(layer) for layer in left.layers]
        torch.testing.assert_close(left.value, right.value[:, columns], rtol=1e-6, atol=0)
        torch.testing.assert_close(left.std_error, right.std_error[:, columns], rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("layers", "embedding"),
    [(["block1", "block2", "head"], "block2"), (["block1", "block2"], "block2"), (["head"], "head")],
)
def test_the_embedding_is_the_last_layer_that_is_not_the_output_itself(layers, embedding):
    assert run(SmallCNN(), IMAGES, plain_bank(), layers=layers).metadata["embedding"] == embedding


def test_the_output_may_be_an_entry_of_a_dictionary():
    class Wrapped(SmallCNN):
        def forward(self, x):
            return {"logits": super().forward(x)}

    assert run(Wrapped(), IMAGES, plain_bank()).metadata["embedding"] == "block2"


def test_an_embedding_that_gave_no_activation_is_an_error_that_shows_what_did():
    with pytest.raises(ValueError, match=r"embedding='head.call2' is none of the layers .*'block1', 'block2', 'head'"):
        run(SmallCNN(), IMAGES, plain_bank(), embedding="head.call2")


# What is worth a warning.


def test_a_forward_that_draws_repeats_itself_from_probe_to_probe_and_has_a_noise_floor():
    net = AlwaysDropout()
    first, second = (run(net, IMAGES, random_bank(), layers=["conv", "head"]) for _ in range(2))
    same(first, second)
    assert first.metadata["noise_floor"] == second.metadata["noise_floor"] > 0
    (sentence,) = first.metadata["warnings"]
    assert "does not repeat itself" in sentence
    assert "layer 'head'" in sentence


def test_a_forward_that_repeats_itself_has_no_noise_floor():
    result = run(SmallCNN(), IMAGES, random_bank())
    assert result.metadata["noise_floor"] == 0
    assert result.metadata["warnings"] == []


def test_views_that_change_no_pixel_are_named_in_one_sentence():
    bank = AugmentationBank({"twin": unchanged, "mirror": mirrored, "wait": {1: unchanged, 2: halved, 3: unchanged}})
    result = run(SmallCNN(), IMAGES, bank)
    (sentence,) = result.metadata["warnings"]
    assert sentence.startswith("these views changed no pixel of any image: twin, wait 1, wait 3;")
    assert result.metadata["unchanged_views"] == ["twin", "wait 1", "wait 3"]
    # An identity moves nothing.
    assert result.value("sensitivity", augmentation="twin") == 0


def test_a_dead_layer_is_nan_is_named_once_and_is_no_part_of_a_mean():
    net = SmallCNN()
    nn.init.zeros_(net.block2[0].weight)
    result = run(net, IMAGES, plain_bank(), layers=["block1", "block2", "head"])
    (sentence,) = result.metadata["warnings"]
    assert "the same activation" in sentence
    assert "block2, head;" in sentence
    assert result.metadata["dead_layers"] == ["block2", "head"]
    assert result.tensor("sensitivity")[:, 2:].isnan().all()
    assert result.value("sensitivity") == result.value("sensitivity", layer="block1")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_activation_that_is_not_finite_costs_one_image_and_is_named(value):
    inputs, layers = marked_images(), ["conv", "changed", "head"]
    net = Composed(where_marked(value))
    bank = AugmentationBank({"dark": lambda x: torch.where(x > 0.99, x, x / 2), "mirror": mirrored})
    result = run(net, inputs, bank, layers=layers)
    (sentence,) = result.metadata["warnings"]
    assert f"changed, head (images {MARKED} of the source)" in sentence
    assert result.metadata["non_finite"] == {"changed": [MARKED], "head": [MARKED]}
    # One image of 40 at two layers under two views.
    assert result.metadata["non_finite_cells"] == 4
    assert result.metadata["noise_floor"] == 0
    assert result.table("sensitivity").num_images.tolist() == [[40, 40, 39, 39]] * 2
    net.change = lambda _x, features: features
    healthy = run(net, inputs, bank, layers=layers)
    assert torch.equal(result.tensor("sensitivity")[:, :2], healthy.tensor("sensitivity")[:, :2])
    assert result.tensor("sensitivity").isfinite().all()


def test_an_activation_that_is_not_finite_under_one_view_harms_no_other_view():
    net = Composed(where_marked(float("nan")))
    # Only the first view makes white pixels, in image 17.
    inputs = marked_images() * 0.9
    bank = AugmentationBank({"brighten": lambda x: x / 0.9, "mirror": mirrored})
    result = run(net, inputs, bank, layers=["conv", "changed"])
    assert result.metadata["non_finite"] == {"changed": [MARKED]}
    assert result.metadata["non_finite_cells"] == 1
    assert result.table("sensitivity").num_images.tolist() == [[40, 40, 39], [40, 40, 40]]
    net.change = lambda _x, features: features
    healthy = run(net, inputs, bank, layers=["conv", "changed"])
    assert torch.equal(result.tensor("sensitivity")[1], healthy.tensor("sensitivity")[1])


def test_an_image_that_is_not_finite_at_a_layer_is_no_part_of_its_pooled_measures():
    net = Composed(where_marked(float("nan")))
    result = run(net, marked_images(), plain_bank(), layers=["conv", "changed", "head"], metrics="spread")
    table = result.table("spread")
    counts = dict(zip(table.layers, table.num_images[1].tolist(), strict=True))
    # Mirrored, the white pixel is elsewhere, but the clean image stays not finite.
    assert counts == {"input": 40, "conv": 40, "changed": 39, "head": 39}
    # Where nothing else is changed, 39 images lie nearly as far apart as 40.
    values = dict(zip(table.layers, table.value[1].tolist(), strict=True))
    assert values["changed"] == pytest.approx(values["conv"], rel=0.1)


# Errors that stop a probe before it has cost much.


def test_a_view_that_changes_the_size_of_images_is_an_error_that_says_what_to_do():
    bank = AugmentationBank({"crop": lambda x: x[..., 2:, 2:]})
    with pytest.raises(ValueError, match=r"view 'crop' .*\(20, 3, 12, 12\) to \(20, 3, 10, 10\).*Resize"):
        run(SmallCNN(), IMAGES, bank)


def test_images_that_are_not_finite_are_named_by_their_number_in_the_source():
    inputs = IMAGES.clone()
    inputs[[3, MARKED]] = float("nan")
    with pytest.raises(ValueError, match=r"NaN or infinite pixels.*\b3, 17\b"):
        run(SmallCNN(), inputs, plain_bank())


@pytest.mark.parametrize(
    ("factor", "advice"), [(255.0, r"pass value_range=\(0, 255\)"), (-1.0, "pass its mean= and std=")]
)
def test_images_out_of_range_are_an_error_with_what_was_found_before_the_model_runs(factor, advice):
    with pytest.raises(ValueError, match=rf"values from .* outside value_range=\(0, 1\).*{advice}"):
        run(nn.Sequential(Failing()), IMAGES * factor, plain_bank(), layers="0")


def test_the_reference_is_checked_for_its_range_too():

    with pytest.raises(ValueError, match="outside value_range"):
        run(SmallCNN(), IMAGES, plain_bank(), reference=ProbeImages(IMAGES * 255))


@pytest.mark.parametrize("batch_size", [0, -3])
def test_a_batch_has_at_least_one_image(batch_size):
    with pytest.raises(ValueError, match=f"batch_size must be at least 1, got {batch_size}"):
        run(SmallCNN(), IMAGES, plain_bank(), batch_size=batch_size)


def test_an_error_in_the_model_comes_out_as_it_is():
    with pytest.raises(RuntimeError, match=r"^this layer fails$"):
        run(nn.Sequential(Failing()), IMAGES, plain_bank(), layers="0")


# Inputs that hold more than images, merged and cut.


@pytest.mark.parametrize("batch_size", [3, 32])
def test_scalars_and_lists_in_the_inputs_go_with_any_cut(batch_size):
    seen = []

    def forward(batch):
        seen.append((len(batch["image"]), len(batch["name"])))
        return net(batch["image"] * batch["scale"])

    net = SmallCNN()
    inputs = {"image": images_of(4), "name": ["a", "b", "c", "d"], "scale": torch.tensor(2.0)}

    class Fixed(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return index

    images = ProbeImages(Fixed(), collate_fn=lambda _rows: inputs, to_inputs=unchanged)
    subject = Subject(net, forward, select_layers(net), torch.device("cpu"))
    run_probe(subject, Plan(images, plain_bank(), resolve_metrics(BOTH), batch_size=batch_size))
    assert all(rows == names for rows, names in seen)


# Metrics and other processes.


def test_a_metric_that_applies_nowhere_is_left_out_with_the_reason():

    class OfOutput(LayerSensitivity):
        name = "of_output"

        def applies_to(self, site):
            return False

    result = run(SmallCNN(), IMAGES, plain_bank(), metrics=["sensitivity", OfOutput()])
    assert result.metrics == ("sensitivity",)
    assert "applies to none of ['input', 'block1'" in result.metadata["left_out"]["of_output"]
    assert "the metric 'of_output' is not in the result: this metric applies to none of" in said(result)


def test_of_many_layers_to_which_a_metric_does_not_apply_the_first_are_named():
    net = nn.Sequential(*[nn.Conv2d(3, 3, 1) for _ in range(10)], nn.Conv2d(3, 1, 12), nn.Flatten())
    result = run(net, IMAGES, plain_bank(), layers="*", metrics=["sensitivity", "pixel_flip_rate"])
    assert "none of ['input', '0', '1', '2', '3', '4', '5', '6' and 5 more];" in said(result)


def test_a_process_that_fails_tells_the_others_why():
    texts = []
    world = World(size=2, gather=lambda text: (texts.append(text), [text, text])[1], add=unchanged)
    with pytest.raises(RuntimeError, match="this layer fails"):
        run(nn.Sequential(Failing()), IMAGES, plain_bank(), layers="0", world=world)
    assert texts == ["failed: RuntimeError: this layer fails"]


def test_a_process_that_hears_of_a_failure_stops_and_says_nothing_more():
    texts = []
    world = World(
        size=2, gather=lambda text: (texts.append(text), [text, "failed: ValueError: no image"])[1], add=unchanged
    )
    with pytest.raises(OtherRankError, match="the probe failed on rank 1: ValueError: no image"):
        run(SmallCNN(), IMAGES, plain_bank(), world=world)
    assert len(texts) == 1


def test_processes_that_see_other_layers_stop():
    world = World(size=2, gather=lambda text: [text, "7 for 2 layers"], add=unchanged)
    with pytest.raises(OtherRankError, match=r"differ in the layers that run; by rank: .* for . layers \| 7 for 2"):
        run(SmallCNN(), IMAGES, plain_bank(), world=world)


def test_the_metadata_say_what_was_measured_how():
    metadata = run(SmallCNN(), IMAGES, random_bank(seed=5), batch_size=16).metadata
    expected = {
        "num_images": 40,
        "num_blocks": 2,
        "batch_size": 16,
        "seed": 0,
        "device": "cpu",
        "world_size": 1,
        "activation_dtypes": ["float32"],
        "embedding": "block2",
        "noise_floor": 0.0,
        "notes": [],
    }
    assert {name: metadata[name] for name in expected} == expected
    assert sorted(metadata["image_ids"]) == list(range(40))
    assert metadata["bank"]["seed"] == 5
    assert metadata["seconds"] > 0
    # 20 images of the first block in float32: 3, 4 and 8 channels and 5 classes.
    assert metadata["clean_block_bytes"] == 20 * 4 * (3 * 144 + 4 * 144 + 8 * 36 + 5)
    assert metadata["shapes"]["block2"] == [8, 6, 6]


class _Now(nn.Module):
    """A second layer that runs where images are bright: on the first block, and on others under a view only."""

    def __init__(self):
        super().__init__()
        self.first, self.late = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, x):
        y = self.first(x)
        return self.late(y) if float(x.mean()) > 0.5 else y[..., 1:-1, 1:-1]


def test_a_layer_that_runs_under_a_view_only_is_not_measured_in_that_block():
    images = torch.cat([torch.full((32, 3, 8, 8), 0.9), torch.full((32, 3, 8, 8), 0.4)])
    images = images - 0.1 * torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    # The first 32 of the order in which images are taken are the first block.
    images = images[torch.argsort(torch.tensor(ProbeImages(images).image_ids))]
    result = run(_Now(), images, AugmentationBank({"brighter": lambda x: (x + 0.3).clamp(0, 1)}))
    table = result.table("sensitivity")
    assert table.num_images[0, table.layers.index("first")] == 64
    assert table.num_images[0, table.layers.index("late")] == 32
