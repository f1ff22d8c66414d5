import math

import kornia.augmentation as K  # noqa: N812
import pytest
import torch
from kornia.color import hsv_to_rgb, rgb_to_hsv

from kornia_lightning_probe.bank import operators
from kornia_lightning_probe.randomness import isolated_rng


def _images(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def _seeded(operator, images):
    with isolated_rng(0):
        return operator(images)


@pytest.mark.parametrize(
    ("make", "read"),
    [
        (operators.SignedRotation, lambda matrix: torch.rad2deg(torch.atan2(matrix[:, 0, 1], matrix[:, 0, 0]))),
        (operators.SignedShear, lambda matrix: -torch.rad2deg(torch.atan(matrix[:, 0, 1]))),
        # 32 pixels wide and 16 high.
        (lambda v: operators.SignedTranslation(v / 32), lambda matrix: matrix[:, 0, 2]),
        (lambda v: operators.SignedTranslation(v / 16), lambda matrix: matrix[:, 1, 2]),
        (lambda v: operators.SignedScale(v / 100), lambda matrix: 100 * (matrix[:, 0, 0] - 1)),
    ],
    ids=["rotation", "shear", "x", "y", "scale"],
)
def test_the_magnitude_is_pinned_and_the_sign_is_drawn_alike_for_every_level(make, read):
    images = _images(24, 1, 16, 32)
    small, large = make(3.0), make(12.0)
    _seeded(small, images)
    _seeded(large, images)
    signs = read(small.transform_matrix) / 3
    assert sorted(set(signs.round(decimals=3).tolist())) == [-1, 1]
    torch.testing.assert_close(read(large.transform_matrix), 12 * signs, rtol=1e-3, atol=1e-3)


def test_the_discrete_gaussian_has_sum_one_and_the_variance_that_was_asked_for():
    for sigma in (0.01, 0.16, 0.5, 1.0, 4.5):
        kernel = operators.discrete_gaussian(sigma, most=100)
        distance = torch.arange(len(kernel)) - len(kernel) // 2
        assert float(kernel.sum()) == pytest.approx(1)
        assert float((kernel * distance**2).sum()) == pytest.approx(sigma**2, rel=1e-2)
        assert torch.equal(kernel, kernel.flip(0))


def test_a_wide_discrete_gaussian_is_the_sampled_one():
    images = _images(1, 3, 64, 64)
    ours = operators.PinnedGaussianBlur(4.0)(images)
    theirs = K.RandomGaussianBlur(33, (4.0, 4.0), p=1.0)(images)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-3)


def test_a_relative_blur_grows_with_the_shorter_side():
    images = _images(1, 1, 50, 80)
    relative, pixels = operators.PinnedGaussianBlur(0.02, relative=True), operators.PinnedGaussianBlur(1.0)
    assert torch.equal(relative(images), pixels(images))


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 1, 1, 9), (2, 3, 4, 4)])
def test_a_blur_wider_than_the_image_works(shape):
    blurred = operators.PinnedGaussianBlur(6.0)(_images(*shape))
    assert blurred.shape == shape
    assert blurred.isfinite().all()


def test_motion_blur_of_no_length_is_the_identity_and_lengths_between_kernels_blend():
    # On 20 pixels the kernel of 3 pixels is a line of sqrt(8), and in variance a line of 2 is half of it.
    images = _images(2, 1, 20, 20)
    none, half, whole = (_seeded(operators.PinnedMotionBlur(length / 20), images) for length in (0, 2, math.sqrt(8)))
    assert torch.equal(none, images)
    torch.testing.assert_close(half, (images + whole) / 2)


@pytest.mark.parametrize("length", [0.64, 1.6, 3.2, 6.4, 11.2, 22.4])
def test_motion_blur_spreads_a_point_as_far_as_a_line_of_its_length(length):
    # Along a row of pixels, where nothing is interpolated: a line's variance is L^2 / 12.
    point = torch.zeros(1, 1, 101, 101, dtype=torch.float64)
    point[..., 50, 50] = 1
    straight = torch.zeros(1, dtype=torch.float64)
    smeared = operators.PinnedMotionBlur(0.0).change(point, fraction=length / 101, angle=straight)
    offsets = torch.arange(101) - 50
    variance = float((smeared.sum((0, 1, 2)) * offsets**2).sum())
    assert variance == pytest.approx(length**2 / 12, rel=1e-6)


def test_motion_blur_draws_one_direction_for_each_image():
    point = torch.zeros(6, 1, 15, 15)
    point[:, :, 7, 7] = 1
    smeared = _seeded(operators.PinnedMotionBlur(0.4), point)
    assert len(smeared.flatten(1).unique(dim=0)) == 6
    # A blur moves light and makes none.
    torch.testing.assert_close(smeared.sum((1, 2, 3)), torch.ones(6))


def test_noise_has_the_sigma_that_was_asked_for_and_stays_in_range():
    grey = torch.full((8, 3, 32, 32), 0.5)
    added = _seeded(operators.ClampedGaussianNoise(0.05), grey) - grey
    # 24576 draws: the standard error of a standard deviation is sigma / sqrt(2 * 24576).
    assert float(added.std()) == pytest.approx(0.05, rel=0.02)
    loud = _seeded(operators.ClampedGaussianNoise(1.0), grey)
    assert float(loud.min()) == 0
    assert float(loud.max()) == 1


def test_levels_of_noise_are_multiples_of_one_realisation():
    grey = torch.full((2, 3, 8, 8), 0.5)
    quiet, loud = (_seeded(operators.ClampedGaussianNoise(sigma), grey) - grey for sigma in (0.01, 0.05))
    torch.testing.assert_close(loud, 5 * quiet, rtol=1e-3, atol=1e-6)


def test_contrast_moves_towards_the_mean_grey():
    images = _images(2, 1, 8, 8)
    mean = images.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(operators.PinnedContrast(0.4)(images), mean + 0.4 * (images - mean))
    torch.testing.assert_close(operators.PinnedContrast(0.0)(images), mean.expand_as(images))


def test_contrast_per_channel_is_that_of_imagenet_c():
    # make_imagenet_c.py: means = np.mean(x, axis=(0, 1), keepdims=True); np.clip((x - means) * c + means, 0, 1).
    images = _images(2, 3, 8, 8) * torch.tensor([1.0, 0.6, 0.2]).view(3, 1, 1)
    for factor in (0.4, 0.05, 1.5):
        means = images.mean((2, 3), keepdim=True)
        expected = ((images - means) * factor + means).clamp(0, 1)
        torch.testing.assert_close(operators.PinnedContrast(factor, per_channel=True)(images), expected)


def test_the_cast_of_an_image_outlasts_contrast_per_channel_only():
    # Of the means 1/2, 0 and 0 of red, green and blue the mean grey is .299 / 2.
    image = torch.zeros(1, 3, 4, 4)
    image[:, 0, ::2] = 1.0
    kept, grey = (operators.PinnedContrast(0.0, per_channel=each)(image) for each in (True, False))
    assert kept[0, :, 0, 0].tolist() == pytest.approx([0.5, 0.0, 0.0])
    assert grey[0, :, 0, 0].tolist() == pytest.approx([0.1495, 0.1495, 0.1495])


@pytest.mark.parametrize("offset", [0.3, -0.3])
def test_adding_to_the_value_is_what_kornias_hsv_says(offset):
    images = _images(2, 3, 8, 8)
    hue, saturation, value = rgb_to_hsv(images).split(1, dim=1)
    expected = hsv_to_rgb(torch.cat([hue, saturation, (value + offset).clamp(0, 1)], dim=1))
    torch.testing.assert_close(operators.PinnedValue(offset)(images), expected, rtol=0, atol=1e-4)


def test_adding_to_the_value_turns_black_into_grey():
    assert torch.equal(operators.PinnedValue(0.25)(torch.zeros(1, 3, 2, 2)), torch.full((1, 3, 2, 2), 0.25))


@pytest.mark.parametrize("size", [32, 96])
def test_elastic_displaces_by_the_fraction_that_was_asked_for(size):
    # A ramp from 0 to 1 over the width says where each pixel came from, as a fraction of the width.
    x = (torch.arange(size) + 0.5).div(size).expand(32, 1, size, size)
    moved = _seeded(operators.PinnedElastic(0.02), x) - x
    inner = moved[..., size // 4 : -(size // 4), size // 4 : -(size // 4)]
    assert math.sqrt(float(inner.square().mean())) == pytest.approx(0.02, rel=0.15)


@pytest.mark.parametrize(
    "operator",
    [
        operators.PinnedContrast(0.5),
        operators.PinnedValue(0.1),
        operators.PinnedGaussianBlur(1.0),
        operators.PinnedMotionBlur(0.1),
        operators.ClampedGaussianNoise(0.1),
        operators.PinnedElastic(0.02),
        operators.SignedRotation(5.0),
        operators.SignedScale(0.1),
    ],
    ids=lambda operator: type(operator).__name__,
)
def test_an_operator_works_inside_kornias_containers(operator):
    images = _images(3, 3, 16, 16)
    alone = _seeded(operator, images)
    for chain in (K.AugmentationSequential(operator, data_keys=["input"]), K.ImageSequential(operator)):
        assert torch.equal(_seeded(chain, images), alone)
