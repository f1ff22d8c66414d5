import math

import pytest
import torch
from support.activations import assert_same, estimate, normal, numbers, pair, prepared, update

from kornia_lightning_probe.functional.estimates import between_image_deviation, root_of_mean
from kornia_lightning_probe.metrics import Spread

METRIC = Spread()


@pytest.mark.parametrize("count", [2, 8, 32])
def test_images_that_are_all_equally_far_apart_are_that_far_apart(count):
    # c times one-hot vectors: each lies c sqrt(2) from every other, whatever their number.
    clean = 3 * torch.eye(count)
    found = estimate(METRIC, clean, clean)
    assert found.value == pytest.approx(3 * math.sqrt(2))
    assert found.std_error == pytest.approx(0, abs=1e-6)


def test_the_spread_of_isotropic_images():
    # x ~ N(0, s^2 I) in D dimensions: 2 tr(cov) = 2 D s^2.
    clean = 2 * normal(512, 50)
    found = estimate(METRIC, clean, clean)
    assert abs(found.value - 2 * math.sqrt(2 * 50)) < 4 * found.std_error


def test_the_error_by_hand():
    # Two images at +-h from their mean have e = 2 h^2. Blocks of h^2 = 1/2 and 3/2 give 2 e = (2, 2, 6, 6): mean 4, sd
    # sqrt(16/3), error of the mean sqrt(4/3), and of its root that over 2 * 2.
    clean = torch.tensor([-1.0, 1.0, -math.sqrt(3), math.sqrt(3)]).double().view(4, 1) / math.sqrt(2)
    found = estimate(METRIC, clean, clean, [range(2), range(2, 4)])
    assert [float(x) for x in numbers(found)] == pytest.approx([2, math.sqrt(4 / 3) / 4, 4])


def test_a_collapse_is_zero():
    clean = torch.full((8, 3), 0.1)
    found = estimate(METRIC, clean, clean)
    assert (found.value, found.std_error) == (0, 0)


@pytest.mark.parametrize("factor", [0.5, -4.0])
def test_the_spread_has_the_unit_of_the_activations(factor):
    clean, _ = pair(33)
    assert estimate(METRIC, factor * clean, clean).value == pytest.approx(
        abs(factor) * float(estimate(METRIC, clean, clean).value)
    )


@pytest.mark.parametrize(
    "change", [lambda x: x + 1000, lambda x: x @ torch.linalg.qr(normal(6, 6, seed=8)).Q], ids=["shift", "rotate"]
)
def test_the_spread_does_not_change_with_a_shift_or_a_rotation(change):
    clean, _ = pair(33)
    assert_same(estimate(METRIC, change(clean), change(clean)), estimate(METRIC, clean, clean), rtol=1e-9, atol=0)


def test_the_spread_is_the_same_under_every_view():
    clean, augmented = pair(8)
    metric = prepared(METRIC, 8, views=("a", "b"))
    update(metric, clean, augmented, view_index=0)
    update(metric, clean, clean.roll(1, 0), view_index=1)
    value = metric.compute().value
    assert value[0] == value[1] == estimate(METRIC, clean, clean).value


@pytest.mark.parametrize("count", [4, 31, 32])
def test_the_class_is_the_function(count):
    clean, augmented = pair(count)
    expected = root_of_mean(2 * between_image_deviation(clean))
    assert_same(numbers(estimate(METRIC, clean, augmented)), numbers(expected), rtol=1e-12, atol=0)


def test_a_single_image_is_not_a_number():
    assert estimate(METRIC, *pair(1)).value.isnan()


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_an_image_that_is_not_finite_is_left_out(bad):
    clean, augmented = pair(8)
    keep = [0, 1, 2, 4, 5, 6, 7]
    expected = root_of_mean(2 * between_image_deviation(clean[keep]))
    clean[3, 1] = bad
    assert_same(numbers(estimate(METRIC, clean, augmented)), numbers(expected), rtol=1e-12, atol=0)


def test_it_is_measured_on_pooled_features():
    assert METRIC.representation == "pooled"
    assert METRIC.scope == "layers"
