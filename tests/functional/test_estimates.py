import math

import pytest
import torch
from support.activations import normal

from kornia_lightning_probe.functional.distances import squared_distance
from kornia_lightning_probe.functional.estimates import (
    Estimate,
    between_image_deviation,
    mean_with_error,
    ratio_of_roots,
    relative_change,
    root_of_mean,
    sensitivity,
)

NAN = math.nan


def close(actual, expected, **tolerances):
    expected = torch.as_tensor(expected, dtype=actual.dtype)
    torch.testing.assert_close(actual, expected, equal_nan=True, check_device=False, **tolerances)


@pytest.mark.parametrize("count", [2, 31, 32])
def test_the_mean_deviation_is_half_the_mean_squared_distance_of_two_different_images(count):
    # mean_{i != j} |a_i - a_j|^2 = 2/(n-1) sum |a_i - m|^2 = 2 mean e
    a = normal(count, 7)
    pairs = (a[:, None] - a[None]).square().sum(-1).sum() / (count * (count - 1))
    close(2 * between_image_deviation(a).mean(), pairs)


def test_the_mean_deviation_is_unbiased_whatever_the_block():
    # x ~ N(0, s^2 I) in D dimensions: the trace of its covariance is D s^2. Of 1024 images of 50 dimensions, the mean
    # has a relative standard deviation of sqrt(2 / (1024 * 50)) = 0.6 %; a 1/n instead of 1/(n-1) would be 50 % low.
    a = 3 * normal(1024, 50)
    for block in (2, 4, 32):
        deviations = torch.cat([between_image_deviation(part) for part in a.split(block)])
        close(deviations.mean(), 50 * 9.0, rtol=0.025, atol=0)


def test_a_deviation_is_taken_from_a_mean_that_is_given():
    # n/(n-1) |a_i - m|^2 = 2/1 * (1, 4)
    close(between_image_deviation(torch.tensor([[1.0], [2.0]]), torch.zeros(1, 1)), [2.0, 8.0])


def test_one_image_has_no_deviation():
    assert between_image_deviation(torch.ones(1, 3)).isnan().all()


# Estimates.


def test_a_mean_leaves_out_what_is_not_finite():
    # Of 1 and 5: mean 3, sd sqrt(8), error sqrt(8/2) = 2.
    values = torch.tensor([[1.0, NAN, 5.0, math.inf], [NAN] * 4, [7.0, NAN, NAN, -math.inf]])
    found = mean_with_error(values)
    close(found.value, [3.0, NAN, 7.0])
    close(found.std_error, [2.0, NAN, NAN])
    assert found.num_images.tolist() == [2, 0, 1]


def test_the_error_of_a_root_is_that_of_the_mean_over_twice_the_root():
    # d sqrt(x) = dx / (2 sqrt(x))
    root = root_of_mean(Estimate(torch.tensor([9.0, 0.0, NAN]), torch.tensor([3.0, 0.0, NAN]), torch.tensor([4, 4, 0])))
    close(root.value, [3.0, 0.0, NAN])
    close(root.std_error, [0.5, 0.0, NAN])


def test_a_ratio_to_zero_is_not_a_number():
    close(ratio_of_roots(torch.tensor([9.0, 0.0, 1.0]), torch.tensor([1.0, 0.0, 0.0])), [3.0, NAN, NAN])


def test_sensitivity_and_its_error_by_hand():
    # mean d = 2, mean e = 2: S = sqrt(2 / 4). d/2 - 1 = (-1/2, 1/2) and e/2 - 1 = 0, so IF = S/2 (-1/2, 1/2), whose sd
    # is S/2 sqrt(1/2), and SE = S/2 sqrt(1/2) / sqrt(2) = S/4.
    found = sensitivity(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 2.0]))
    close(found.value, math.sqrt(0.5))
    close(found.std_error, math.sqrt(0.5) / 4)
    assert found.num_images == 2


def test_movement_in_proportion_to_an_images_own_deviation_has_no_error():
    # d_i = c e_i: the influences cancel image by image, S = sqrt(c / 2) whichever images are drawn.
    e = normal(20).square()
    found = sensitivity(0.5 * e, e)
    close(found.value, 0.5)
    close(found.std_error, 0.0, rtol=0, atol=1e-12)


def test_sensitivity_leaves_out_an_image_that_either_side_does_not_know():
    d, e = torch.tensor([1.0, NAN, 3.0, 9.0, math.inf]), torch.tensor([2.0, 5.0, 2.0, NAN, 1.0])
    found, expected = sensitivity(d, e), sensitivity(d[[0, 2]], e[[0, 2]])
    assert [float(x) for x in found] == [float(x) for x in expected]


@pytest.mark.parametrize(
    ("distance", "deviation", "value", "error"),
    [
        ([0.0, 0.0], [1.0, 2.0], 0.0, 0.0),  # nothing moves
        ([1.0, 1.0], [0.0, 0.0], NAN, NAN),  # a dead layer that moves
        ([0.0, 0.0], [0.0, 0.0], NAN, NAN),  # a dead layer
        ([2.0], [1.0], 1.0, NAN),  # one image, its deviation from a reference
        ([2.0], [NAN], NAN, NAN),  # one image alone
        ([], [], NAN, NAN),
    ],
)
def test_sensitivity_at_its_edges(distance, deviation, value, error):
    found = sensitivity(torch.tensor(distance), torch.tensor(deviation))
    close(found.value, value)
    close(found.std_error, error)


def test_tables_are_reduced_over_their_last_axis_alone():
    d, e = normal(3, 4, 9).square(), normal(3, 4, 9, seed=1).square()
    whole = sensitivity(d, e)
    assert whole.value.shape == (3, 4)
    close(whole.value[1, 2], sensitivity(d[1, 2], e[1, 2]).value)
    close(whole.std_error[1, 2], sensitivity(d[1, 2], e[1, 2]).std_error)


def test_the_standard_error_is_the_spread_over_draws_of_images():
    # Over 400 draws a standard deviation is known to 1/sqrt(2 * 400) = 3.5 %; 4 of these, and 3 % for the curvature
    # that an influence function leaves out at N = 64.
    generator = torch.Generator().manual_seed(5)
    a = torch.randn(400, 64, 8, generator=generator, dtype=torch.float64)
    # Images differ in how far they move, which makes most of the error.
    size = 0.2 + torch.rand(400, 64, 1, generator=generator, dtype=torch.float64)
    b = a + size * torch.randn(400, 64, 8, generator=generator, dtype=torch.float64)
    distance = torch.stack([squared_distance(x, y) for x, y in zip(b, a, strict=True)])
    deviation = torch.stack([torch.cat([between_image_deviation(block) for block in x.split(32)]) for x in a])
    found = sensitivity(distance, deviation)
    close(found.std_error.square().mean().sqrt(), found.value.std(), rtol=4 * 0.035 + 0.03, atol=0)


# Relative change.


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, -2.0])
def test_relative_change_of_a_scaled_activation(factor):
    # |s a - a| / |a| = |s - 1|, whatever a is.
    a = normal(5, 3, 2)
    close(relative_change(a, factor * a), [abs(factor - 1)] * 5)


def test_relative_change_of_a_silent_image_is_not_a_number():
    close(relative_change(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([[1.0, 1.0], [3.0, 4.0]])), [NAN, 0.0])
