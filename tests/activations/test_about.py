import dataclasses
import math

import pytest
import torch
from support.activations import LAYER, estimate, measured, normal, pair, prepared

from kornia_lightning_probe.activations.clean import MeanOfBlocks, mask_non_finite
from kornia_lightning_probe.metrics import (
    About,
    Centre,
    CleanBlock,
    LayerSensitivity,
    RelativeChange,
    Scratch,
    Site,
    Temporaries,
)

NAN = math.nan
SITE = Site(LAYER, 1, (1,))


def column(*numbers):
    """Images of one feature each."""
    return torch.tensor(numbers, dtype=torch.float64).unsqueeze(1)


def close(actual, expected):
    expected = torch.as_tensor(expected, dtype=actual.dtype)
    torch.testing.assert_close(actual, expected, equal_nan=True)


# Clean blocks.


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
    assert About.of(activation, activation, layer=LAYER).augmented.dtype == torch.float32


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


# The record of a pair.


def test_a_record_knows_how_far_images_moved_and_how_far_they_are_from_the_mean():
    # b - a = 1, -2, 3; m = 2, b - m = -1, -2, 5.
    record = About.of(column(0, 2, 4), column(1, 0, 7), layer=LAYER)
    close(record.squared_distance, [1.0, 4.0, 9.0])
    close(record.squared_deviation, [1.0, 4.0, 25.0])
    close(record.deviation, [6.0, 0.0, 6.0])
    close(record.clean, column(0, 2, 4))
    assert record.layer == LAYER
    assert record.valid.all()


def test_distances_are_computed_once():
    record = About.of(*pair(4), layer=LAYER)
    assert record.squared_distance is record.squared_distance
    assert record.squared_deviation is record.squared_deviation


def test_distances_survive_the_buffer_that_they_were_computed_in():
    record = About.of(*pair(4), layer=LAYER)
    before = record.squared_distance.clone()
    assert record.squared_deviation is not None
    assert torch.equal(record.squared_distance, before)


def test_what_metrics_share_is_computed_once():
    calls = []
    record = About.of(*pair(4), layer=LAYER)

    def compute():
        calls.append(1)
        return len(calls)

    assert [record.remember("a", compute), record.remember("a", compute), record.remember("b", compute)] == [1, 1, 2]
    assert record.block.remember("a", compute) == 3


def test_a_record_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        About.of(*pair(4), layer=LAYER).view_index = 3


@pytest.mark.parametrize("cuts", [[3], [1, 2, 3, 4, 5, 6, 7], [7]])
@pytest.mark.parametrize("metric", [LayerSensitivity(), RelativeChange()], ids=lambda metric: metric.name)
def test_a_block_that_passes_in_pieces_gives_the_same_numbers(metric, cuts):
    clean, augmented = pair(8)
    block = CleanBlock(clean)
    cut = prepared(metric, 8)
    for start, stop in zip([0, *cuts], [*cuts, 8], strict=True):
        rows = slice(start, stop)
        cut.update(clean[rows], augmented[rows], About(augmented[rows], block, rows, (start, stop), SITE))
    torch.testing.assert_close(cut.table, measured(metric, clean, augmented).table, rtol=1e-12, atol=0)


def test_labels_and_the_view_are_passed_on():
    labels = torch.tensor([3, 1])
    record = About.of(*pair(2), layer=LAYER, labels=labels, view_index=2, ids=[5, 6])
    assert record.labels is labels
    assert (record.view_index, record.ids, record.site.shape) == (2, (5, 7), (6,))


def test_ids_may_be_a_tensor():
    assert About.of(*pair(3), layer=LAYER, ids=torch.tensor([4, 5, 6])).ids == (4, 7)


@pytest.mark.parametrize("ids", [[0, 2], [1, 0], [0], [0, 1, 2], []])
def test_ids_that_are_not_consecutive_numbers_of_the_images_are_an_error(ids):
    with pytest.raises(ValueError, match=r"ids must be 2 consecutive image numbers, got \["):
        About.of(*pair(2), layer=LAYER, ids=ids)


def test_activations_of_two_shapes_are_an_error():
    expected = r"must have one shape, got \(2, 6\) and \(2, 5\)"
    with pytest.raises(ValueError, match=expected):
        About.of(normal(2, 6), normal(2, 5), layer=LAYER)


def test_no_image_is_an_error():
    with pytest.raises(ValueError, match="image"):
        About.of(normal(0, 6), normal(0, 6), layer=LAYER)


def test_one_number_per_image_is_an_activation():
    # A regression's output (B,): the same numbers as (B, 1).
    clean, augmented = pair(8, 1)
    metric = prepared(LayerSensitivity(), 8)
    metric.update(clean[:, 0], augmented[:, 0], About.of(clean[:, 0], augmented[:, 0], layer=LAYER))
    assert metric.compute() == estimate(LayerSensitivity(), clean, augmented)


# The buffer.


def test_a_buffer_is_used_again_where_it_is_large_enough():
    scratch = Scratch()
    large = scratch.like(torch.empty(4, 5))
    small = scratch.like(torch.empty(2, 3))
    assert small.data_ptr() == large.data_ptr()
    assert small.shape == (2, 3)


@pytest.mark.parametrize("x", [torch.empty(9, 9), torch.empty(2, 2, dtype=torch.float64), torch.empty(0, 3)])
def test_a_buffer_has_the_shape_and_dtype_asked_for(x):
    scratch = Scratch()
    scratch.like(torch.empty(4, 4))
    assert scratch.like(x).shape == x.shape
    assert scratch.like(x).dtype == x.dtype


def test_each_shape_of_an_image_has_a_buffer_of_its_own():
    temporaries = Temporaries()
    large = temporaries.like(torch.empty(4, 5))
    assert temporaries.like(torch.empty(3, 5)).data_ptr() == large.data_ptr()
    assert temporaries.like(torch.empty(4, 6)).data_ptr() != large.data_ptr()
