import gc

import pytest
import torch
from support.nets import (
    AlwaysDropout,
    Composed,
    Failing,
    InPlace,
    SmallCNN,
)
from support.probing import (
    BOTH,
    MARKED,
    halved,
    images_of,
    marked_images,
    mirrored,
    plain_bank,
    random_bank,
    run,
    same,
    unchanged,
    where_marked,
)
from torch import nn

from kornia_lightning_probe.bank.bank import AugmentationBank
from kornia_lightning_probe.engine.memory import PassSize
from kornia_lightning_probe.engine.under_views import Plan, run_probe
from kornia_lightning_probe.functional.grid_warp import GridWarp
from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.metrics import FlatSensitivity, resolve_metrics
from kornia_lightning_probe.model.layers import select_layers
from kornia_lightning_probe.model.subject import Subject

IMAGES = images_of(40)


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


@pytest.mark.parametrize("batch_size", [5, 16, 40, 64])
@pytest.mark.parametrize("reference", [None, 7])
def test_distances_taken_in_the_passes_are_those_of_whole_activations(batch_size, reference):
    class Plain(FlatSensitivity):
        name = "plain"

        def measure(self, clean, augmented, about):
            distance = (augmented.double() - clean.double()).square().flatten(1).sum(1)
            return {"distance": distance, "deviation": about.deviation}

    class PlainPooled(Plain):
        name, representation = "plain_pooled", "pooled"

    # 16 and 17 images a block, layers of 3 to 3456 numbers.
    kept, plain = ["sensitivity_flat", "sensitivity_pooled"], [Plain(), PlainPooled()]
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
    run_probe(subject, Plan(images, plain_bank(), resolve_metrics(BOTH), size=PassSize(batch_size)))
    assert all(rows == names for rows, names in seen)


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
    # 20 images of the first block in float32: 3, 4 and 8 channels, and 5 classes.
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


def tables_alive(num_images):
    """The tables of so many images that anything holds, as the collector finds them."""
    found = [thing for thing in gc.get_objects() if type(thing) is torch.Tensor and thing.dtype == torch.float64]
    tables = [tensor for tensor in found if tensor.ndim == 4 and tensor.shape[-1] == num_images and tensor.stride(-1)]
    return tables + [thing for thing in gc.get_objects() if type(thing) is GridWarp]


def test_a_probe_leaves_no_tables_to_the_collector():
    # A number of images that no other test has. A torchmetrics.Metric refers to itself, and would stay with all it has.
    gc.collect()
    gc.disable()
    try:
        run(SmallCNN().eval(), images_of(41), random_bank(), metrics=None)
        assert tables_alive(41) == []
    finally:
        gc.enable()


class Tiring(SmallCNN):
    """Has passes for the first block, and fails at the second one."""

    passes = 0

    def forward(self, x):
        self.passes += 1
        if self.passes > 5:
            raise ZeroDivisionError("tired")
        return super().forward(x)


def test_a_probe_that_fails_leaves_none_either():
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(ZeroDivisionError, match="tired"):
            run(Tiring().eval(), images_of(43), random_bank(), metrics=None)
        assert tables_alive(43) == []
    finally:
        gc.enable()
