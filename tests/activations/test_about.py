import dataclasses

import pytest
import torch
from support.activations import LAYER, estimate, measured, normal, numbers, pair, prepared, record_of

from kornia_lightning_probe.activations.clean import CleanBlock
from kornia_lightning_probe.metrics import About, LayerSensitivity, RelativeChange


def column(*numbers):
    """Images of one feature each."""
    return torch.tensor(numbers, dtype=torch.float64).unsqueeze(1)


def close(actual, expected):
    expected = torch.as_tensor(expected, dtype=actual.dtype)
    torch.testing.assert_close(actual, expected, equal_nan=True)


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
        About.of(*pair(4), layer=LAYER).site = None


@pytest.mark.parametrize("cuts", [[3], [1, 2, 3, 4, 5, 6, 7], [7]])
@pytest.mark.parametrize("metric", [LayerSensitivity(), RelativeChange()], ids=lambda metric: metric.name)
def test_a_block_that_passes_in_pieces_gives_the_same_numbers(metric, cuts):
    clean, augmented = pair(8)
    block = CleanBlock(clean)
    cut = prepared(metric, 8)
    for start, stop in zip([0, *cuts], [*cuts, 8], strict=True):
        rows = slice(start, stop)
        cut.update(clean[rows], augmented[rows], record_of(block, augmented[rows], rows=rows))
    torch.testing.assert_close(cut.table, measured(metric, clean, augmented).table, rtol=1e-12, atol=0)


def test_labels_and_the_view_are_passed_on():
    labels = torch.tensor([3, 1])
    record = About.of(*pair(2), layer=LAYER, labels=labels, view_index=2, ids=[5, 6])
    assert record.labels is labels
    assert (record.shown.views, record.ids, record.site.shape) == (range(2, 3), (5, 7), (6,))


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
    assert numbers(metric.compute()) == numbers(estimate(LayerSensitivity(), clean, augmented))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened(dtype):
    activation = column(0, 2, 4).to(dtype)
    assert About.of(activation, activation, layer=LAYER).augmented.dtype == torch.float32
