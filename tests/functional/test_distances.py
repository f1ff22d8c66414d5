import math

import pytest
import torch
from support.activations import normal, pair
from torch.utils._python_dispatch import TorchDispatchMode

from kornia_lightning_probe.functional.distances import (
    Room,
    accumulation_dtype,
    block_mean,
    block_mean_and_distance,
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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_mean_of_a_block_in_half_precision_is_rounded_once(dtype):
    # 1000 numbers whose sum is beyond the largest of float16, 65504.
    values = torch.linspace(0, 200, 1000).to(dtype).unsqueeze(1)
    mean = block_mean(values)
    assert mean.dtype == dtype
    close(mean.double(), values.double().mean(0, keepdim=True), rtol=torch.finfo(dtype).eps, atol=0)


def test_the_mean_of_a_block_is_taken_of_differences_that_half_precision_does_not_hold():
    # 1.2e5 apart, beyond the largest of float16.
    values = torch.tensor([[-6e4], [6e4]], dtype=torch.float16)
    assert block_mean(values).item() == 0.0


class LargestMade(TorchDispatchMode):
    """The most numbers that any tensor made in it has, views left aside."""

    def __init__(self):
        super().__init__()
        self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made._base is None:
            self.most = max(self.most, made.numel())
        return made


def test_the_mean_of_a_block_of_large_maps_makes_nothing_of_the_size_of_the_block():
    # Four parts of 2^20 numbers, each an image.
    values = torch.rand(4, 2**20, generator=torch.Generator().manual_seed(0))
    with LargestMade() as made:
        mean = block_mean(values)
    assert made.most == 2**20
    close(mean, values.double().mean(0, keepdim=True).float(), rtol=1e-6, atol=0)
