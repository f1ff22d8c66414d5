import math

import pytest
import torch
from support.activations import assert_same, estimate, measured, normal, numbers, pair, prepared, record_of

from kornia_lightning_probe.activations.clean import CleanBlock, MeanOfBlocks, mask_non_finite
from kornia_lightning_probe.functional.distances import squared_distance
from kornia_lightning_probe.functional.estimates import between_image_deviation, sensitivity
from kornia_lightning_probe.metrics import FlatSensitivity

METRIC = FlatSensitivity()


def value(clean, augmented, blocks=None):
    return float(estimate(METRIC, clean, augmented, blocks).value)


# Closed forms.


def test_what_does_not_move_is_zero_without_an_error():
    clean = normal(80, 3, 4, 4)
    found = estimate(METRIC, clean, clean.clone())
    assert (found.value, found.std_error, found.num_images) == (0, 0, 80)


@pytest.mark.parametrize("count", [2, 5, 32])
def test_swapping_images_for_one_another_is_one_on_average(count):
    # Rolled by k, image i becomes a_{i+k}. Over k = 1 to n - 1 each pair of different images comes up once, and their
    # mean squared distance is 2 mean e: so the mean of S^2 over all rolls is 1 exactly.
    clean = normal(count, 7)
    squares = [value(clean, clean.roll(k, 0)) ** 2 for k in range(1, count)]
    assert sum(squares) / len(squares) == pytest.approx(1, rel=1e-12)


def test_a_roll_of_a_block_by_one_image_is_one_in_expectation():
    # S^2 of one roll of 32 images of 500 dimensions: 32 distances that are each within 1/sqrt(250) of their mean.
    clean = normal(32, 500)
    assert value(clean, clean.roll(1, 0)) == pytest.approx(1, abs=4 * 0.5 / math.sqrt(250 * 32) + 0.01)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0, 2.0, -1.0])
@pytest.mark.parametrize("count", [2, 31, 32])
def test_shrinking_to_the_blocks_mean(alpha, count):
    # b - m = alpha (a - m): d_i = (1 - alpha)^2 |a_i - m|^2 and e_i = n/(n-1) |a_i - m|^2, so
    # S = |1 - alpha| sqrt((n-1)/(2n)), which is |1 - alpha| / sqrt(2) for many images.
    clean = normal(count, 5) + 3
    mean = clean.mean(0)
    expected = abs(1 - alpha) * math.sqrt((count - 1) / (2 * count))
    assert value(clean, mean + alpha * (clean - mean)) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_shrinking_to_the_populations_mean(alpha):
    # b - mu = alpha (a - mu) with mu the mean of all images there are: E d = (1 - alpha)^2 tr(cov), E e = tr(cov), so S
    # is (1 - alpha)/sqrt 2.
    clean = normal(512, 40) + 3
    found = estimate(METRIC, clean, 3 + alpha * (clean - 3))
    assert abs(found.value - (1 - alpha) / math.sqrt(2)) < 4 * found.std_error + 1e-3


@pytest.mark.parametrize("width", [1, 10, 40, 200])
def test_a_linear_layer_on_isotropic_data_gives_sigma_over_s_root_2(width):
    # x ~ N(0, s^2 I) and n ~ N(0, sigma^2 I): E|W n|^2 = sigma^2 |W|_F^2 and tr cov(W x) = s^2 |W|_F^2, whatever W is.
    s, sigma = 2.0, 0.5
    weight = normal(40, width, seed=9)
    x = s * normal(1024, 40)
    found = estimate(METRIC, x @ weight, (x + sigma * normal(1024, 40, seed=1)) @ weight)
    assert abs(found.value - sigma / (s * math.sqrt(2))) < 4 * found.std_error
    assert found.std_error < 0.1 * found.value


def test_one_shift_for_all_images_is_its_length_over_the_distance_between_images():
    # d_i = |v|^2 for every image; one-hot vectors lie sqrt(2) apart, so 2 mean e = 2 and S = |v| / sqrt(2).
    clean = torch.eye(8)
    assert value(clean, clean + torch.tensor([3.0, 4.0, 0, 0, 0, 0, 0, 0])) == pytest.approx(5 / math.sqrt(2))


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_sensitivity_is_linear_in_the_movement(factor):
    # b = a + c u: S is proportional to c.
    clean, augmented = pair(40)
    assert value(clean, clean + factor * (augmented - clean)) == pytest.approx(factor * value(clean, augmented))


# Invariances.

INVARIANCES = {
    "an added constant": lambda x: x + torch.linspace(-50, 50, 6).double(),
    "a scale": lambda x: -37.5 * x,
    "repeated features": lambda x: x.repeat(1, 3),
    "padding with constants": lambda x: torch.cat([x, torch.ones(len(x), 4)], 1),
    "permuted features": lambda x: x[:, [3, 1, 0, 5, 4, 2]],
    "rotated features": lambda x: x @ torch.linalg.qr(normal(6, 6, seed=8)).Q,
    "another shape": lambda x: x.view(-1, 3, 1, 2),
}


@pytest.mark.parametrize("change", INVARIANCES.values(), ids=INVARIANCES)
def test_sensitivity_and_its_error_do_not_change_with(change):
    clean, augmented = pair(40)
    assert_same(
        estimate(METRIC, change(clean), change(augmented)), estimate(METRIC, clean, augmented), rtol=1e-10, atol=0
    )


def test_the_order_of_images_within_a_block_does_not_matter():
    clean, augmented = pair(32)
    order = torch.randperm(32, generator=torch.Generator().manual_seed(0))
    found, expected = estimate(METRIC, clean[order], augmented[order]), estimate(METRIC, clean, augmented)
    assert_same(numbers(found), numbers(expected), rtol=1e-12, atol=0)
    assert_same(found.influence, expected.influence[..., order], rtol=1e-9, atol=1e-12)


def test_another_block_size_estimates_the_same_quantity():
    # Measured with blocks of 8 and of 32; each is within 4 of its standard errors of sigma / sqrt(2).
    clean, augmented = pair(512, 20, moved=0.5)
    for size in (2, 8, 32, 512):
        found = estimate(METRIC, clean, augmented, [range(i, i + size) for i in range(0, 512, size)])
        assert abs(found.value - 0.5 / math.sqrt(2)) < 4 * found.std_error


# The standard error.


def test_the_standard_error_by_hand():
    # Images 0 and 2 lie at +-1 from their mean: e = 2/1 (1, 1) = (2, 2). They move by 1 and by sqrt(3): d = (1, 3).
    # S = sqrt(2 / 4); the influences are S/2 (-1/2, 1/2), their sd is S/2 sqrt(1/2), over sqrt(2): S/4.
    clean = torch.tensor([[0.0], [2.0]]).double()
    found = estimate(METRIC, clean, clean + torch.tensor([[1.0], [math.sqrt(3)]]).double())
    assert found.value == pytest.approx(math.sqrt(0.5))
    assert found.std_error == pytest.approx(math.sqrt(0.5) / 4)


@pytest.mark.parametrize("shared", [False, True])
def test_the_standard_error_is_the_spread_over_draws(shared):
    # Over 250 draws a standard deviation is known to 1/sqrt(2 * 250) = 4.5 %: 4 of these, and 3 % for the curvature
    # that the error leaves out at N = 64. `shared`: images move in proportion to their own deviation, so d and e rise
    # and fall together; an error that ignored their covariance would be far too large.
    found = []
    for draw in range(250):
        clean = normal(64, 4, seed=2 * draw)
        moved = clean if shared else 1.0
        found.append(estimate(METRIC, clean, clean + 0.5 * moved * normal(64, 4, seed=2 * draw + 1)))
    values = torch.stack([one.value for one in found])
    errors = torch.stack([one.std_error for one in found])
    assert errors.square().mean().sqrt() == pytest.approx(float(values.std()), rel=4 * 0.045 + 0.03)


def test_the_standard_error_falls_with_the_root_of_the_number_of_images():
    # The same images again in other cells: sd(IF) with N - 1 hardly changes, sqrt(N) is sqrt(4) = 2 times larger.
    clean, augmented = pair(64)
    one = estimate(METRIC, clean, augmented)
    four = estimate(METRIC, clean.repeat(4, 1), augmented.repeat(4, 1))
    assert one.value == pytest.approx(float(four.value))
    assert one.std_error / four.std_error == pytest.approx(2 * math.sqrt(255 / 256 * 64 / 63), rel=1e-9)


# The class and the function.


@pytest.mark.parametrize("count", [4, 31, 33, 80])
def test_the_class_is_the_function_on_its_blocks(count):
    # A block is 4, 31, 17 + 16 or 27 + 27 + 26 images.
    clean, augmented = pair(count, 3, 2, 2)
    sizes = {4: [4], 31: [31], 33: [17, 16], 80: [27, 27, 26]}[count]
    deviation = torch.cat([between_image_deviation(block) for block in clean.split(sizes)])
    expected = sensitivity(squared_distance(augmented, clean), deviation)
    found = estimate(METRIC, clean, augmented)
    assert_same(numbers(found), numbers(expected), rtol=1e-12, atol=0)
    assert_same(found.influence.flatten(), expected.influence, rtol=1e-9, atol=1e-12)


# Edges.


def test_a_dead_layer_is_not_a_number():
    # In float32 a sum of n times 0.1 over n isn't 0.1; the layer is dead all the same.
    clean = torch.full((32, 5), 0.1)
    for augmented in (clean, clean + 1):
        found = estimate(METRIC, clean, augmented)
        assert found.value.isnan()
        assert found.std_error.isnan()


def test_a_single_image_is_not_a_number_without_a_reference():
    found = estimate(METRIC, *pair(1))
    assert found.value.isnan()
    assert found.num_images == 0


def test_a_single_image_with_a_reference_is_measured_by_it():
    # The reference's images lie at +-1 and +-1 in two dimensions: e_i = 4/3 (1 + 1), S = sqrt(d / (2 e)) of one image.
    reference = MeanOfBlocks()
    reference.add(CleanBlock(torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).double()))
    clean = torch.tensor([[5.0, 5.0]]).double()
    block = CleanBlock(clean, centre=reference.value())
    augmented = clean + torch.tensor([3.0, 4.0])
    metric = prepared(METRIC, 1)
    metric.update(clean, augmented, record_of(block, augmented))
    assert metric.compute().value == pytest.approx(math.sqrt(25 / (2 * 8 / 3)))
    assert metric.compute().std_error.isnan()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", ["clean", "augmented", "both"])
def test_an_image_that_is_not_finite_is_left_out_and_no_other(bad, side):
    # Without image 3 the block is one of 7 images; where only its augmented side is lost, its deviation still counts in
    # the mean of its block, and S is that of the table without its row.
    clean, augmented = pair(8)
    keep = [i for i in range(8) if i != 3]
    expected = sensitivity(
        squared_distance(augmented, clean)[keep],
        between_image_deviation(clean[keep]) if side != "augmented" else between_image_deviation(clean)[keep],
    )
    if side != "augmented":
        clean[3, 2] = bad
    if side != "clean":
        augmented[3, 2] = bad
    assert_same(numbers(estimate(METRIC, clean, augmented)), numbers(expected), rtol=1e-12, atol=0)


def test_an_image_that_is_not_finite_costs_its_own_cells_only():
    clean, augmented = pair(33)
    whole = measured(METRIC, clean, augmented)
    augmented[20] = math.nan
    masked = measured(METRIC, clean, augmented)
    assert masked.table[0].isnan().nonzero()[:, -1].tolist() == [20]
    others = [i for i in range(33) if i != 20]
    assert torch.equal(masked.table[..., others], whole.table[..., others])


def test_no_image_that_is_finite_is_not_a_number():
    clean, augmented = pair(4)
    found = estimate(METRIC, clean * math.nan, augmented)
    assert found.value.isnan()
    assert found.num_images == 0


# Numerics.


def in_float64(clean, augmented):
    """S of one block by the formula, in float64 from the numbers as they are."""
    a, b = clean.double().flatten(1), augmented.double().flatten(1)
    apart = (a - a.mean(0)).square().sum() / (len(a) - 1)
    return float(((b - a).square().sum(1).mean() / (2 * apart)).sqrt())


@pytest.mark.parametrize("mean", [0, 10, 100, 1000, 100_000])
@pytest.mark.parametrize("width", [1, 64, 5000])
def test_a_mean_that_is_large_beside_the_spread_costs_no_digits(mean, width):
    # Differences of neighbouring float32 numbers are exact, so d_i is. The mean m is off by up to half a unit in its
    # last place, delta = mean * 6e-8, whose part in mean e is only delta^2, since deviations from a mean cancel: at 1e5
    # that is 4e-5 of the variance, 2e-5 of S. The rest are roundings of 6e-8.
    clean, augmented = (x.float() for x in pair(32, width))
    clean, augmented = clean + mean, augmented + mean
    assert value(clean, augmented) == pytest.approx(in_float64(clean, augmented), rel=1e-6 + (mean * 6e-8) ** 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mean", [0, 10])
def test_half_precision_is_widened_before_it_is_subtracted(dtype, mean):
    # Against float64 from the same half-precision numbers: only float32's roundings are left.
    clean, augmented = ((x + mean).to(dtype) for x in pair(32, 64))
    assert value(clean, augmented) == pytest.approx(in_float64(clean, augmented), rel=1e-6)


def test_half_precision_puts_a_floor_under_sensitivity():
    # bfloat16 keeps 8 bits: x (1 + u) with u of up to 2^-8 in steps of rounding, some 2^-8 / sqrt(12) = 1e-3 of |x| on
    # average, so S of the rounding alone is about 1e-3 / sqrt(2), within a factor of two.
    clean = normal(64, 100, dtype=torch.float32)
    floor = 2**-8 / math.sqrt(12) / math.sqrt(2)
    assert floor / 2 < value(clean, clean.bfloat16().float()) < floor * 2


def test_squares_that_float16_can_not_hold_are_taken_in_float32():
    # 300^2 is more than 65504. One-hot vectors times 300, rolled by one: all lie sqrt(2) * 300 apart, so S = 1.
    clean = 300 * torch.eye(8, dtype=torch.float16)
    assert value(clean, clean.roll(1, 0)) == pytest.approx(1)


@pytest.mark.parametrize("width", [1, 3, 4096, 100_000])
def test_any_width(width):
    # b = a + 0.5 n: S -> 0.5 / sqrt(2) within four standard errors.
    clean, augmented = (x.float() for x in pair(33, width, moved=0.5))
    found = estimate(METRIC, clean, augmented)
    assert abs(found.value - 0.5 / math.sqrt(2)) < 4 * found.std_error


def test_measuring_does_not_write_to_the_activations():
    clean, augmented = pair(8)
    clean[2] = math.nan
    before = clean.clone(), augmented.clone()
    block = CleanBlock(clean)
    mask_non_finite([block])
    measured(METRIC, clean, augmented)
    torch.testing.assert_close((clean, augmented), before, rtol=0, atol=0, equal_nan=True)
