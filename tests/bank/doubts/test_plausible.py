"""Images that lie in the range and can't be what the bank was told."""

import re

import pytest
import torch

from kornia_lightning_probe.bank.pixels import PixelScale
from kornia_lightning_probe.image_layout import VIDEO

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def _raw(*shape):
    return torch.rand(*(shape or (8, 3, 6, 6)), generator=torch.Generator().manual_seed(0))


def _normalised(raw):
    mean, std = (torch.tensor(IMAGENET[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    return (raw - mean) / std


@pytest.mark.parametrize(
    ("options", "images", "text"),
    [
        (IMAGENET, _raw(), r"no pixel lies below the mean.*that from 0\.4\d+ to 0\.71\d+: if the loader doesn't norm"),
        (
            {"mean": 0.5, "std": 0.5},
            _raw(),
            "from 0.50.* to 0.99.*: if the loader doesn't normalise, leave mean and std out",
        ),
        ({"value_range": (0, 255)} | IMAGENET, _raw(), "if the loader doesn't normalise, leave mean and std out"),
        ({}, _raw() / 255, r"fill 0\.3\d% of value_range=\(0, 1\).*divided by 255 twice"),
        ({"value_range": (0, 255)}, _raw(), r"fill 0\.3\d% of value_range=\(0, 255\)"),
        # 12 bits in the range of 16.
        ({"value_range": (0, 65535)}, _raw() * 4095, r"fill 6\.\d+% of value_range=\(0, 65535\)"),
        (IMAGENET, _normalised(_raw() / 255), r"after undoing mean and std fill 0\.3\d%"),
    ],
)
def test_what_fills_too_little_of_the_range_says_what_was_found(options, images, text):
    scale = PixelScale(**options)
    scale.check(images)
    assert re.search(text, scale.why_implausible(images))


@pytest.mark.parametrize(
    ("options", "images"),
    [
        ({}, _raw()),
        (IMAGENET, _normalised(_raw())),
        # Dark sets: one of small mean, and one without any bright pixel.
        ({}, _raw() ** 20),
        ({}, _raw() * 0.15),
        (IMAGENET, _normalised(_raw() * 0.15)),
        # A bright one.
        ({}, 1 - _raw() * 0.15),
        ({"value_range": (-1000, 3000)}, _raw() * 2000 - 1000),
        # Odd constants that leave most of the range.
        ({"mean": 0.1, "std": 0.9}, _raw()),
        # Only the scale was undone.
        ({"std": 0.5}, _raw() * 2),
    ],
)
def test_images_that_are_right_are_never_implausible(options, images):
    scale = PixelScale(**options)
    scale.check(images)
    assert scale.why_implausible(images) == ""


def test_the_span_is_that_of_the_widest_channel():
    # Of X-rays that are stored as RGB one channel may be empty.
    images = _raw() * torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    assert PixelScale().why_implausible(images) == ""


@pytest.mark.parametrize(
    ("images", "line"),
    [
        (
            _normalised(_raw(8, 3, 20, 20)),
            "ImageNet's mean and std: AugmentationBank(..., mean=[0.485, 0.456, 0.406], std=[0.229,",
        ),
        (_raw() * 2 - 1, "mean 0.5 and std 0.5: AugmentationBank(..., mean=[0.5], std=[0.5])"),
    ],
)
def test_constants_that_many_loaders_use_are_recognised_with_the_line_to_write(images, line):
    with pytest.raises(ValueError, match="if the loader normalises, pass its mean= and std=") as refused:
        PixelScale().check(images)
    assert line in str(refused.value)


def test_constants_are_recognised_in_video_along_its_channels():
    clips = _normalised(_raw(10, 3, 20, 20)).unflatten(0, (2, 5))
    with pytest.raises(ValueError, match="ImageNet's mean and std"):
        PixelScale(layout=VIDEO).check(clips)


@pytest.mark.parametrize("images", [_raw() * 9 - 4, _raw(8, 1, 6, 6) * 4 - 2, _raw() + 0.5])
def test_no_constants_are_made_up(images):
    with pytest.raises(ValueError, match="outside value_range") as refused:
        PixelScale().check(images)
    assert "AugmentationBank(..., mean=" not in str(refused.value)


@pytest.mark.parametrize(
    ("whose", "mean", "std"),
    [
        ("CLIP's", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        ("CIFAR-10's", (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
        ("ImageNet's", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("MNIST's", (0.1307,), (0.3081,)),
    ],
)
def test_constants_are_told_apart_by_where_black_and_white_come_to_lie(whose, mean, std):
    images = _raw(8, len(mean), 20, 20)
    images[0], images[1] = 0.0, 1.0
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (mean, std))
    with pytest.raises(ValueError, match=f"these values are those of {whose} mean and std"):
        PixelScale().check((images - mean) / std)
