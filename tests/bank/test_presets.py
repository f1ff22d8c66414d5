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


def test_an_unknown_preset_shows_the_known_ones():
    with pytest.raises(
        ValueError, match=r"no preset 'defualt'; there are default, .*, corruptions; did you mean 'default'\?$"
    ):
        presets.preset_ladders("defualt")
    with pytest.raises(ValueError, match=r"small=True chooses the levels of CIFAR-C; preset 'default'"):
        presets.preset_ladders("default", small=True)
