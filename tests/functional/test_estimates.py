import copy
import math
import pickle

import pytest
import torch
from support.activations import normal

from kornia_lightning_probe.functional.distances import squared_distance
from kornia_lightning_probe.functional.estimates import (
    Estimate,
    between_image_deviation,
    mean_with_error,
    pair_pseudo_values,
    ratio_of_roots,
    relative_change,
    root_of_mean,
    root_of_ratio,
    sensitivity,
    shared_part,
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


def test_an_error_is_that_of_the_influence_unless_it_is_given():
    # sd(IF) / sqrt(n): of -1, 0 and 1 the variance is 1, over 3 images.
    value, count = torch.tensor(5.0), torch.tensor(3)
    influence = torch.tensor([-1.0, 0.0, NAN, 1.0])
    assert float(Estimate(value, count, influence).std_error) == pytest.approx(3**-0.5)
    given = Estimate(value, count, influence, torch.tensor(7.0))
    assert float(given.std_error) == 7.0
    assert given.influence is influence


def test_without_an_influence_the_error_is_unknown():
    found = Estimate(torch.ones(2, 3), torch.full((2, 3), 4))
    assert found.influence is None
    assert found.std_error.shape == (2, 3)
    assert found.std_error.isnan().all()


@pytest.mark.parametrize("estimate", [mean_with_error, root_of_mean], ids=lambda function: function.__name__)
@pytest.mark.parametrize("count", [0, 1, 2, 33])
def test_an_influence_sums_to_zero_over_the_images_that_are_known(estimate, count):
    values = normal(3, count + 1).square()
    values[:, 0] = NAN
    found = estimate(values)
    assert found.influence[:, 0].isnan().all()
    close(found.influence.nansum(-1), [0.0] * 3, rtol=0, atol=1e-12)
    assert found.num_images.tolist() == [count] * 3
    assert found.std_error.isnan().all() == (count < 2)


def test_an_error_from_the_influence_is_the_usual_one():
    values, others = normal(5, 40).square(), normal(5, 40, seed=1).square()
    close(mean_with_error(values).std_error, values.std(1) / 40**0.5)
    # sqrt: half the relative error of the mean, times the root.
    root = values.mean(1).sqrt()
    close(root_of_mean(values).std_error, values.std(1) / 40**0.5 / (2 * root))
    # A ratio: the standard deviation of the difference of relative deviations.
    ratio = root_of_ratio(values, others)
    relative = values / values.mean(1, keepdim=True) - others / others.mean(1, keepdim=True)
    close(ratio.value, (values.mean(1) / others.mean(1)).sqrt())
    close(ratio.std_error, ratio.value / 2 * relative.std(1) / 40**0.5)
    # Sensitivity is such a ratio, to twice the mean.
    found = sensitivity(values, others)
    close(found.value, ratio.value / 2**0.5)
    close(found.std_error, ratio.std_error / 2**0.5)


@pytest.mark.parametrize("make", [lambda found: pickle.loads(pickle.dumps(found)), copy.deepcopy, Estimate._make])  # noqa: S301 - our own
def test_a_copy_is_an_estimate_with_the_same_numbers(make):
    found = mean_with_error(normal(2, 9))
    copied = make(found)
    assert type(copied) is Estimate
    for one, other in zip(copied, found, strict=True):
        assert torch.equal(one, other)


def test_it_is_a_tuple_of_value_images_influence_and_error():
    found = mean_with_error(torch.tensor([1.0, 3.0]))
    value, count, influence, error = found
    assert found._fields == ("value", "num_images", "influence", "std_error")
    assert (float(value), int(count), influence.tolist(), float(error)) == (2.0, 2, [-1.0, 1.0], 1.0)


@pytest.mark.parametrize(
    ("numerator", "denominator", "value"), [([0.0, 0.0], [1.0, 3.0], 0.0), ([1.0, 1.0], [0.0, 0.0], NAN), ([], [], NAN)]
)
def test_a_root_of_a_ratio_at_its_edges(numerator, denominator, value):
    close(root_of_ratio(torch.tensor(numerator), torch.tensor(denominator)).value, value)


def test_a_shared_part_is_one_where_all_images_move_alike_and_nothing_where_none_moves():
    alike = torch.tensor([4.0, 4.0, 4.0])
    assert float(shared_part(alike, alike).value) == 1.0
    assert float(shared_part(alike, alike).std_error) == 0.0
    still = torch.zeros(3)
    assert shared_part(still, still).value.isnan()
    # p = 1 and 3 of w = 4: R = 1/2, IF = [p - 2 - R (w - 4)] / 4 = -1/4 and 1/4, error sqrt(1/8) / sqrt(2) = 1/4.
    found = shared_part(torch.tensor([1.0, 3.0]), torch.tensor([4.0, 4.0]))
    assert (float(found.value), float(found.std_error)) == pytest.approx((0.5, 0.25))


def test_pseudo_values_of_pairs_are_those_of_leaving_each_image_out():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    vectors[4] = NAN
    known = torch.arange(7) != 4
    products = vectors[known] @ vectors[known].T
    of_each = torch.full((7,), NAN, dtype=torch.float64)
    of_each[known] = (products.sum(1) - products.diagonal()) / 5

    def over_pairs(matrix):
        return (matrix.sum() - matrix.trace()) / (len(matrix) * (len(matrix) - 1))

    found = pair_pseudo_values(of_each)
    for place, image in enumerate(known.nonzero().flatten().tolist()):
        rest = torch.arange(6) != place
        without = over_pairs(products[rest][:, rest])
        # n U - (n - 1) U without i
        close(found[image], 6 * over_pairs(products) - 5 * without)
    assert found[4].isnan()
    # Two images have one pair.
    assert pair_pseudo_values(torch.tensor([3.0, 3.0])).tolist() == [3.0, 3.0]


def test_a_mean_leaves_out_what_is_not_finite():
    # Of 1 and 5: mean 3, sd sqrt(8), error sqrt(8/2) = 2.
    values = torch.tensor([[1.0, NAN, 5.0, math.inf], [NAN] * 4, [7.0, NAN, NAN, -math.inf]])
    found = mean_with_error(values)
    close(found.value, [3.0, NAN, 7.0])
    close(found.std_error, [2.0, NAN, NAN])
    assert found.num_images.tolist() == [2, 0, 1]


def test_the_error_of_a_root_is_that_of_the_mean_over_twice_the_root():
    # d sqrt(x) = dx / (2 sqrt(x)); of 5 and 13 the mean is 9, its error sqrt(32 / 2) = 4.
    values = torch.tensor([[5.0, 13.0], [0.0, 0.0], [NAN, NAN]])
    mean, root = mean_with_error(values), root_of_mean(values)
    close(mean.std_error, [4.0, 0.0, NAN])
    close(root.value, [3.0, 0.0, NAN])
    close(root.std_error, [4.0 / 6, 0.0, NAN])


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
    for name in ("value", "std_error", "num_images"):
        assert float(getattr(found, name)) == float(getattr(expected, name))


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
