import math

import pytest
import torch
from support.activations import normal
from support.readings import MOVING, STILL, Sees, SeesBlocks, prepared_for, readings_of, site_of

from kornia_lightning_probe.activations.about import Shown
from kornia_lightning_probe.engine.under_views.readings import Rows, runs

CLEAN = normal(4, 3, 2, 2, dtype=torch.float32)
SITE = site_of("conv", (3, 2, 2))


def shown(views=range(1), rows=slice(0, 4)):
    return Shown((rows.start, rows.stop), rows, views=views)


@pytest.mark.parametrize(
    ("numbers", "ranges"),
    [([], []), ([3], [range(3, 4)]), ([0, 1, 2], [range(3)]), ([0, 2, 3, 7], [range(1), range(2, 4), range(7, 8)])],
)
def test_ascending_numbers_are_cut_where_one_is_missing(numbers, ranges):
    assert list(runs(numbers)) == ranges


# Rows.


def test_rows_wait_until_they_are_written_and_are_then_gone():
    prepared = prepared_for([Sees()], SITE)
    metric, rows = prepared.metrics["sees"], Rows()
    rows.add(metric, "conv", {"total": torch.arange(4.0)}, range(1), (0, 4), None)
    rows.add(metric, "conv", {}, range(1, 2), (0, 4), None)
    assert not metric.filled.any()
    rows.write(prepared.metrics)
    rows.write(prepared.metrics)
    assert metric.table[0, 0, 0].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert metric.filled[:, 0].tolist() == [[1] * 4, [0] * 4, [0] * 4]


def test_images_that_are_not_valid_at_one_layer_are_at_another():
    prepared = prepared_for([Sees()], SITE, site_of("fc", (2,), 2))
    metric, rows = prepared.metrics["sees"], Rows()
    some = torch.tensor([True, False, True, True])
    for layer, valid in (("conv", some), ("fc", None)):
        rows.add(metric, layer, {"total": torch.ones(4)}, range(1), (0, 4), valid)
    rows.write(prepared.metrics)
    assert metric.table[0, 0].isnan().tolist() == [[False, True, False, False], [False] * 4]


# A reading.


def reading_of(metric, clean=CLEAN, views=(STILL,) * 3):
    prepared = prepared_for([metric], SITE, views=views)
    readings = readings_of(prepared, {"conv": clean})["conv"]
    (reading,) = [one for one in readings if any(wish.metric.name == prepared_name(metric) for wish in one.wishes)]
    return prepared, reading


def prepared_name(metric):
    return metric if isinstance(metric, str) else metric.name


def test_of_distances_the_norms_are_kept_and_of_blocks_all_that_is_read():
    _, distances = reading_of("cosine")
    assert [tuple(one.shape) for one in distances.templates()] == [(4, 1), (4, 1)]
    _, block = reading_of(SeesBlocks())
    assert [tuple(one.shape) for one in block.templates()] == [(4, 3)]


def test_what_writers_leave_behind_is_what_distances_are_made_of():
    _, reading = reading_of("cosine")
    augmented = CLEAN + normal(4, 3, 2, 2, seed=1, dtype=torch.float32)
    for rows in (slice(0, 4), slice(1, 3)):
        kept = [torch.full((rows.stop - rows.start, 1), math.nan) for _ in range(2)]
        for write, slot in zip(reading.writers(rows), kept, strict=True):
            write(augmented[rows], slot)
        expected = (
            (augmented - CLEAN)[rows].flatten(1).norm(dim=1),
            (augmented - CLEAN.mean(0))[rows].flatten(1).norm(dim=1),
        )
        for found, wanted in zip(kept, expected, strict=True):
            torch.testing.assert_close(found[:, 0], wanted)


def test_a_block_is_measured_under_the_views_that_its_metric_wants():
    class Picky(SeesBlocks):
        name = "picky"

        def wants_view(self, site, view):
            return view is not MOVING

    prepared, reading = reading_of(Picky(), views=(STILL, MOVING, STILL))
    rows = Rows()
    reading.measure_kept([torch.ones(3, 4, 3)], shown(range(3)), rows)
    rows.write(prepared.metrics)
    metric = prepared.metrics["picky"]
    assert metric.filled[:, 0, 0].tolist() == [1, 0, 1]


def test_a_view_is_measured_where_its_metric_wants_it():
    class Picky(Sees):
        name = "picky"

        def wants_view(self, site, view):
            return view is MOVING

    prepared, reading = reading_of(Picky(), views=(STILL, MOVING))
    rows = Rows()
    for view in range(2):
        reading.measure_view(CLEAN, shown(range(view, view + 1)), rows)
    rows.write(prepared.metrics)
    assert prepared.metrics["picky"].filled[:, 0, 0].tolist() == [0, 1]


def test_images_that_were_not_finite_without_a_view_count_in_none():
    clean = CLEAN.clone()
    clean[1, 0, 0, 0] = math.inf
    prepared, reading = reading_of(Sees(), clean)
    assert reading.valid is None
    reading.clean.mask_non_finite()
    assert reading.valid.tolist() == [True, False, True, True]
    rows = Rows()
    reading.measure_view(CLEAN, shown(), rows)
    rows.write(prepared.metrics)
    assert prepared.metrics["sees"].table[0, 0, 0].isnan().tolist() == [False, True, False, False]
