import math

import pytest
import torch

from kornia_lightning_probe.activations.clean import Centre, CleanBlock, MeanOfBlocks, mask_non_finite

NAN = math.nan


def column(*numbers):
    """Images of one feature each."""
    return torch.tensor(numbers, dtype=torch.float64).unsqueeze(1)


def close(actual, expected):
    expected = torch.as_tensor(expected, dtype=actual.dtype)
    torch.testing.assert_close(actual, expected, equal_nan=True)


def test_a_block_knows_its_mean_deviations_and_lengths():
    # Mean 2; |a - m|^2 = 4, 0, 4; times 3/2; |a|^2 = 0, 4, 16.
    block = CleanBlock(column(0, 2, 4))
    close(block.mean, [[2.0]])
    close(block.squared_deviation, [4.0, 0.0, 4.0])
    close(block.deviation, [6.0, 0.0, 6.0])
    close(block.squared_length, [0.0, 4.0, 16.0])
    assert block.valid.all()


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 4)])
@pytest.mark.parametrize("bad", [NAN, math.inf, -math.inf])
def test_an_image_that_is_not_finite_is_zero_and_no_part_of_the_mean(shape, bad):
    # Without image 1 the numbers 0 and 4 are left in every feature: mean 2, |a - m|^2 = 4 a feature, times 2/1.
    activation = torch.stack([torch.full(shape, x) for x in (0.0, 1.0, 4.0)])
    activation.view(3, -1)[1, 0] = bad
    features = math.prod(shape)
    block = CleanBlock(activation)
    mask_non_finite([block])
    close(block.mean, torch.full((1, *shape), 2.0))
    close(block.deviation, [8.0 * features, NAN, 8.0 * features])
    close(block.squared_length, [0.0, NAN, 16.0 * features])
    assert block.valid.tolist() == [True, False, True]
    assert not block.activation[1].any()
    assert not activation.view(3, -1)[1, 0].isfinite()


def test_masking_leaves_blocks_without_such_images_as_they_are():
    good, bad = CleanBlock(column(0, 2, 4)), CleanBlock(column(0, NAN, 4))
    mask_non_finite([good, bad])
    close(good.deviation, [6.0, 0.0, 6.0])
    close(bad.deviation, [8.0, NAN, 8.0])


def test_a_block_without_a_finite_image_has_no_deviation():
    block = CleanBlock(column(NAN, math.inf))
    mask_non_finite([block])
    assert block.deviation.isnan().all()
    assert not block.valid.any()


def test_one_image_has_no_deviation():
    assert CleanBlock(column(3)).deviation.isnan().all()
    rest = CleanBlock(column(3, NAN))
    mask_non_finite([rest])
    assert rest.deviation.isnan().all()


@pytest.mark.parametrize("default", [torch.float32, torch.bfloat16, torch.float16])
def test_a_deviation_has_all_its_digits_whatever_the_default_dtype(default):
    # All of 32 images lie 1 from their mean: e = 32/31, which bfloat16 rounds by 1e-3. Lightning's half-precision
    # plugins make that the default dtype of a forward pass, and so of a hook.
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        deviation = CleanBlock(column(*[-1, 1] * 16)).deviation
    finally:
        torch.set_default_dtype(before)
    torch.testing.assert_close(deviation, torch.full((32,), 32 / 31, dtype=torch.float64), rtol=1e-14, atol=0)


def test_a_block_copies_its_activation_unless_it_owns_it():
    activation = column(0, 2, 4)
    assert CleanBlock(activation, owned=True).activation is activation
    copied = CleanBlock(activation)
    activation.zero_()
    close(copied.activation, column(0, 2, 4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened(dtype):
    activation = column(0, 2, 4).to(dtype)
    assert CleanBlock(activation).activation.dtype == torch.float32


# Reference images.


def centre_of(*blocks):
    mean = MeanOfBlocks()
    for block in blocks:
        mean.add(block)
    return mean.value()


def test_no_block_has_no_centre():
    with pytest.raises(ValueError, match="the reference gives no activation at a layer that runs on the probe images"):
        centre_of()


def test_a_centre_is_the_mean_of_all_reference_images_and_of_their_deviations():
    # Blocks (0, 2, 4) and (10, 12): mean of all 28/5; e = 6, 0, 6 and 2, 2, mean 16/5.
    centre = centre_of(CleanBlock(column(0, 2, 4)), CleanBlock(column(10, 12)))
    close(centre.mean, [[5.6]])
    close(centre.deviation, 3.2)


def test_a_centre_leaves_out_reference_images_that_are_not_finite():
    block = CleanBlock(column(0, NAN, 4))
    mask_non_finite([block])
    centre = centre_of(block)
    close(centre.mean, [[2.0]])
    close(centre.deviation, 8.0)


def test_a_block_with_a_centre_takes_mean_and_deviation_from_it():
    block = CleanBlock(column(1, 5), centre=Centre(column(2), torch.tensor(3.2).double()))
    close(block.mean, [[2.0]])
    close(block.squared_deviation, [1.0, 9.0])
    close(block.deviation, [3.2, 3.2])


def test_a_block_with_a_centre_still_masks_what_is_not_finite():
    block = CleanBlock(column(1, NAN), centre=Centre(column(2), torch.tensor(3.2).double()))
    mask_non_finite([block])
    close(block.deviation, [3.2, NAN])
    close(block.mean, [[2.0]])
