import math

import pytest
import torch
from activations import normal, pair
from torch.utils._python_dispatch import TorchDispatchMode

from kornia_lightning_probe.functional import (
    Estimate,
    Room,
    accumulation_dtype,
    between_image_deviation,
    block_mean,
    block_mean_and_distance,
    mean_with_error,
    piece_of,
    ratio_of_roots,
    relative_change,
    root_of_mean,
    sensitivity,
    squared_difference,
    squared_distance,
    squared_norm,
    sum_of_squares,
    upcast,
)

NAN = math.nan
# Roundings of 6e-8 that go either way, in a float32 sum of at most 1024 squares.
FLOAT32 = 1e-6


def close(actual, expected, **tolerances):
    expected = torch.as_tensor(expected, dtype=actual.dtype)
    torch.testing.assert_close(actual, expected, equal_nan=True, check_device=False, **tolerances)


# Squared norms and distances.


@pytest.mark.parametrize("width", [1, 2, 4095, 4097, 100_000, 1_000_003])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_distance_keeps_its_digits_at_any_width(width, rows):
    c = torch.tensor(0.1)
    # Equal terms are the worst case, as below.
    found = squared_distance(c.expand(rows, width), torch.zeros(rows, width))
    close(found, [width * c.double().square().item()] * rows, rtol=FLOAT32, atol=0)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 12])
@pytest.mark.parametrize("count", [1, 4, 12])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_fewer_rows_are_compared_with_each_group_of_as_many(size, count, layout):
    # Integers, so that no sum rounds.
    x = torch.arange(12.0 * 8).remainder(11).view(12, 2, 2, 2)
    y = torch.arange(8.0 * count).remainder(7).view(count, 2, 2, 2)
    expected = [(x[row] - y[row % count]).square().sum().item() for row in range(12)]
    out = torch.full((12, 1), NAN)
    x, y = x.contiguous(memory_format=layout), y.contiguous(memory_format=layout)
    Room(torch.empty_like(x[:size])).write_norms(y, x, out)
    # The root of a whole number is squared again.
    close(sum_of_squares(out), expected, rtol=FLOAT32, atol=0)
    close(squared_distance(x, y, room=Room(torch.empty(size, 2, 2, 2))), expected, rtol=FLOAT32, atol=0)


@pytest.mark.parametrize("width", [1, 1024, 1025, 2039, 3 * 1031, 150_528, 100_003])
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_pieces_of_a_row_are_its_entries_once_each(width, rows):
    # The norms of pieces of ones are the roots of their lengths.
    room = Room(torch.empty(rows, width))
    out = torch.full((5, room.num_pieces), NAN)
    room.write_norms(torch.zeros(1, width), torch.ones(5, width), out)
    lengths = out.double().square()
    close(lengths.sum(1), [float(width)] * 5, rtol=FLOAT32, atol=0)
    assert lengths.max() <= 1024.01
    assert room.num_pieces <= 1 + width // 256


def test_rows_that_are_interleaved_in_memory_are_kept_apart():
    # As of a transformer that has its tokens in front: images are the middle axis.
    tokens = torch.arange(2.0 * 3 * 4).view(2, 3, 4)
    x = tokens.transpose(0, 1)
    room = Room(torch.empty_like(x))
    assert torch.empty_like(x).stride(0) != 8
    close(squared_distance(x, torch.zeros(1, 2, 4), room=room), x.double().square().sum((1, 2)), rtol=FLOAT32, atol=0)


class EqualShapes(TorchDispatchMode):
    """Refuses losses of unequal shapes, as MPS does."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.mse_loss.out:
            assert args[0].shape == args[1].shape == kwargs["out"].shape
        return func(*args, **(kwargs or {}))


def test_no_device_has_to_broadcast_a_loss():
    x, y = torch.tensor([[1.0], [4.0]]), torch.tensor([[1.0]])
    with EqualShapes():
        assert squared_difference(x, y, out=torch.empty(2, 1)).tolist() == [[0.0], [9.0]]


def test_vectors_of_scalars_have_distances_too():
    assert squared_distance(torch.tensor([1.0, 4.0]), torch.tensor([3.0])).tolist() == [4.0, 1.0]


def test_grouped_distances_have_a_gradient():
    x = torch.tensor([[1.0], [4.0], [6.0], [8.0]], requires_grad=True)
    squared_distance(x, torch.tensor([[0.0], [1.0]])).sum().backward()
    assert x.grad.flatten().tolist() == [2.0, 6.0, 12.0, 14.0]


def test_mean_and_distance_in_one_read_are_the_two_apart():
    # The mean of whole numbers is 3 in each column, far from the first row.
    x = torch.tensor([[1.0, 9.0], [3.0, 0.0], [5.0, 0.0]]) + 2.0**20
    mean, distance = block_mean_and_distance(x, room=Room(torch.empty_like(x)))
    assert (mean - 2.0**20).tolist() == [[3.0, 3.0]]
    close(distance, [40.0, 9.0, 13.0], rtol=FLOAT32, atol=0)
    assert torch.equal(mean, block_mean(x))
    same = torch.full((31, 5), 0.1)
    assert not block_mean_and_distance(same, room=Room(torch.empty_like(same)))[1].any()


@pytest.mark.parametrize("width", [1, 2, 4095, 4096, 4097, 8192, 100_000])
def test_a_norm_keeps_its_digits_at_any_width(width):
    # Entries +-c have squares of c^2, whatever their signs: |x|^2 = width c^2.
    # Equal terms are the worst case: all roundings go one way. 100 000 of them in one float32 sum are 7e-5 off.
    c = torch.tensor(0.1)
    x = torch.where(normal(3, width) > 0, c, -c)
    close(squared_norm(x), torch.full((3,), width * float(c) ** 2), rtol=FLOAT32, atol=0)


@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_a_norm_is_one_number_per_image_whatever_an_image_is(shape):
    # Ones: the number of features.
    result = squared_norm(torch.ones(4, *shape))
    assert result.dtype == torch.float64
    close(result, [float(math.prod(shape))] * 4)


def test_no_image_has_no_norm_and_no_distance():
    assert squared_norm(torch.ones(0, 5)).shape == (0,)
    assert squared_norm(torch.ones(0, 5000)).shape == (0,)
    assert squared_norm(torch.ones(2, 0)).tolist() == [0.0, 0.0]
    assert squared_distance(torch.ones(0, 5), torch.ones(0, 5)).shape == (0,)


def test_memory_layout_does_not_matter():
    x, y = pair(4, 3, 5, 6, dtype=torch.float32)
    last = squared_distance(x.to(memory_format=torch.channels_last), y.to(memory_format=torch.channels_last))
    close(last, squared_distance(x, y), rtol=FLOAT32, atol=0)


def test_a_distance_is_subtracted_before_it_is_squared():
    # Both lie at 1000, one apart in each of 10 features; |x|^2 + |y|^2 - 2 x.y would cancel ten million to ten.
    x = torch.full((2, 10), 1000.0)
    close(squared_distance(x + 1, x), [10.0, 10.0])


# 40 images of 2^16 features are 5 pieces of 8 images; 37 leave a piece of 5.
@pytest.mark.parametrize("count", [1, 8, 37, 40])
@pytest.mark.parametrize("single", [False, True])
def test_a_distance_taken_in_pieces_is_the_distance(count, single):
    # Image i is i everywhere, so it lies |i - y|^2 2^16 from y; all numbers are whole.
    x = torch.arange(count, dtype=torch.float32).view(-1, 1).expand(-1, 2**16)
    y = torch.full((1, 2**16), 3.0) if single else 2 * x
    other = torch.full((count,), 3.0) if single else 2 * torch.arange(count)
    close(squared_distance(x, y), (torch.arange(count) - other).double().square() * 2**16, rtol=FLOAT32, atol=0)


@pytest.mark.parametrize("rows", [1, 3, 7, 9])
def test_a_buffer_of_any_number_of_rows_is_written_into_and_changes_nothing(rows):
    x, y = pair(7, 2, 3)
    buffer = torch.full((rows, 2, 3), NAN, dtype=torch.float64)
    close(squared_distance(x, y, room=Room(buffer)), squared_distance(x, y), rtol=0, atol=0)
    assert buffer[: min(rows, 7)].isfinite().all()


def test_a_piece_is_at_least_one_image_and_at_most_all():
    assert len(piece_of(torch.empty(4, 2**20))) == 1
    assert len(piece_of(torch.empty(4, 5))) == 4
    assert len(piece_of(torch.empty(0, 5))) == 0


def test_distances_of_activations_that_train_carry_gradients():
    # d|x - y|^2 / dx = 2 (x - y)
    x, y = pair(4, 3)
    squared_distance(x.requires_grad_(), y).sum().backward()
    close(x.grad, 2 * (x - y).detach())


def test_half_precision_is_widened_and_the_rest_left_alone():
    for dtype in (torch.float16, torch.bfloat16):
        assert upcast(torch.ones(2, dtype=dtype)).dtype == torch.float32
    for dtype in (torch.float32, torch.float64):
        x = torch.ones(2, dtype=dtype)
        assert upcast(x) is x


def test_sums_are_float64_except_on_mps_which_has_none():
    assert accumulation_dtype(torch.device("cpu")) == torch.float64
    assert accumulation_dtype(torch.device("mps")) == torch.float32


# Means and deviations of a block.


@pytest.mark.parametrize("value", [0.1, -1e-30, 1e30, 12345.678])
@pytest.mark.parametrize("count", [1, 3, 32])
def test_images_that_are_all_the_same_are_their_mean_exactly(value, count):
    # 0.1 + 0.1 + 0.1 isn't 3 x 0.1 in float32, and a dead layer must not look alive.
    x = torch.full((count, 5), value)
    assert torch.equal(block_mean(x), x[:1])


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
