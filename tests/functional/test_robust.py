import math

import pytest
import torch
from support.activations import normal

from kornia_lightning_probe.functional import (
    deviation_within,
    median,
    near_distance,
    pair_distances,
    root_of_ratio_of_medians,
)
from kornia_lightning_probe.functional.influence import shares
from kornia_lightning_probe.functional.robust import loud_parts, resampled_medians

NAN = math.nan


def everybody(count):
    return torch.ones(count, dtype=torch.bool)


def test_pairs_keep_their_digits_beside_images_a_million_times_farther_away():
    # The first two are 1 apart, and the third a million; float32 squares of that would leave nothing of the 1.
    x = torch.tensor([[0.0, 0.0], [0.6, 0.8], [1e6, 0.0]])
    found = pair_distances(x + 3.0)
    assert found[0, 1] == pytest.approx(1.0, rel=1e-3)
    assert found[0, 2] == pytest.approx(1e12, rel=1e-6)
    assert torch.equal(found, found.T)
    assert not found.diagonal().any()


def test_pairs_of_images_do_not_depend_on_how_their_axes_lie_in_memory():
    maps = normal(5, 4, 6, 7, dtype=torch.float32)
    last = maps.to(memory_format=torch.channels_last)
    torch.testing.assert_close(pair_distances(last), pair_distances(maps), rtol=1e-12, atol=0)


def test_the_farthest_tenth_of_the_others_does_not_count_rounded_up():
    # Images on a line at 0 to 11: of the first one's 11 others the two farthest are left out, 1 to 9 remain.
    line = torch.arange(12.0).unsqueeze(1)
    found = near_distance(pair_distances(line), everybody(12))
    assert found[0].item() == pytest.approx(sum(i * i for i in range(1, 10)) / 9)


@pytest.mark.parametrize(("count", "expected"), [(1, NAN), (2, 1.0), (3, 1.0)])
def test_one_other_image_is_always_left(count, expected):
    line = torch.arange(float(count)).unsqueeze(1)
    assert near_distance(pair_distances(line), everybody(count))[0].item() == pytest.approx(expected, nan_ok=True)


def test_images_that_are_not_there_are_nobodys_others():
    line = torch.tensor([[0.0], [1.0], [50.0], [2.0]])
    there = torch.tensor([True, True, False, True])
    assert near_distance(pair_distances(line), there).tolist()[:2] == [1.0, 1.0]
    assert near_distance(pair_distances(line), there)[2].isnan()
    labels = torch.zeros(4, dtype=torch.int64)
    # 0, 1 and 2 have the mean 1: 3/2 times the squares 1, 0 and 1.
    assert deviation_within(pair_distances(line), there, labels).nan_to_num(-1.0).tolist() == pytest.approx(
        [1.5, 0.0, -1.0, 1.5]
    )


def test_images_without_a_class_have_no_class_mates():
    pairs = pair_distances(torch.tensor([[0.0], [1.0], [2.0]]))
    assert deviation_within(pairs, everybody(3), torch.tensor([-100, -100, 3])).isnan().all()


def test_within_one_class_the_deviation_is_that_between_images():
    x = normal(9, 5)
    expected = 9 / 8 * (x - x.mean(0)).square().sum(1)
    found = deviation_within(pair_distances(x), everybody(9), torch.full((9,), 4))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_median_is_between_the_middle_two_and_skips_what_is_not_known():
    assert median(torch.tensor([4.0, 1.0, 2.0, 100.0])).item() == 3.0
    assert median(torch.tensor([NAN, 1.0, 5.0, 2.0])).item() == 2.0
    assert median(torch.tensor([NAN])).isnan()


def test_medians_of_samples_are_those_of_the_samples_written_out():
    values = normal(3, 9).abs()
    values[1, 4] = NAN
    counts = torch.randint(0, 4, (9, 20), generator=torch.Generator().manual_seed(0), dtype=torch.int16)
    counts[:, 7] = 0
    found = resampled_medians(values, counts)
    for row in range(3):
        for sample in range(20):
            drawn = values[row].repeat_interleave(counts[:, sample].long())
            known = drawn[drawn.isfinite()]
            expected = known.quantile(0.5).item() if len(known) else NAN
            assert found[row, sample].item() == pytest.approx(expected, nan_ok=True)


def test_the_error_of_a_median_is_the_spread_over_draws():
    draws = torch.Generator().manual_seed(0)
    moved = torch.randn(300, 200, generator=draws).double().square() + 0.5
    apart = torch.randn(300, 200, generator=draws).double().square() + 1.0
    found = root_of_ratio_of_medians(moved, apart)
    # 300 draws know a spread to 4 %, a bootstrap is known to 5 %, and of a median of 200 it is some % too large.
    assert found.std_error.mean() / found.value.std() == pytest.approx(1, abs=0.2)


def test_the_error_of_a_median_is_the_spread_over_draws_where_the_images_of_a_block_err_together():
    # Two clumps, 80 and 20 of a hundred: an image's near distance depends on how many of its block are in its clump.
    draws = torch.Generator().manual_seed(0)
    blocks = [(start, start + 32) for start in range(0, 256, 32)]
    found = []
    for _ in range(150):
        clump = (torch.rand(256, generator=draws) < 0.2).double()
        images = torch.randn(256, 4, generator=draws).double() + 8 * clump.unsqueeze(1)
        distances = [pair_distances(images[start:stop]) for start, stop in blocks]
        apart = torch.cat([near_distance(pairs, everybody(32)) for pairs in distances])
        moved = torch.randn(256, 4, generator=draws).double().square().sum(1)
        alone = root_of_ratio_of_medians(moved, apart).std_error
        found.append((*root_of_ratio_of_medians(moved, apart, blocks=blocks)[::3], alone))
    values, errors, alone = (torch.stack(column) for column in zip(*found, strict=True))
    # Eight blocks know an error to a fourth of it.
    assert errors.mean() / values.std() == pytest.approx(1, abs=0.25)
    assert alone.mean() / values.std() < 0.6


def test_the_error_is_that_of_the_influence_and_the_same_every_time():
    moved, apart = normal(4, 50).square(), normal(4, 50, seed=1).square() + 0.1
    found, again = (root_of_ratio_of_medians(moved, apart) for _ in range(2))
    assert torch.equal(found.std_error, again.std_error)
    torch.testing.assert_close(shares(found.influence).square().sum(-1).sqrt(), found.std_error)


def test_where_nothing_moves_the_median_is_zero_and_so_is_its_error():
    found = root_of_ratio_of_medians(torch.zeros(2, 8), torch.ones(2, 8))
    assert found.value.tolist() == found.std_error.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("moved", "apart"), [([NAN, NAN], [1.0, 1.0]), ([1.0, 1.0], [0.0, 0.0])])
def test_without_images_or_between_equal_ones_there_is_no_median(moved, apart):
    found = root_of_ratio_of_medians(torch.tensor([moved]), torch.tensor([apart]))
    assert found.value.isnan().all()
    assert found.std_error.isnan().all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # Two of 96 with more than ten times 1/96 each, together more than half.
        ([40.0, 40.0] + [0.2] * 94, [0, 1]),
        # The same two hold less than half together.
        ([20.0, 20.0] + [1.0] * 94, []),
        # One alone with more than half of four, and of three.
        ([6.0, 1.0, 1.0, 1.0], [0]),
        ([6.0, 1.0, 1.0], []),
        ([1.0] * 30, []),
        # What is not known has no share, and does not count among the four.
        ([6.0, 1.0, 1.0, NAN], []),
    ],
)
def test_who_speaks_for_all(values, expected):
    held = torch.tensor(values)
    assert loud_parts(held / held.nansum()).nonzero().flatten().tolist() == expected
