from itertools import pairwise

import kornia.augmentation as K  # noqa: N812 - the name that Kornia's own documentation uses
import pytest
import torch
from torch import nn

from kornia_lightning_probe import AugmentationBank, probe_model
from kornia_lightning_probe.functional.calibration import calibrated_phase, measured_stride, with_stripes


def _rand(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


class _Chain(nn.Sequential):
    """Untrained layers that halve the side each time."""

    def __init__(self, kind, seed):
        torch.manual_seed(seed)
        widths = [3, 16, 32, 64]
        layers = []
        for before, after in pairwise(widths):
            if kind == "corner":
                layers.append(nn.Sequential(nn.Conv2d(before, after, 3, 2, 1), nn.ReLU()))
            else:
                layers.append(nn.Sequential(nn.Conv2d(before, after, 2, 2), nn.ReLU()))
        super().__init__(*layers)


def _images(seed):
    coarse = _rand(16, 3, 8, 8, seed=seed)
    smooth = nn.functional.interpolate(coarse, size=(64, 64), mode="bicubic", align_corners=False)
    return smooth + 0.05 * _rand(16, 3, 64, 64, seed=seed + 100)


@pytest.mark.parametrize("kind", ["corner", "half-pixel"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_phase_of_untrained_layers_is_found_though_their_kernels_are_no_mirror_images(kind, seed):
    clean = _images(seed)
    flipped = clean.flip(-1)
    with torch.random.fork_rng(), torch.no_grad():
        for layer in _Chain(kind, seed):
            clean, flipped = layer(clean), layer(flipped)
            assert calibrated_phase(clean, flipped, (64, 64)) == kind


def test_the_phase_of_a_single_image_is_found_and_a_non_finite_image_is_passed_over():
    image = _images(0)
    clean, flipped = image[..., ::4, ::4].clone(), image.flip(-1)[..., ::4, ::4].clone()
    assert calibrated_phase(clean[:1], flipped[:1], (64, 64)) == "corner"
    flipped[3, 0, 1, 1] = torch.nan
    clean[5] = torch.inf
    assert calibrated_phase(clean, flipped, (64, 64)) == "corner"


def test_the_phase_is_half_pixel_where_nothing_tells():
    image = _images(0)
    assert calibrated_phase(image, image.flip(-1), (64, 64)) == "half-pixel"
    assert calibrated_phase(torch.ones(4, 2, 4, 4), torch.ones(4, 2, 4, 4), (64, 64)) == "half-pixel"
    nothing = torch.full((2, 2, 4, 4), torch.nan)
    assert calibrated_phase(nothing, nothing, (64, 64)) == "half-pixel"


# Grids without padding.


def _layer(*layers, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(*(layer() for layer in layers)).eval()


def _conv(before, after, kernel, padding=0):
    return lambda: nn.Sequential(nn.Conv2d(before, after, kernel, padding=padding), nn.ReLU())


LENET = (_conv(3, 16, 5), lambda: nn.MaxPool2d(2), _conv(16, 32, 5), lambda: nn.MaxPool2d(2))


@pytest.mark.parametrize(
    ("layers", "side", "phase"),
    [
        ((_conv(3, 16, 3),), 16, "unpadded"),
        ((_conv(3, 16, 3),), 64, "unpadded"),
        ((_conv(3, 16, 5), _conv(16, 32, 5)), 32, "unpadded"),
        (LENET[:2], 32, "unpadded"),
        (LENET[:2], 28, "unpadded"),
        (LENET[:3], 28, "unpadded"),
        (LENET, 64, "unpadded"),
        # 64 pixels make 16 cells of 4, of which adaptive pooling makes 7 of 64 / 7.
        ((_conv(3, 16, 3, 1), lambda: nn.MaxPool2d(4), lambda: nn.AdaptiveAvgPool2d(7)), 64, "half-pixel"),
        # Patches of 7 pixels, one of which is left over.
        ((lambda: nn.Conv2d(3, 32, 7, 7),), 64, "half-pixel"),
        ((lambda: nn.Conv2d(3, 32, 7, 7),), 224, "half-pixel"),
    ],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_grid_without_padding_is_told_by_its_stride(layers, side, phase, seed):
    model, images = _layer(*layers, seed=seed), _rand(8, 3, side, side, seed=seed)
    with torch.no_grad():
        clean, flipped, striped = (model(x) for x in (images, images.flip(-1), with_stripes(images)))
    assert calibrated_phase(clean, flipped, (side, side), striped=striped) == phase


def test_without_stripes_or_an_answer_to_them_no_grid_is_unpadded():
    images = _rand(8, 3, 16, 16)
    cropped = images[..., 1:-1, 1:-1]
    flipped, striped = images.flip(-1)[..., 1:-1, 1:-1], with_stripes(images)[..., 1:-1, 1:-1]
    assert calibrated_phase(cropped, flipped, (16, 16), striped=striped) == "unpadded"
    assert calibrated_phase(cropped, flipped, (16, 16)) == "half-pixel"
    assert calibrated_phase(cropped, flipped, (16, 16), striped=cropped) == "half-pixel"
    assert calibrated_phase(cropped, flipped, (16, 16), striped=torch.full_like(cropped, torch.nan)) == "half-pixel"
    # An answer that goes the other way is none to a stripe that goes from left to right.
    assert calibrated_phase(flipped, cropped, (16, 16), striped=striped.flip(-1)) == "half-pixel"


def test_a_stripe_lies_in_the_middle_third_of_each_image_and_changes_nothing_else():
    images = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 1, 4, 36)
    changed = with_stripes(images) != images
    assert changed.sum((1, 2, 3)).tolist() == [4 * 2] * 5
    assert not changed[..., :12].any()
    assert not changed[..., 24:].any()
    assert changed[0, 0, 0, 12]
    assert changed[4, 0, 0, 23]


@pytest.mark.parametrize("spoilt", ["duplicate", "black", "NaN"])
def test_images_that_answer_nothing_are_passed_over(spoilt):
    images = _rand(8, 3, 32, 32)
    if spoilt == "duplicate":
        images[5] = images[4]
    elif spoilt == "black":
        images[3:5] = 0.0
    cropped, striped = images[..., 2:-2].clone(), with_stripes(images)[..., 2:-2].clone()
    if spoilt == "NaN":
        cropped[2] = striped[2] = torch.nan
    # The difference that a stripe of two pixels makes need not have its centre between them.
    assert measured_stride(cropped, striped, 32) == pytest.approx(1.0, rel=0.05)
    # Of two stripes no line tells a stride.
    assert measured_stride(cropped[:2], striped[:2], 32) != measured_stride(cropped[:2], striped[:2], 32)


@pytest.mark.parametrize("size", [(100, 160), (90, 160), (180, 320)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_height_that_the_stride_does_not_divide_makes_no_grid_unpadded(size, seed):
    # Pooling rounds up, 100 to 13 at a stride of 8; the width says that the cells tile the image.
    def pool():
        return nn.MaxPool2d(2, ceil_mode=True)

    model = _layer(_conv(3, 8, 3, 1), pool, _conv(8, 16, 3, 1), pool, _conv(16, 16, 3, 1), pool, seed=seed)
    images = _rand(8, 3, *size, seed=seed)
    with torch.no_grad():
        clean, flipped, striped = (model(x) for x in (images, images.flip(-1), with_stripes(images)))
    assert calibrated_phase(clean, flipped, size, striped=striped) == "half-pixel"


@pytest.mark.parametrize("layers", [(_conv(3, 8, 3),), (_conv(3, 8, 5),), LENET[:2]], ids=["3 x 3", "5 x 5", "pooled"])
@pytest.mark.parametrize("whole", [True, False])
def test_layers_without_padding_move_with_the_image(layers, whole):
    # By 4 of 16 pixels, which are 4 cells or 2: what a cell has seen is elsewhere, and all the same.
    bank = AugmentationBank({"moved": K.RandomTranslate((0.25, 0.25), (0.0, 0.0), p=1.0)})
    images = _rand(8 if whole else 4, 3, 16, 16)
    result = probe_model(nn.Sequential(_layer(*layers)), images, bank, layers=["0"], batch_size=32 if whole else 3)
    assert result.value("equivariance_error", "0") == pytest.approx(0.0, abs=1e-4)
    assert result.value("interpolation_floor", "0") == pytest.approx(0.0, abs=1e-4)
    assert result.value("invariance_error", "0") > 0.3
