import math

import pytest
import torch
from support.activations import LAYER, estimate, measured, normal, pair, prepared, record_of

from kornia_lightning_probe.activations.clean import Centre, CleanBlock
from kornia_lightning_probe.activations.readouts import readouts_of
from kornia_lightning_probe.metrics import (
    FlatSensitivity,
    PooledSensitivity,
    SharedShift,
    Site,
    Spread,
    SpreadRatio,
)

BLOCKS = [range(17), range(17, 33)]
POOLED = [PooledSensitivity(), Spread(), SpreadRatio(), SharedShift()]
every_measure = pytest.mark.parametrize("metric", POOLED, ids=lambda metric: metric.name)
ROOT_HALF = 0.5**0.5


def value(metric, clean, augmented, blocks=None):
    return float(estimate(metric, clean, augmented, blocks).value)


def pooled(maps):
    """What the engine takes of maps."""
    (readout,) = [r for r in readouts_of(Site(LAYER, 1, tuple(maps.shape[1:]))) if r.site.representation == "pooled"]
    return readout.take(maps)


def between(block):
    """The mean squared distance of two different images, from all pairs."""
    distance = torch.cdist(block, block).square()
    return distance.sum() / (len(block) * (len(block) - 1))


# What tells one kind of change from another.


def test_all_images_wiped_to_their_mean_read_as_erasure():
    # d_i = |a_i - m|^2 = (n-1)/n e_i, so S = sqrt((n-1)/n / 2); no image differs from another any more.
    clean = normal(32, 5)
    wiped = clean.mean(0, keepdim=True).expand_as(clean)
    assert value(PooledSensitivity(), clean, wiped, [range(32)]) == pytest.approx((31 / 32) ** 0.5 * ROOT_HALF)
    assert value(SpreadRatio(), clean, wiped, [range(32)]) == pytest.approx(0, abs=1e-12)
    # The movements m - a_i sum to zero, so those of two images point apart: -1/(n-1) of their length.
    assert value(SharedShift(), clean, wiped, [range(32)]) == pytest.approx(-1 / 31)


def test_one_shift_for_all_images_reads_as_such():
    # A shift as long as the root of the mean e gives S = sqrt(1/2), and leaves all distances between images.
    clean = normal(33, 5)
    apart = torch.cat([between(clean[list(ids)]).expand(len(ids)) for ids in BLOCKS]).mean() / 2
    shift = normal(5, seed=4)
    moved = clean + shift / shift.norm() * apart.sqrt()
    assert value(PooledSensitivity(), clean, moved, BLOCKS) == pytest.approx(ROOT_HALF)
    assert value(SharedShift(), clean, moved, BLOCKS) == pytest.approx(1)
    assert value(SpreadRatio(), clean, moved, BLOCKS) == pytest.approx(1)


def test_a_rolled_map_has_moved_and_its_mean_has_not():
    # For independent cells a roll replaces every cell by an unrelated one, so S is near 1; the mean is the same sum.
    maps = normal(16, 3, 6, 6, dtype=torch.float32)
    rolled = maps.roll(1, 3)
    assert 0.9 < value(FlatSensitivity(), maps, rolled) < 1.1
    assert value(PooledSensitivity(), pooled(maps), pooled(rolled)) < 1e-6


# Definitions.


def test_spread_is_the_distance_between_two_images():
    clean = normal(33, 5)
    distances = torch.stack([between(clean[list(ids)]) for ids in BLOCKS])
    expected = (torch.tensor([17, 16]).double() @ distances / 33).sqrt()
    assert value(Spread(), clean, clean, BLOCKS) == pytest.approx(expected.item())


def test_spread_is_the_same_under_every_view():
    clean, augmented = pair(33)
    assert value(Spread(), clean, clean) == value(Spread(), clean, 1000 * augmented)


def test_pooled_sensitivity_is_sensitivity_of_pooled_features():
    maps, moved = pair(33, 4, 3, 3)
    assert value(PooledSensitivity(), pooled(maps), pooled(moved)) == pytest.approx(
        value(FlatSensitivity(), maps.mean((2, 3)), moved.mean((2, 3))), rel=1e-12
    )


# Invariances.


@every_measure
def test_rotating_and_shifting_features_changes_nothing(metric):
    clean, augmented = pair(33)
    rotation = torch.linalg.qr(normal(6, 6, seed=5)).Q
    assert value(metric, clean @ rotation + 20, augmented @ rotation + 20) == pytest.approx(
        value(metric, clean, augmented), rel=1e-9
    )


@every_measure
def test_a_change_of_unit_changes_spread_alone(metric):
    clean, augmented = pair(33)
    factor = 10 if metric.name == "spread" else 1
    assert value(metric, 10 * clean, 10 * augmented) == pytest.approx(factor * value(metric, clean, augmented))


# Edges.


def test_a_dead_layer_has_no_spread_and_nothing_to_compare():
    dead = torch.full((8, 3), 0.1)
    moved = dead + normal(8, 3, dtype=torch.float32)
    assert value(Spread(), dead, moved) == 0
    assert math.isnan(value(PooledSensitivity(), dead, moved))
    assert math.isnan(value(SpreadRatio(), dead, moved))
    # What moves still moves together or not.
    assert value(SharedShift(), dead, dead + 1) == pytest.approx(1)


def test_where_nothing_moves_nothing_is_shared():
    clean = normal(8, 3)
    assert math.isnan(value(SharedShift(), clean, clean))
    assert value(SpreadRatio(), clean, clean) == pytest.approx(1)


@every_measure
def test_one_image_says_nothing_about_others(metric):
    assert math.isnan(value(metric, *pair(1)))


@every_measure
@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_an_image_that_is_not_finite_without_the_view_is_as_if_it_were_not_there(metric, broken):
    clean, augmented = pair(9)
    kept = [row for row in range(9) if row != 3]
    expected = measured(metric, clean[kept], augmented[kept]).table.flatten(1)
    clean[3, 1] = broken
    table = measured(metric, clean, augmented).table.flatten(1)
    torch.testing.assert_close(table[:, kept], expected, rtol=1e-12, atol=1e-15)
    assert table[:, 3].isnan().all()


@every_measure
def test_an_image_that_is_not_finite_under_the_view_is_left_out_of_what_moves(metric):
    clean, augmented = pair(9)
    kept = [row for row in range(9) if row != 3]
    whole = measured(metric, clean, augmented).table.flatten(1)
    rest = measured(metric, clean[kept], augmented[kept]).table.flatten(1)
    augmented[3, 1] = math.nan
    table = measured(metric, clean, augmented).table.flatten(1)
    # Clean deviations and each image's own movement keep all images; what images have in common under the view doesn't.
    for name, row, before, without in zip(metric.statistics, table, whole, rest, strict=True):
        torch.testing.assert_close(
            row[kept], without if name in ("after", "shared") else before[kept], rtol=1e-12, atol=0
        )
    assert estimate(metric, clean, augmented).num_images == (9 if metric.name == "spread" else 8)


def test_images_that_are_not_finite_reach_no_other_block():
    clean, augmented = pair(33)
    broken = augmented.clone()
    broken[20] = math.nan
    for metric in POOLED:
        tables = [measured(metric, clean, moved, BLOCKS).table.flatten(1)[:, :17] for moved in (augmented, broken)]
        assert torch.equal(*tables)


def test_a_single_image_beside_a_reference():
    # Spread and sensitivity are known from the reference, what needs two images under the view is not.
    centre = Centre(torch.zeros(1, 2), torch.tensor(8.0, dtype=torch.float64))
    block = CleanBlock(torch.tensor([[1.0, 0.0]]), centre=centre)
    record = record_of(block, torch.tensor([[1.0, 2.0]]))
    found = {}
    for metric in POOLED:
        ready = prepared(metric, 1)
        ready.update(record.clean, record.augmented, record)
        found[metric.name] = float(ready.compute().value)
    # sqrt(4 / 16) and sqrt(16).
    assert found.pop("sensitivity_pooled") == pytest.approx(0.5)
    assert found.pop("spread") == pytest.approx(4)
    assert all(math.isnan(other) for other in found.values())


# Where they apply.


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        ((4, 8, 8), ["layer"]),
        ((7, 7, 96), ["layer"]),
        ((17, 8), ["layer:cls", "layer:patch"]),
        ((16, 8), ["layer"]),
        ((3, 4, 5, 6), ["layer"]),
    ],
)
def test_maps_and_sequences_have_a_pooled_sensitivity(shape, names):
    sites = [readout.site for readout in readouts_of(Site("layer", 1, shape))]
    assert [site.name for site in sites if PooledSensitivity().applies_to(site)] == names


def test_vectors_have_none_since_it_would_be_sensitivity_again():
    sites = [readout.site for readout in readouts_of(Site("fc", 1, (5,)))]
    assert not any(PooledSensitivity().applies_to(site) for site in sites)
    assert sum(Spread().applies_to(site) for site in sites) == 1
