import math

import kornia.augmentation as K  # noqa: N812
import pytest
import torch
from support.compared import BLUR, measured, squares, trained
from support.made_results import made_result, table_of, views_of

from kornia_lightning_probe import AugmentationBank, probe_model
from kornia_lightning_probe.quantity import Quantity
from kornia_lightning_probe.result import ProbeResult, ViewInfo

NAN = float("nan")


def test_the_change_is_the_other_result_minus_this_one():
    first, second = trained(0, change=4.0)
    (row,) = first.compare(second).rows
    # Four times the squared distance is about twice the sensitivity.
    assert row.change == pytest.approx(row.second - row.first)
    assert row.second / row.first == pytest.approx(2.0, rel=0.02)
    assert row.change > 0
    assert row.beyond
    assert second.compare(first).rows[0].change == -row.change


def test_a_row_is_the_mean_over_the_levels_and_a_view_row_is_one_level():
    first, second = trained(0)
    comparison = first.compare(second)
    (row,) = comparison.rows
    assert (row.metric, row.layer, row.layer_index, row.augmentation, row.level) == (
        "sensitivity", "layer0", 1, "blur", None
    )  # fmt: skip
    assert math.isnan(row.severity)
    assert [(view.level, view.severity) for view in comparison.view_rows] == [(1, 1.0), (2, 2.0)]
    assert row.first == pytest.approx(first.value("sensitivity", "layer0", "blur"))
    assert row.change == pytest.approx(sum(view.change for view in comparison.view_rows) / 2)
    assert row.z_score == pytest.approx(row.change / row.std_error)


def test_a_probe_compared_with_itself_has_changed_nowhere():
    first, _ = trained(0, layers=5)
    comparison = first.compare(first)
    assert {row.change for row in comparison.rows + comparison.view_rows} == {0.0}
    assert not any(row.beyond for row in comparison.rows + comparison.view_rows)
    assert math.isnan(comparison.rows[0].z_score)


def test_float_rounding_is_no_change_however_small_its_error():
    generator = torch.Generator().manual_seed(0)
    distance, deviation = squares(generator, 2, 3, 64), squares(generator, 2, 3, 64)
    comparison = measured(distance, deviation).compare(measured(distance * (1 + 1e-6), deviation))
    assert comparison.rows[0].change > 0
    assert comparison.rows[0].std_error < 1e-7
    assert not any(row.beyond for row in comparison.rows)


def test_of_measures_that_are_0_at_rest_rounding_is_no_change_though_it_is_the_whole_value():
    # Two interpolation floors of a flip: 1.6e-7 and 2.9e-7, each with an error of a tenth of it.
    def floor(value, at_identity):
        quantity = Quantity(at_identity=at_identity)
        table = table_of(("conv1",), [[value]], error=0.1 * value, quantity=quantity)
        views = views_of({"hflip": (1.0,)})
        return ProbeResult(layers=("conv1",), views=views, tables={"floor": table}, epoch=0, metadata={})

    for at_identity, is_marked in ((0.0, False), (None, True)):
        comparison = floor(1.6e-7, at_identity).compare(floor(2.9e-7, at_identity))
        assert [row.beyond for row in comparison.rows] == [is_marked]
    # Above 1e-5 it is a change.
    assert floor(1e-6, 0.0).compare(floor(2e-5, 0.0)).rows[0].beyond


def test_the_paired_error_is_the_spread_over_draws_of_images_and_smaller_than_the_unpaired():
    pairs = [trained(seed) for seed in range(400)]
    paired = [first.compare(second).rows[0] for first, second in pairs]
    spread = torch.tensor([row.change for row in paired]).std().item()
    claimed = torch.tensor([row.std_error for row in paired]).mean().item()
    assert all(row.paired for row in paired)
    # 400 draws know a spread to 1/sqrt(800), 3.5 %; four of those.
    assert spread == pytest.approx(claimed, rel=0.14)
    apart = pairs[0][0].compare(pairs[0][1].without_influence()).rows[0]
    assert not apart.paired
    assert apart.std_error > 4 * paired[0].std_error


def test_where_nothing_has_changed_about_one_cell_in_twenty_is_flagged():
    generator = torch.Generator().manual_seed(0)

    def half(images):
        common = squares(generator, 1, 4000, 96)
        return measured(
            common * squares(generator, 2, 4000, 96), squares(generator, 1, 4000, 96).expand(2, -1, -1), images=images
        )

    comparison = half("odd").compare(half("even"))
    assert not any(row.paired for row in comparison.rows)
    flagged = sum(row.beyond for row in comparison.rows) / len(comparison.rows)
    # P(|z| > 2) = .0455; the share of 4000 independent cells has a spread of sqrt(.0455 * .9545 / 4000) = .0033. Four
    # of those, and as much as .005 for errors that are themselves estimated from 96 skewed values.
    assert flagged == pytest.approx(0.0455, abs=4 * 0.0033 + 0.005)


def test_paired_by_image_one_cell_in_twenty_is_flagged_too():
    first, second = trained(0, layers=4000, count=96)
    flagged = sum(row.beyond for row in first.compare(second).rows) / 4000
    # As above.
    assert flagged == pytest.approx(0.0455, abs=4 * 0.0033 + 0.005)


def test_without_influences_levels_do_not_count_as_independent_images():
    first, second = trained(0, influence=False)
    comparison = first.compare(second)
    # Means of two errors each, as if the levels erred alike; then as independent results.
    errors = [result.table("sensitivity").std_error.mean().item() for result in (first, second)]
    assert comparison.rows[0].std_error == pytest.approx(math.hypot(*errors))
    assert "not paired, though the images are the same: sensitivity" in comparison.notes[0]


@pytest.mark.parametrize(
    ("images", "note"),
    [
        (("a", "b"), "not paired (other images, or the same ones in another order)"),
        (("a", None), "not paired (nothing is known of the images"),
    ],
)
def test_other_images_are_not_paired_and_it_says_so(images, note):
    (first, _), (_, second) = trained(0, images=images[0]), trained(0, images=images[1])
    comparison = first.compare(second)
    assert comparison.notes[0].startswith(note)
    assert not comparison.rows[0].paired


def test_the_limit_is_the_users():
    first, second = trained(3)
    z_score = abs(first.compare(second).rows[0].z_score)
    assert first.compare(second, z_limit=0.9 * z_score).rows[0].beyond
    assert not first.compare(second, z_limit=1.1 * z_score).rows[0].beyond


def test_a_missing_level_is_left_out_of_both_means():
    views = BLUR

    def result(values):
        return ProbeResult(
            layers=("fc",), views=views_of(views), tables={"own": table_of(("fc",), [[value] for value in values])}
        )

    (row,) = result([1.0, NAN]).compare(result([3.0, 9.0])).rows
    assert (row.first, row.second, row.change) == (1.0, 3.0, 2.0)
    (dead,) = result([NAN, NAN]).compare(result([3.0, 9.0])).rows
    assert math.isnan(dead.change)
    assert math.isnan(dead.std_error)
    assert not dead.beyond


def test_a_change_of_unknown_error_is_not_beyond_it():
    views = views_of({"blur": (1.0,)})
    first, second = (
        ProbeResult(layers=("fc",), views=views, tables={"own": table_of(("fc",), [[value]], error=NAN)})
        for value in (1.0, 5.0)
    )
    (row,) = first.compare(second).rows
    assert (row.change, row.beyond) == (4.0, False)
    text = first.compare(second).summary()
    assert "0 of 0 cells" in text
    assert "note: without standard errors, so never marked: own" in text


def test_views_are_matched_by_severity_and_not_by_level():
    first = made_result(ladders={"rotation": (5.0, 15.0)})
    second = made_result(ladders={"rotation": (15.0, 30.0)})
    row = next(row for row in first.compare(second).rows if row.layer == "input")
    # View 1 of the first is .1, view 0 of the second is 0.
    assert (row.first, row.second) == (pytest.approx(0.1), 0.0)


def test_what_is_no_result_is_refused():
    with pytest.raises(TypeError, match="compare takes another ProbeResult, got a dict"):
        made_result().compare({})
    with pytest.raises(ValueError, match="z_limit must be a positive number of standard errors, got 0"):
        made_result().compare(made_result(), z_limit=0)


def test_results_from_files_give_the_same_changes_unpaired():
    first, second = trained(0, layers=3)
    again = ProbeResult.from_json(first.to_json()).compare(ProbeResult.from_json(second.to_json()))
    before = first.compare(second)
    assert [row.change for row in again.rows] == [row.change for row in before.rows]
    assert all(late.std_error > early.std_error for late, early in zip(again.rows, before.rows, strict=True))
    assert not any(row.paired for row in again.rows)


def test_two_probes_of_one_model_on_the_same_images_agree():
    images = torch.rand(24, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(400, 2))
    bank = AugmentationBank({"noise": {0.1: K.RandomGaussianNoise(std=0.1, p=1.0)}})
    first, second = (probe_model(net, images, bank, layers=["0", "3"], batch_size=size) for size in (8, 24))
    comparison = first.compare(second)
    assert comparison.left_out == ()
    assert all(abs(row.change) <= 1e-5 * abs(row.first) for row in comparison.rows)
    assert not any(row.beyond for row in comparison.rows)


def test_view_infos_say_which_curves_start_at_the_identity_after_a_file_too():
    view = ViewInfo("rotation", 1, 5.0, from_identity=True)
    result = ProbeResult(layers=("fc",), views=[view], tables={"own": table_of(("fc",), [[1.0]])})
    assert ProbeResult.from_json(result.to_json()).views == (view,)
