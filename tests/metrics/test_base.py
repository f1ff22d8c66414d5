import inspect
import math

import pytest
import torch
from support.activations import (
    LAYER,
    MeanShift,
    assert_same,
    estimate,
    mean_shift,
    measured,
    normal,
    pair,
    prepared,
    record_of,
)

from kornia_lightning_probe.activations.clean import CleanBlock
from kornia_lightning_probe.metrics import DistanceMetric, Estimate, ProbeMetric, RelativeChange, Site, SpreadRatio


class Returning(MeanShift):
    """A metric whose measure returns what it is given."""

    def __init__(self, returned):
        super().__init__()
        self.returned = returned

    def measure(self, clean, augmented, about):
        return self.returned


def test_a_metric_of_ones_own_takes_fewer_than_15_lines():
    # Every feature moves by 2: so does their mean, for every image, without an error.
    assert len(inspect.getsource(MeanShift).splitlines()) < 15
    clean = normal(10, 3, 2)
    found = estimate(MeanShift(), clean, clean + 2)
    assert found.value == pytest.approx(2.0, abs=1e-12)
    assert found.std_error == pytest.approx(0.0, abs=1e-12)
    assert found.num_images == 10


def test_an_image_that_a_metric_has_no_number_for_is_left_out():
    clean, augmented = pair(6)
    shift = mean_shift(clean, augmented)
    shift[2] = math.nan
    found = estimate(Returning({"shift": shift}), clean, augmented)
    assert found.value == pytest.approx(shift.nanmean().item(), rel=1e-12)
    assert found.num_images == 5


def test_a_view_that_does_not_concern_a_metric_leaves_its_cells_unfilled():
    metric = measured(Returning({}), *pair(6))
    assert not metric.filled.any()
    assert metric.compute().value.isnan()
    assert metric.compute().num_images == 0


@pytest.mark.parametrize(
    ("returned", "came"),
    [
        ({"shit": torch.zeros(4)}, r"{'shit': \(4,\)}"),
        ({"shift": torch.zeros(4), "more": torch.zeros(4)}, r"{'shift': \(4,\), 'more': \(4,\)}"),
        ({"shift": torch.zeros(())}, r"{'shift': \(\)}"),
        ({"shift": torch.zeros(4, 1)}, r"{'shift': \(4, 1\)}"),
        ({"shift": torch.zeros(3)}, r"{'shift': \(3,\)}"),
        ({"shift": 1.0}, r"{'shift': \(\)}"),
    ],
)
def test_a_measure_that_returns_something_else_is_told_what_is_expected(returned, came):
    expected = r"expected a tensor of shape \(4,\), one scalar per image, for each of \['shift'\]"
    with pytest.raises(ValueError, match=rf"Returning\.measure returned {came}, {expected}"):
        measured(Returning(returned), *pair(4))


@pytest.mark.parametrize("returned", [None, torch.zeros(4), [torch.zeros(4)]], ids=type)
def test_a_measure_that_returns_no_mapping_is_told_what_is_expected(returned):
    with pytest.raises((TypeError, ValueError), match=r"Returning\.measure returned .*, expected"):
        measured(Returning(returned), *pair(4))


SITES = {
    "input": Site("input", 0, (3, 8, 8), "input"),
    "input pooled": Site("input", 0, (3,), "input", representation="pooled"),
    "layer": Site("conv", 1, (4, 8, 8)),
    "layer pooled": Site("conv", 1, (4,), representation="pooled"),
    "embedding": Site("fc", 2, (5,), is_embedding=True),
    "output": Site("output", 3, (2,), "output"),
}


@pytest.mark.parametrize(
    ("scope", "representation", "where"),
    [
        ("layers", "activation", {"input", "layer", "embedding"}),
        ("layers", "pooled", {"input pooled", "layer pooled"}),
        ("embedding", "activation", {"embedding"}),
        ("embedding", "pooled", set()),
        ("output", "activation", {"output"}),
    ],
)
def test_scope_and_representation_say_where_a_metric_applies(scope, representation, where):
    metric = MeanShift()
    metric.scope, metric.representation = scope, representation
    assert {name for name, site in SITES.items() if metric.applies_to(site)} == where


def test_a_metric_says_no_more_than_its_numbers_by_default():
    metric = measured(MeanShift(), *pair(4))
    assert metric.remarks(metric.estimates(), [LAYER]) == []


# Kinds.


@pytest.mark.parametrize("size", [1, 3])
def test_a_measure_of_whole_blocks_refuses_a_part_of_one(size):
    clean, augmented = pair(4)
    rows = slice(0, size)
    record = record_of(CleanBlock(clean), augmented[rows], rows=rows)
    with pytest.raises(ValueError, match=rf"{size} of a block's 4 images came for metric 'spread_ratio'.*whole blocks"):
        prepared(SpreadRatio(), 4).update(record.clean, record.augmented, record)


@pytest.mark.parametrize("cut", [1, 3, 7])
def test_a_measure_of_distances_may_be_cut_anywhere(cut):
    clean, augmented = pair(8)
    block = CleanBlock(clean)
    ready = prepared(RelativeChange(), 8)
    for rows in (slice(0, cut), slice(cut, 8)):
        record = record_of(block, augmented[rows], rows=rows)
        ready.update(record.clean, record.augmented, record)
    assert_same(ready.table, measured(RelativeChange(), clean, augmented).table, rtol=1e-12, atol=0)


def test_a_measure_of_distances_is_told_those_that_it_reads_and_no_other():
    told = []

    class Looking(DistanceMetric):
        name = "looking"
        statistics = ("distance",)

        def measure_distances(self, distances):
            told.append((distances.squared_distance, distances.squared_deviation))
            return {"distance": distances.squared_distance}

    # b - a = 1, -2, 3 of one feature each.
    clean = torch.tensor([[0.0], [2.0], [4.0]])
    ready = measured(Looking(), clean, clean + torch.tensor([[1.0], [-2.0], [3.0]]))
    assert ready.table.flatten().tolist() == [1.0, 4.0, 9.0]
    ((distance, deviation),) = told
    assert distance.tolist() == [1.0, 4.0, 9.0]
    assert deviation is None


# What is made of all images.


def test_several_statistics_need_a_reduce_of_ones_own():
    class Two(MeanShift):
        statistics = ("shift", "more")
        reduce = ProbeMetric.reduce

        def measure(self, clean, augmented, about):
            return {"shift": clean[:, 0], "more": clean[:, 1]}

    ready = measured(Two(), *pair(4))
    text = r"Two has the statistics \['shift', 'more'\] and must say in reduce\(\) what it makes of them"
    with pytest.raises(NotImplementedError, match=text):
        ready.compute()


def test_without_a_reduce_it_is_the_mean_with_what_each_image_adds():
    class Default(MeanShift):
        reduce = ProbeMetric.reduce

    clean, augmented = pair(9)
    shift = mean_shift(clean, augmented)
    found = estimate(Default(), clean, augmented)
    # The mean's influence is x_i - mean, its error sd / sqrt(n).
    assert found.value == pytest.approx(shift.mean().item())
    assert found.std_error == pytest.approx((shift.std() / 3).item())
    assert_same(found.influence.flatten(), shift - shift.mean(), rtol=1e-12, atol=1e-15)
    assert found.num_images == 9


def test_a_value_and_an_error_are_an_estimate_of_the_images_that_have_all_statistics():
    class Two(MeanShift):
        statistics = ("shift", "more")

        def measure(self, clean, augmented, about):
            return {"shift": torch.tensor([1.0, 2.0, math.nan]), "more": torch.tensor([1.0, math.nan, 5.0])}

        def reduce(self, table):
            return table["shift"].nanmean(-1), table["more"].nansum(-1)

    found = estimate(Two(), *pair(3))
    assert (found.value, found.std_error, found.num_images) == (1.5, 6.0, 1)
    assert found.influence is None
    # And without the tables' axes squeezed away.
    whole = measured(Two(), *pair(3)).estimates()
    assert isinstance(whole, Estimate)
    assert whole.value.shape == whole.num_images.shape == (1, 1)
