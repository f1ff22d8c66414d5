import math

import pytest
import torch
from support.activations import assert_same, estimate, normal, numbers, pair

from kornia_lightning_probe.functional.estimates import mean_with_error, relative_change
from kornia_lightning_probe.metrics import RelativeChange

METRIC = RelativeChange()


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 2.0, -1.0])
def test_a_scaled_activation_changes_by_the_factor_less_one(factor):
    # |s a - a| / |a| = |s - 1| for every image, so without an error.
    clean = normal(33, 3, 2)
    found = estimate(METRIC, clean, factor * clean)
    assert found.value == pytest.approx(abs(factor - 1))
    assert found.std_error == pytest.approx(0, abs=1e-12)


def test_it_is_the_mean_of_ratios_and_its_error_by_hand():
    # |a| = 5 and 10, |b - a| = 5 and 30: ratios 1 and 3, mean 2, sd sqrt(2), error sqrt(2)/sqrt(2) = 1.
    clean = torch.tensor([[3.0, 4.0], [0.0, 10.0]])
    found = estimate(METRIC, clean, clean + torch.tensor([[5.0, 0.0], [0.0, 30.0]]))
    assert [float(x) for x in numbers(found)] == pytest.approx([2, 1, 2])


@pytest.mark.parametrize(
    "change",
    [lambda x: -7 * x, lambda x: x.repeat(1, 2), lambda x: x @ torch.linalg.qr(normal(6, 6, seed=8)).Q],
    ids=["scale", "repeat", "rotate"],
)
def test_it_does_not_change_with_scale_repetition_and_rotation(change):
    clean, augmented = pair(33)
    assert_same(
        estimate(METRIC, change(clean), change(augmented)), estimate(METRIC, clean, augmented), rtol=1e-10, atol=0
    )


def test_it_depends_on_where_the_origin_is():
    # A constant of length 100 in each of 6 features makes |a| about 100 sqrt(6), and the movement stays.
    clean, augmented = pair(33)
    far = estimate(METRIC, clean + 100, augmented + 100).value
    moved = (augmented - clean).norm(dim=1).mean()
    assert far == pytest.approx(float(moved) / (100 * math.sqrt(6)), rel=0.05)


def test_the_class_is_the_function():
    clean, augmented = pair(33, 3, 2)
    expected = mean_with_error(relative_change(clean, augmented))
    assert_same(numbers(estimate(METRIC, clean, augmented)), numbers(expected), rtol=1e-12, atol=0)


def test_a_single_image_is_enough_but_has_no_error():
    clean = normal(1, 4)
    found = estimate(METRIC, clean, 1.5 * clean)
    assert found.value == pytest.approx(0.5)
    assert found.std_error.isnan()
    assert found.num_images == 1


def test_an_image_whose_activation_is_zero_is_left_out():
    # Of the others |2 a - a| / |a| = 1.
    clean = normal(5, 4)
    clean[2] = 0
    found = estimate(METRIC, clean, 2 * clean + (clean == 0))
    assert found.value == pytest.approx(1)
    assert found.num_images == 4


def test_images_that_are_all_zero_are_not_a_number():
    found = estimate(METRIC, torch.zeros(4, 3), torch.ones(4, 3))
    assert found.value.isnan()
    assert found.num_images == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_an_image_that_is_not_finite_is_left_out(bad, side):
    clean, augmented = pair(8)
    keep = [0, 1, 2, 4, 5, 6, 7]
    expected = mean_with_error(relative_change(clean[keep], augmented[keep]))
    (clean, augmented)[side][3, 1] = bad
    assert_same(numbers(estimate(METRIC, clean, augmented)), numbers(expected), rtol=1e-12, atol=0)


@pytest.mark.parametrize("mean", [0, 10, 100, 1000])
def test_float32_keeps_its_digits(mean):
    # b - a is exact between neighbouring numbers; roundings of 6e-8 in both norms are left.
    clean, augmented = (x.float() + mean for x in pair(32, 64))
    ratio = (augmented.double() - clean.double()).norm(dim=1) / clean.double().norm(dim=1)
    assert estimate(METRIC, clean, augmented).value == pytest.approx(float(ratio.mean()), rel=1e-6)
