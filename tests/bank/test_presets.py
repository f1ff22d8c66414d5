import pytest
import torch
from sklearn.datasets import load_sample_image

from kornia_lightning_probe import presets
from kornia_lightning_probe.bank.bank import AugmentationBank

PRESETS = [
    ("default", False),
    ("photometric", False),
    ("geometric", False),
    ("corruptions", False),
    ("corruptions", True),
]


def _photographs(size: int, channels: int) -> torch.Tensor:
    corners = [(0, 0), (100, 100), (150, 300), (200, 400)] if size < 100 else [(200, 400)]
    photos = [torch.tensor(load_sample_image(name)).permute(2, 0, 1) / 255 for name in ("china.jpg", "flower.jpg")]
    crops = torch.stack([photo[:, y : y + size, x : x + size] for photo in photos for y, x in corners])
    return crops if channels == 3 else crops.mean(1, keepdim=True)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [32, 224])
@pytest.mark.parametrize(("name", "small"), PRESETS)
def test_every_ladder_changes_real_images_the_more_the_higher_and_keeps_shape_and_range(name, small, size, channels):
    ladders = presets.preset_ladders(name, small=small)
    exclude = [] if channels == 3 else sorted(presets.NEEDS_RGB & set(ladders))
    bank = AugmentationBank.preset(name, small=small, exclude=exclude, seed=1)
    images = _photographs(size, channels)
    changes: dict[str, list[float]] = {}
    for view in bank:
        augmented = bank.augment(view, images, block=0)
        assert augmented.changed, view.label
        assert augmented.images[0].shape == images.shape
        assert augmented.images[0].min() > -1e-6
        assert augmented.images[0].max() < 1 + 1e-6
        changes.setdefault(view.augmentation, []).append(float((augmented.images[0] - images).abs().mean()))
    assert all(steps == sorted(set(steps)) for steps in changes.values()), changes


@pytest.mark.parametrize(("name", "small"), PRESETS)
def test_a_view_depends_on_seed_name_and_block_and_on_nothing_else(name, small):
    images = _photographs(32, 3)[::4]
    bank, same, other = (AugmentationBank.preset(name, small=small, seed=seed) for seed in (1, 1, 2))
    is_random = False
    for view, again, different in zip(bank, same, other, strict=True):
        (first,) = bank.augment(view, images, block=3).images
        torch.manual_seed(view.level)
        assert torch.equal(same.augment(again, images, block=3).images[0], first)
        for changed in (other.augment(different, images, block=3), bank.augment(view, images, block=4)):
            is_random |= not torch.equal(changed.images[0], first)
    assert is_random


def test_the_default_preset_has_these_nineteen_views():
    assert {name: list(ladder) for name, ladder in presets.preset_ladders("default").items()} == {
        "hflip": [1],
        "rotation": [5, 15, 30],
        "translation": [0.02, 0.05, 0.10],
        "blur": [0.005, 0.01, 0.02],
        "noise": [0.02, 0.05, 0.10],
        "darken": [0.1, 0.2, 0.3],
        "contrast": [0.2, 0.4, 0.6],
    }
    assert len(AugmentationBank.preset()) == 19


def test_the_corruptions_have_the_published_levels():
    # Severities: |factor - 1| for contrast, 100 - quality for JPEG.
    assert {name: list(ladder) for name, ladder in presets.preset_ladders("corruptions").items()} == {
        "noise": [0.08, 0.12, 0.18, 0.26, 0.38],
        "blur": [1, 2, 3, 4, 6],
        "contrast": [0.6, 0.7, 0.8, 0.9, 0.95],
        "brightness": [0.1, 0.2, 0.3, 0.4, 0.5],
        "jpeg": [75, 82, 85, 90, 93],
    }
    assert list(presets.preset_ladders("corruptions", small=True)["jpeg"]) == [20, 35, 42, 50, 60]


@pytest.mark.parametrize(
    ("ladder", "severities"),
    [
        (presets.brightness((-0.1, 0.2)), [0.1, 0.2]),
        (presets.darken(), [0.1, 0.2, 0.3]),
        (presets.contrast((0.5, 1.2)), [0.2, 0.5]),
        (presets.saturation((0.0,)), [1]),
        (presets.gamma((1.25, 2)), [0.25, 1]),
        (presets.solarize((0.9, 0.5)), [0.1, 0.5]),
        (presets.posterize((5, 3)), [3, 5]),
        (presets.jpeg((80, 20)), [20, 80]),
        (presets.hue((-0.1,)), [0.1]),
    ],
)
def test_a_severity_is_the_distance_from_the_identity_in_ascending_order(ladder, severities):
    assert list(ladder) == severities


@pytest.mark.parametrize(
    ("build", "at", "severity", "expected"),
    [
        (presets.brightness, (-0.1,), 0.1, 0.3),
        (presets.gamma, (2.0,), 1.0, 0.16),
        (presets.solarize, (0.25,), 0.75, 0.6),
        # 0.4 is 102 = 0b01100110 of 255; its three highest bits are 96.
        (presets.posterize, (3,), 5.0, 96 / 255),
        (presets.brightness_value, (0.3,), 0.3, 0.7),
    ],
)
def test_a_magnitude_is_pinned_to_what_was_asked_for(build, at, severity, expected):
    images = torch.full((4, 1, 8, 8), 0.4)
    torch.testing.assert_close(build(at)[severity](images), torch.full_like(images, expected), rtol=0, atol=1e-3)


def test_erasing_paints_the_fraction_of_the_area():
    erased = presets.erasing((0.0625,))[0.0625](torch.zeros(5, 1, 32, 32))
    # A sixteenth of 32 x 32 is a square of 8 x 8.
    assert (erased == 0.5).sum((1, 2, 3)).tolist() == [64] * 5


@pytest.mark.parametrize("factors", [(1,), (float("nan"),), (0.5, float("inf"))])
def test_a_level_that_is_the_identity_or_no_number_is_an_error(factors):
    with pytest.raises(ValueError, match="A level must differ from the identity: severity"):
        presets.contrast(factors)


def test_two_levels_of_one_severity_are_an_error():
    with pytest.raises(ValueError, match=r"Two levels have the severity 0.2: give each direction a ladder"):
        presets.contrast((0.8, 1.2))


def test_a_ladder_without_levels_is_an_error():
    with pytest.raises(ValueError, match="at least one level"):
        presets.rotation(())


def test_an_unknown_preset_shows_the_known_ones():
    with pytest.raises(ValueError, match="No preset 'defualt'; there are default, photometric, geometric, corruptions"):
        presets.preset_ladders("defualt")
    with pytest.raises(ValueError, match=r"small=True chooses the levels of CIFAR-C; preset 'default'"):
        presets.preset_ladders("default", small=True)
