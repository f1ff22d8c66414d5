import json
import math
import pickle

import pytest
import torch
from support.made_results import geometric_result, made_result, table_of, views_of

from kornia_lightning_probe.result import MetricTable, ProbeResult, ViewInfo
from kornia_lightning_probe.results.headline import (
    HEADLINE,
    common_headline,
    origin_of,
    pooled_augmentations,
    pooled_text,
)

NAN = float("nan")


def test_maps_are_pooled_under_geometric_views_and_nothing_else_is():
    result = geometric_result()
    # Rows: rotation 15, rotation 30, blur; columns: input, which stays as it is; conv1, conv2 are maps, fc is a vector.
    assert result.tensor("headline").tolist() == [[0.5, 0.25, 0.25, 0.5]] * 2 + [[0.5] * 4]
    assert result.value("headline", "conv1", "rotation") == 0.25
    assert result.value("headline", "conv1", "blur") == 0.5


def test_error_count_and_influence_come_from_where_the_value_does():
    table = geometric_result(influence=True).table(HEADLINE)
    assert table.std_error[:, 1].tolist() == pytest.approx([0.02, 0.02, 0.05])
    assert table.num_images[:, 1].tolist() == [30, 30, 32]
    assert table.influence[:, 1, 0].tolist() == [2.0, 2.0, 1.0]
    assert table.influence[:, 3].unique().tolist() == [1.0]


def test_the_error_of_a_mean_over_both_kinds_of_views_is_that_of_the_influences():
    # IF is 2, 2, 1 for each of 4 images: their mean 5/3, over sqrt(n (n - 1)) = sqrt 12, root of the sum of 4 squares.
    expected = 5 / 3 / math.sqrt(12) * 2
    assert geometric_result(influence=True).std_error("headline", "conv1") == pytest.approx(expected)


def test_without_the_influence_of_one_half_none_is_kept():
    result = geometric_result(influence=True)
    tables = {name: result.table(name) for name in result.metrics}
    pooled = tables["sensitivity_pooled"]
    tables["sensitivity_pooled"] = MetricTable(pooled.layers, pooled.value, pooled.std_error, pooled.num_images)
    again = ProbeResult(layers=result.layers, views=result.views, tables=tables)
    assert again.table("headline").influence is None
    # From above: the mean of the standard errors .02, .02 and .05.
    assert again.std_error("headline", "conv1") == pytest.approx(0.03)


def test_a_sequence_with_a_class_token_stays_flattened():
    result = geometric_result(layers=("conv1", "block"), pooled=("conv1", "block:cls", "block:patch"))
    assert result.table("headline").layers == ("input", "conv1", "block")
    assert result.tensor("headline")[0].tolist() == [0.5, 0.25, 0.5]


def test_a_map_that_was_not_pooled_under_a_view_stays_flattened():
    attempted = torch.tensor([[True], [False], [True]])
    pooled = table_of(("conv1",), torch.full((3, 1), 0.25), attempted=attempted)
    result = geometric_result(tables={"sensitivity_pooled": pooled})
    assert result.tensor("headline")[:, 1].tolist() == [0.25, 0.5, 0.5]


def test_a_dead_mean_is_not_replaced_by_the_flattened_number():
    result = geometric_result(tables={"sensitivity_pooled": table_of(("conv1",), torch.full((3, 1), NAN))})
    assert result.tensor("headline").isnan()[:, 1].tolist() == [True, True, False]


def test_without_geometric_views_or_pooled_values_it_is_sensitivity():
    plain = made_result(tables={"sensitivity_pooled": table_of(("conv1",), torch.zeros(6, 1))})
    assert plain.table("headline") is plain.table("sensitivity")
    flat = geometric_result().table("sensitivity")
    result = ProbeResult(layers=("conv1", "conv2", "fc"), views=geometric_result().views, tables={"sensitivity": flat})
    assert result.table("headline") is flat


def test_without_sensitivity_it_is_the_first_metric_whatever_its_values():
    tables = {"gone": table_of(("a",), [[NAN]]), "own": table_of(("a",), [[1.0]])}
    result = ProbeResult(layers=("a",), views=[ViewInfo("flip", 1, 1.0, moves_pixels=True)], tables=tables)
    assert result.table("headline") is tables["gone"]
    assert pooled_augmentations(result) == ()


def test_a_result_without_metrics_has_no_headline():
    with pytest.raises(ValueError, match="there is no headline in this result: no metric was measured"):
        ProbeResult(layers=(), views=[], tables={}).table("headline")


def test_it_is_composed_once_and_kept_nowhere_else():
    result = geometric_result()
    assert result.table("headline") is result.table("headline")
    assert result.metrics == ("sensitivity", "sensitivity_pooled")
    assert {row.metric for row in result.rows} == set(result.metrics) == set(result.state()["tables"])
    assert "headline" not in result.to_json()
    assert "headline" not in json.loads(result.to_json())["tables"]


def test_a_result_from_a_file_or_a_pickle_composes_it_again():
    result = geometric_result(influence=True)
    for again in (ProbeResult.from_json(result.to_json()), pickle.loads(pickle.dumps(result))):  # noqa: S301 - ours
        assert again.tensor("headline").equal(result.tensor("headline"))
    assert result.without_influence().table("headline").influence is None


def test_a_metric_of_that_name_is_refused():
    with pytest.raises(
        ValueError, match="'headline' is what a result composes of its metrics; give the metric another"
    ):
        made_result(tables={"headline": table_of(("fc",), torch.zeros(6, 1))})


def test_its_severity_curve_starts_at_zero_as_that_of_a_sensitivity():
    rotation = next(row for row in geometric_result().severity("headline") if row.layer == "conv1")
    # 0 at 0, .25 at 15 and 30 degrees: a triangle of 15 x .25 / 2 and a rectangle of 15 x .25, over 30.
    assert (rotation.start, rotation.area) == (0.0, pytest.approx(0.1875))


def test_the_small_print_names_what_is_pooled_among_what_is_shown():
    result = geometric_result()
    assert pooled_text(result, "headline") == "maps pooled under rotation"
    assert pooled_text(result, "headline", augmentation="rotation") == "maps pooled"
    assert pooled_text(result, "headline", augmentation="blur") == ""
    assert pooled_text(result, "headline", layers=["fc"]) == ""
    assert pooled_text(result, "sensitivity") == ""


def test_of_many_augmentations_the_first_are_named():
    views = [ViewInfo(f"move{i}", 1, 1.0, moves_pixels=True) for i in range(6)] + views_of({"blur": (1.0,)})
    tables = {name: table_of(("conv",), torch.ones(7, 1)) for name in ("sensitivity", "sensitivity_pooled")}
    result = ProbeResult(layers=("conv",), views=views, tables=tables)
    assert pooled_text(result, "headline") == "maps pooled under move0, move1, move2, move3 and 2 more"


def test_results_with_different_headlines_have_none_in_common():
    own = ProbeResult(layers=("a",), views=views_of({"blur": (1,)}), tables={"own": table_of(("a",), [[1.0]])})
    assert common_headline({"a": own, "b": own}) == HEADLINE
    with pytest.raises(ValueError, match=r"no headline in common; give metric=.*start \(own\), now \(sensitivity\)"):
        common_headline({"start": own, "now": made_result()})


def test_a_measured_metric_stands_for_itself():
    assert origin_of(("own", "sensitivity"), "own") == "own"
    assert origin_of(("own", "sensitivity")) == "sensitivity"
