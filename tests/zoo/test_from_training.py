"""A bank from torchvision's pipelines: each row of the table, a dataset's normalisation, bytes, crops, containers."""

import copy
import re

import kornia.augmentation as K  # noqa: N812
import pytest
import torch
import torchvision.transforms as v1
from torch import nn
from torchvision.transforms import v2

from kornia_lightning_probe import AugmentationBank, probe_model
from kornia_lightning_probe.bank.from_training import tables
from kornia_lightning_probe.bank.from_training.pins import look_up, range_of

SIDE = 30
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
BITS = (1, 2, 3)
TENTHS = (0.1, 0.2, 0.3)
SQUARE = (1.0, 1.0)

# Class, place and start of a row; one made with a range of this magnitude alone; how far the parameter that it makes is
# from the identity; and how far that is at a third, two thirds and the whole of the range, by hand.
DRAWN = [
    ("RandomRotation", "degrees", 0, v2.RandomRotation(30), lambda made: made["angle"], (10, 20, 30)),
    ("RandomAffine", "degrees", 0, v2.RandomAffine(30), lambda made: made["angle"], (10, 20, 30)),
    (
        "RandomAffine",
        "scale",
        0,
        v2.RandomAffine(0, scale=(0.7, 1.3)),
        lambda made: made["scale"] - 1,
        TENTHS,
    ),
    (
        "RandomAffine",
        "shear",
        0,
        v2.RandomAffine(0, shear=(-30, 30)),
        lambda made: made["shear"][0],
        (10, 20, 30),
    ),
    (
        "RandomAffine",
        "shear",
        2,
        v2.RandomAffine(0, shear=(0, 0, -30, 30)),
        lambda made: made["shear"][1],
        (10, 20, 30),
    ),
    *[
        (
            "ColorJitter",
            factor,
            0,
            v2.ColorJitter(**{factor: 0.3}),
            lambda made, key=f"{factor}_factor", identity=float(factor != "hue"): made[key] - identity,
            TENTHS,
        )
        for factor in ("brightness", "contrast", "saturation", "hue")
    ],
    ("GaussianBlur", "sigma", 0, v2.GaussianBlur(5, (0.1, 1.5)), lambda made: made["sigma"][0], (0.5, 1.0, 1.5)),
    # 30 pixels wide, at a factor of 1 + severity, without fractions.
    (
        "RandomZoomOut",
        "side_range",
        0,
        v2.RandomZoomOut(side_range=(1.0, 4.0)),
        lambda made: (made["padding"][0] + made["padding"][2]) / SIDE,
        (1, 2, 3),
    ),
    # Sides of 27, 23 and 19 are the square roots of 0.8, 0.6 and 0.4 of 900, in whole pixels.
    (
        "RandomResizedCrop",
        "scale",
        0,
        v2.RandomResizedCrop(SIDE, (0.4, 1.0), SQUARE),
        lambda made: {27: 0.2, 23: 0.4, 19: 0.6}[made["height"]],
        (0.2, 0.4, 0.6),
    ),
    # 10, 15 and 18 are those of 0.12, 0.24 and 0.36.
    (
        "RandomErasing",
        "scale",
        0,
        v2.RandomErasing(scale=(0.04, 0.36), ratio=SQUARE),
        lambda made: {10: 0.12, 15: 0.24, 18: 0.36}[made["h"]],
        (0.12, 0.24, 0.36),
    ),
    ("JPEG", "quality", 0, v2.JPEG((40, 90)), lambda made: made["quality"] - 100, (20, 40, 60)),
]

# Numbers that stand in the transform: what they are, from the identity, at the three parts.
FIXED = [
    ("RandomAffine", "translate", v2.RandomAffine(0, translate=(0.3, 0.3)), 0, TENTHS),
    ("RandomPerspective", "distortion_scale", v2.RandomPerspective(0.3), 0, TENTHS),
    ("ElasticTransform", "alpha", v2.ElasticTransform(30.0), 0, (10, 20, 30)),
    ("RandomPosterize", "bits", v2.RandomPosterize(5), 8, BITS),
    ("RandomSolarize", "threshold", v2.RandomSolarize(0.4), 1, (0.2, 0.4, 0.6)),
    ("RandomAdjustSharpness", "sharpness_factor", v2.RandomAdjustSharpness(4.0), 1, (1, 2, 3)),
    ("GaussianNoise", "sigma", v2.GaussianNoise(0.0, 0.3), 0, TENTHS),
    ("GaussianNoise", "mean", v2.GaussianNoise(0.3, 0.0), 0, TENTHS),
]


def bank_of(*steps, levels=3, **settings):
    return AugmentationBank.from_training(v2.Compose(list(steps)), levels, **settings)


def name_of(row):
    return f"{row[0]}-{row[1]}-{row[2]}" if isinstance(row[2], int) else f"{row[0]}-{row[1]}"


def test_every_row_has_a_test():
    rows = {(name, pin.place, pin.start) for name, pins in tables.TORCHVISION.items() for pin in pins}
    assert {row[:3] for row in DRAWN} | {(row[0], row[1], 0) for row in FIXED} == rows


@pytest.mark.parametrize("row", DRAWN, ids=name_of)
def test_what_is_drawn_is_a_third_two_thirds_and_all_of_the_way_from_the_identity(row, monkeypatch):
    name, place, start, transform, distance, expected = row
    used = [(pin.place, pin.start) for pin in tables.TORCHVISION[name] if range_of(transform, pin) is not None]
    assert used == [(place, start)]
    bank = bank_of(transform)
    assert [view.severity for view in bank][:-1] == pytest.approx(list(expected))
    made = []
    make = type(transform).make_params
    monkeypatch.setattr(type(transform), "make_params", lambda self, flat: made.append(make(self, flat)) or made[-1])
    # Its operator is not compiled here.
    monkeypatch.setattr(v2.JPEG, "transform", lambda _, image, __: image)
    for view in list(bank)[:-1]:
        made.clear()
        view.transform(torch.rand(6, 3, SIDE, SIDE))
        assert [abs(distance(params)) for params in made] == pytest.approx([view.severity] * 6, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("row", FIXED, ids=name_of)
def test_what_stands_in_a_transform_is_a_part_of_the_way_from_the_identity(row):
    name, place, transform, identity, expected = row
    assert [pin.place for pin in tables.TORCHVISION[name] if range_of(transform, pin) is not None] == [place]
    bank = bank_of(transform)
    assert [view.severity for view in bank][:-1] == pytest.approx(list(expected))
    for view in list(bank)[:-1]:
        held = look_up(view.transform.steps[0].transform, place)
        numbers = held if isinstance(held, list | tuple) else [held]
        assert [abs(number - identity) for number in numbers] == pytest.approx([view.severity] * len(numbers))


def test_a_dataset_pipeline_gives_names_normalisation_and_the_whole():
    bank = bank_of(
        v2.ToImage(),
        v2.RandomHorizontalFlip(p=0.3),
        v2.RandomApply([v2.ColorJitter(brightness=0.2)], p=0.1),
        v2.RandAugment(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(MEAN, STD),
        v2.RandomErasing(),
        levels=2,
    )
    assert [view.label for view in bank] == [
        "horizontal_flip",
        "color_jitter 0.1",
        "color_jitter 0.2",
        "rand_augment",
        "erasing 0.165",
        "erasing 0.33",
        "pipeline",
    ]
    described = bank.describe()
    assert (described["mean"], described["std"]) == (MEAN, STD)
    assert [view.moves_pixels for view in bank] == [True, False, False, True, False, False, True]


def test_a_normalisation_that_the_user_gives_wins():
    described = bank_of(v2.RandomInvert(), v2.Normalize(MEAN, STD), mean=0.5, std=0.25).describe()
    assert (described["mean"], described["std"]) == ([0.5], [0.25])


def test_every_image_is_drawn_by_itself():
    images = torch.rand(1, 3, 16, 16).expand(32, 3, 16, 16).contiguous()
    bank = bank_of(v2.RandomRotation(30), v2.GaussianNoise())
    turned = bank.augment(bank[0], images, block=0).images[0]
    # To the left and to the right.
    assert len(turned.flatten(1).unique(dim=0)) == 2
    whole = bank.augment(list(bank)[-1], images, block=0).images[0]
    assert len(whole.flatten(1).unique(dim=0)) == 32


@pytest.mark.parametrize("converted", [v2.ToDtype(torch.float32, scale=True), v1.ToTensor(), v2.ConvertImageDtype()])
def test_what_stands_in_front_of_the_conversion_gets_bytes(converted):
    bank = bank_of(v2.RandomSolarize(127, p=1.0), converted, v2.Normalize([0.5], [0.5]), levels=2)
    assert [(view.severity, view.unit) for view in bank][:2] == [(64.0, "255 - threshold"), (128.0, "255 - threshold")]
    images = torch.tensor([0, 126, 127, 200, 255]).div(255).reshape(1, 1, 1, 5)
    # What is at least the threshold is inverted.
    expected = torch.tensor([0, 126, 128, 55, 0]).div(255).reshape(1, 1, 1, 5)
    for view in list(bank)[1:]:
        out = bank.augment(view, images * 2 - 1, block=0).images[0]
        torch.testing.assert_close((out + 1) / 2, expected)


def test_what_stands_behind_the_normalisation_gets_normalised_images():
    bank = bank_of(v2.Normalize([0.5], [0.25]), v2.Lambda(lambda image: image * 2))
    images = torch.rand(2, 1, 4, 4)
    normalised = (images - 0.5) / 0.25
    for view in bank:
        torch.testing.assert_close(bank.augment(view, normalised, block=0).images[0], normalised * 2)


def test_crops_keep_the_size_and_see_what_they_crop_in_training():
    bank = bank_of(v2.Resize(40), v2.RandomCrop(32), v2.RandomResizedCrop(24, scale=(0.5, 1.0)), levels=1)
    assert [view.augmentation for view in bank] == ["crop", "resized_crop", "pipeline"]
    images = torch.rand(4, 3, 32, 32)
    for view in bank:
        augmented = bank.augment(view, images, block=0)
        assert augmented.images[0].shape == images.shape
        assert augmented.changed


def test_old_transforms_are_read_as_new_ones():
    pipeline = v1.Compose(
        [v1.RandomRotation(10), v1.ColorJitter(0.2), v1.PILToTensor(), v1.ToTensor(), v1.Normalize(MEAN, STD)]
    )
    bank = AugmentationBank.from_training(pipeline, levels=1)
    assert [(view.label, view.severity) for view in bank] == [
        ("rotation", 10.0),
        ("color_jitter", 0.2),
        ("pipeline", 1.0),
    ]
    for view in bank:
        assert bank.augment(view, torch.rand(4, 3, 16, 16), block=0).images[0].shape == (4, 3, 16, 16)


@pytest.mark.parametrize("container", [v2.RandomChoice, v2.RandomOrder, v2.RandomApply])
def test_the_children_of_random_containers_have_ladders(container):
    bank = bank_of(container([v2.RandomRotation(10), v2.RandomInvert(p=0.1)]), levels=1)
    assert [view.label for view in bank] == ["rotation", "invert", "pipeline"]


def test_what_cannot_be_probed_is_left_out_by_name():
    whys = (
        "MixUp (it mixes several images and their labels), FiveCrop (it makes several images of one), "
        "RandomIoUCrop (it needs boxes)"
    )
    with pytest.warns(UserWarning, match=re.escape(f"Left out of the pipeline: {whys}")):
        bank = bank_of(v2.RandomInvert(), v2.MixUp(num_classes=3), v2.FiveCrop(8), v2.RandomIoUCrop())
    assert [view.augmentation for view in bank] == ["invert", "pipeline"]
    assert bank.augment(bank[1], torch.rand(2, 3, 16, 16), block=0).images[0].shape == (2, 3, 16, 16)


def test_kornia_in_a_compose_and_torchvision_in_a_sequential():
    steps = [K.RandomRotation(10.0), v2.ColorJitter(brightness=0.2)]
    for pipeline in (v2.Compose(steps), nn.Sequential(*steps)):
        bank = AugmentationBank.from_training(pipeline, levels=1)
        assert [view.augmentation for view in bank] == ["rotation", "color_jitter", "pipeline"]
        images = torch.rand(4, 3, 16, 16)
        for view in bank:
            assert bank.augment(view, images, block=0).images[0].shape == images.shape


def test_functions_are_called_on_each_image():
    def shade(image):
        assert image.ndim == 3
        return image / 2

    bank = bank_of(shade, v2.Lambda(lambda image: image))
    assert [view.augmentation for view in bank] == ["shade", "lambda", "pipeline"]
    images = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(bank.augment(bank[0], images, block=0).images[0], images / 2)


def test_parts_of_a_distortion_that_have_a_probability_each_keep_it():
    bank = bank_of(v2.RandomPhotometricDistort(p=0.25))
    assert bank[0].transform.steps[0].p == 0.25


def test_a_pipeline_without_augmentation_is_refused():
    message = "The pipeline holds no augmentation that can be probed, only Resize, ToDtype, Normalize"
    with pytest.raises(ValueError, match=message):
        bank_of(v2.Resize(8), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD))


def test_nothing_of_the_user_changes_and_a_model_is_probed():
    pipeline = v2.Compose(
        [v2.RandomRotation(20), v2.ColorJitter(0.2), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    )
    inside = [copy.copy(step.__dict__) for step in pipeline.transforms]
    steps, before, stream = list(pipeline.transforms), repr(pipeline), torch.get_rng_state()
    bank = AugmentationBank.from_training(pipeline)
    assert torch.equal(torch.get_rng_state(), stream)
    images = torch.rand(48, 3, 16, 16).sub(torch.tensor(MEAN).view(3, 1, 1)).div(torch.tensor(STD).view(3, 1, 1))
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    one, other = (probe_model(net, images, bank, batch_size=size) for size in (1, 48))
    torch.testing.assert_close(one.tensor("sensitivity"), other.tensor("sensitivity"), rtol=1e-4, atol=1e-6)
    assert all(now is then for now, then in zip(pipeline.transforms, steps, strict=True))
    assert [step.__dict__ for step in pipeline.transforms] == inside
    assert repr(pipeline) == before
