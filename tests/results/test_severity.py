import json
import math

import kornia.augmentation as K  # noqa: N812
import pytest
import torch
from support.curves import LADDER, curve, summarised
from support.made_results import SENSITIVITY, made_result, table_of

from kornia_lightning_probe import AugmentationBank
from kornia_lightning_probe.functional.influence import mean_influence, shares
from kornia_lightning_probe.presets import rotation
from kornia_lightning_probe.result import MetricTable, ProbeResult, ViewInfo
from kornia_lightning_probe.results.severity import severity_area, severity_onset

NAN = float("nan")


def test_a_straight_line_has_its_onset_at_the_threshold_over_its_slope():
    # S = c s with c = .02: onset .25/.02, area over the range c s_max / 2.
    row = summarised([0.1, 0.3, 0.6])
    assert row.onset == pytest.approx(12.5)
    assert row.area == pytest.approx(0.02 * 30 / 2)
    assert (row.start, row.end, row.censored) == (0.0, 30.0, "")
    assert (row.worst_level, row.worst_severity, row.worst_value) == (3, 30.0, pytest.approx(0.6))
    assert row.onset_text == "12.5"


@pytest.mark.parametrize("slope", [0.01, 0.05, 1.0])
@pytest.mark.parametrize("threshold", [0.05, 0.25])
def test_the_closed_forms_hold_for_any_slope_and_threshold(slope, threshold):
    row = summarised([slope * severity for severity in LADDER], threshold=threshold)
    assert row.onset == pytest.approx(threshold / slope)
    assert row.area == pytest.approx(slope * 30 / 2)


def test_a_threshold_that_is_never_passed_is_censored_above():
    row = summarised([0.1, 0.2, 0.1])
    assert math.isnan(row.onset)
    assert (row.censored, row.onset_text) == ("above", "> 30")


def test_a_ladder_of_ones_own_has_no_zero():
    row = summarised([0.1, 0.3, 0.6], from_identity=False)
    # Trapezoids over [5, 15] and [15, 30].
    assert row.area == pytest.approx((10 * 0.2 + 15 * 0.45) / 25)
    assert (row.start, row.onset) == (5.0, pytest.approx(12.5))


def test_a_first_level_past_the_threshold_is_censored_below_without_a_zero():
    row = summarised([0.5, 0.6, 0.7], from_identity=False)
    assert math.isnan(row.onset)
    assert (row.censored, row.onset_text) == ("below", "<= 5")
    # With the zero the line from (0, 0) to (5, .5) passes .25 at 2.5.
    assert summarised([0.5, 0.6, 0.7]).onset == pytest.approx(2.5)


def test_the_onset_of_a_curve_that_falls_again_is_that_of_its_running_maximum():
    # Maxima 0, .2, .2, .4: from .2 at 15 to .4 at 30, .25 is a quarter of the way.
    assert summarised([0.2, 0.1, 0.4]).onset == pytest.approx(15 + 15 / 4)
    # Passed on the way up, whatever comes later.
    row = summarised([0.1, 0.4, 0.0])
    assert row.onset == pytest.approx(10.0)
    assert (row.worst_level, row.worst_value) == (2, pytest.approx(0.4))


def test_the_highest_of_equally_bad_levels_is_the_worst():
    assert summarised([0.1, 0.5, 0.5]).worst_level == 3
    assert summarised([0.5, 0.5, NAN]).worst_level == 2


def test_a_single_level_has_a_triangle_from_the_identity_and_no_area_without():
    flip = summarised([0.8], severities=(1.0,))
    assert (flip.area, flip.onset) == (pytest.approx(0.4), pytest.approx(0.25 / 0.8))
    own = summarised([0.1], severities=(1.0,), from_identity=False)
    assert math.isnan(own.area)
    assert math.isnan(own.area_error)
    assert (own.censored, own.worst_level) == ("above", 1)


def test_a_dead_layer_has_no_area_no_onset_and_no_worst_level():
    row = summarised([NAN, NAN, NAN], error=NAN)
    assert all(math.isnan(number) for number in (row.area, row.area_error, row.onset, row.worst_value))
    assert (row.censored, row.worst_level, row.onset_text) == ("", None, "-")


def test_a_missing_level_leaves_the_area_unknown_and_is_bridged_for_the_onset():
    row = summarised([0.1, NAN, 0.6])
    assert math.isnan(row.area)
    # From .1 at 5 to .6 at 30: .25 is .3 of the way.
    assert row.onset == pytest.approx(12.5)
    assert summarised([0.1, 0.2, NAN]).onset_text == "> 15"
    assert summarised([NAN, 0.3, 0.6], from_identity=False).onset_text == "<= 15"


def test_a_cosine_starts_at_one_and_its_onset_is_where_it_has_fallen_by_the_threshold():
    # 1 - .02 s
    row = summarised([0.9, 0.7, 0.4], metric="cosine")
    assert row.onset == pytest.approx(12.5)
    assert row.area == pytest.approx(1 - 0.02 * 30 / 2)
    assert (row.worst_level, row.worst_value) == (3, pytest.approx(0.4))


def test_a_metric_of_ones_own_can_be_told_its_value_at_the_identity():
    result = curve([0.1, 0.3, 0.6], metric="own")
    assert result.severity("own")[0].start == 5.0
    (row,) = result.severity("own", at_identity=0.0)
    assert (row.start, row.onset) == (0.0, pytest.approx(12.5))


def test_the_error_of_an_area_weighs_the_levels_as_the_area_does():
    # Weights of 5, 15 and 30 with the zero, over 30: (15-0)/2, (30-5)/2, (30-15)/2. Without shares the errors add up.
    assert summarised([0.1, 0.3, 0.6], error=0.01).area_error == pytest.approx(0.01 * (7.5 + 12.5 + 7.5) / 30)
    # With them, levels that err oppositely cancel: 7.5 at level 1, none at level 2, -7.5 at level 3.
    one = mean_influence(torch.arange(8.0))
    influence = torch.stack([one, torch.zeros(8), -one])[:, None]
    error = shares(influence).square().sum(-1).sqrt()
    images = torch.full((3, 1), 8)
    table = MetricTable(("fc",), torch.ones(3, 1), error, images, influence=influence, quantity=SENSITIVITY)
    result = ProbeResult(layers=("fc",), views=curve([1.0] * 3).views, tables={"sensitivity": table})
    assert result.severity()[0].area_error == pytest.approx(0.0, abs=1e-9)


def test_levels_are_put_in_order_of_severity():
    views = [ViewInfo("rotation", level, severity, True) for level, severity in ((1, 30.0), (2, 5.0), (3, 15.0))]
    table = table_of(("fc",), [[0.6], [0.1], [0.3]], quantity=SENSITIVITY)
    (row,) = ProbeResult(layers=("fc",), views=views, tables={"sensitivity": table}).severity()
    assert (row.onset, row.area, row.worst_level) == (pytest.approx(12.5), pytest.approx(0.3), 1)


def test_there_is_a_row_for_each_augmentation_and_layer():
    rows = made_result().severity()
    assert [(row.augmentation, row.layer) for row in rows[4:6]] == [("hflip", "output"), ("rotation", "input")]
    assert len(rows) == 3 * 5
    assert rows[1].layer_index == 1


@pytest.mark.parametrize("threshold", [0.0, -1.0, NAN, math.inf])
def test_a_threshold_that_is_not_positive_is_refused(threshold):
    with pytest.raises(ValueError, match=f"threshold of an onset must be a positive number, got {threshold}"):
        made_result().severity(threshold=threshold)


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="did you mean 'sensitivity'"):
        made_result().severity("sensitivty")


def test_the_kernels_take_any_leading_shape():
    values = torch.rand(2, 4, 3, generator=torch.Generator().manual_seed(0))
    severities = torch.tensor(LADDER)
    assert severity_area(values, severities).shape == severity_onset(values, severities).shape == (2, 4)
    # A constant c has the area c (s_max - s_min), over that range.
    assert severity_area(torch.full((2, 3), 0.5), severities).tolist() == [0.5, 0.5]


def test_only_the_ladders_of_the_presets_start_at_the_identity():
    bank = AugmentationBank(
        {"turned": rotation(), "own": {5: K.RandomRotation((5.0, 5.0), p=1.0)}, "flip": K.RandomHorizontalFlip()}
    )
    assert [view.from_identity for view in bank] == [True, True, True, False, False]
    assert all(view.from_identity for view in AugmentationBank.preset("default"))


def test_json_holds_the_summaries_for_other_readers_and_forgets_none_of_the_numbers():
    result = curve([0.1, 0.2, 0.1])
    found = json.loads(result.to_json())["severity"]["sensitivity"]
    assert found["threshold"] == 0.25
    assert (found["layer"], found["augmentation"], found["onset"]) == (["fc"], ["rotation"], [None])
    assert (found["censored"], found["worst_level"]) == (["above"], [2])
    again = ProbeResult.from_json(result.to_json())
    assert again.to_json() == result.to_json()
    assert again.severity()[0][:8] == result.severity()[0][:8]
    assert "severity" not in result.state()
