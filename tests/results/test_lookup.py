import math
import pickle

import pytest
import torch
from support.made_results import made_result, table_of, views_of

from kornia_lightning_probe.result import ProbeResult, ProbeRow

NAN = float("nan")


def one_layer(values, **options):
    views = views_of({"blur": tuple(range(1, len(values) + 1))})
    return ProbeResult(layers=("fc",), views=views, tables={"own": table_of(("fc",), values, **options)})


def test_rows_say_everything_about_each_number():
    result = made_result()
    assert len(result.rows) == 6 * 5
    assert result.rows is result.rows
    # View 2 is rotation 15, layer index 1 is conv1: 2/10 + 1/100.
    assert result.rows[11] == ProbeRow(
        3, 120, "sensitivity", "conv1", 1, "rotation", 2, 15.0, pytest.approx(0.21), 0.01, 32
    )


def test_the_input_is_in_the_rows_but_not_among_the_layers():
    result = made_result()
    assert result.layers == ("conv1", "conv2", "fc")
    assert {row.layer for row in result.rows if row.layer_index == 0} == {"input"}


def test_depth_runs_from_the_input_to_the_output_and_a_part_has_its_layers_depth():
    result = made_result(layers=("stem", "head"))
    assert [result.layer_index(name) for name in ("input", "stem", "stem:cls", "head", "output")] == [0, 1, 1, 2, 3]


def test_a_chosen_layer_named_output_keeps_its_own_depth():
    result = ProbeResult(layers=("output", "late"), views=[], tables={})
    assert [result.layer_index("output"), result.layer_index("late")] == [1, 2]


def test_a_cell_that_was_not_attempted_is_no_row():
    result = one_layer([[1.0], [NAN]], attempted=torch.tensor([[True], [False]]))
    assert [row.level for row in result.rows] == [1]


def test_value_is_the_mean_over_what_is_not_given():
    result = made_result()
    assert result.value("sensitivity", "conv1", "rotation", 2) == pytest.approx(0.21)
    # Levels 1 to 3 of rotation are views 1 to 3: mean .2, plus .01 for conv1.
    assert result.value("sensitivity", "conv1", "rotation") == pytest.approx(0.21)
    # Views 0 to 5 have the mean .25.
    assert result.value("sensitivity", "conv1") == pytest.approx(0.26)
    # Level 1 is views 0, 1 and 4.
    assert result.value("sensitivity", "input", level=1) == pytest.approx(0.5 / 3)


def test_a_severity_names_a_view_as_its_level_does():
    result = made_result()
    # Level 2 of rotation is view 2, at 15 degrees.
    assert result.value("sensitivity", "conv1", "rotation", severity=15) == pytest.approx(0.21)
    assert result.std_error("sensitivity", "conv1", "rotation", severity=15) == pytest.approx(0.01)
    # Written another way it is the same severity: a third of .03.
    assert result.value("sensitivity", "conv1", "blur", severity=0.03 / 3) == pytest.approx(0.51)


def test_the_mean_over_layers_leaves_the_input_out():
    # Columns 1 to 4: .025 on top of the views' mean .25.
    assert made_result().value("sensitivity") == pytest.approx(0.275)


def test_the_mean_skips_nan_and_weighs_each_view_once():
    views = views_of({"blur": (1, 2)})
    table = table_of(("a", "b"), [[1.0, 3.0], [6.0, NAN]])
    result = ProbeResult(layers=("a", "b"), views=views, tables={"own": table})
    # View means 2 and 6, then their mean; over the three cells it would be 10/3.
    assert result.value("own") == 4.0
    assert result.value("own", "b") == 3.0
    assert math.isnan(result.value("own", "b", level=2))


def test_the_standard_error_of_a_mean_is_the_mean_of_the_standard_errors():
    assert made_result().std_error("sensitivity", "conv1") == pytest.approx(0.01)


def test_a_metric_of_the_input_alone_has_no_mean_over_layers():
    result = ProbeResult(layers=(), views=views_of({"blur": (1,)}), tables={"own": table_of(("input",), [[1.0]])})
    assert math.isnan(result.value("own"))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"metric": "sensitivty"}, "no metric 'sensitivty' in this result; did you mean 'sensitivity'"),
        ({"metric": "qqq"}, "each metric that it has: sensitivity, flip_rate"),
        ({"metric": "sensitivity", "layer": "conv3"}, "no layer 'conv3'.*did you mean 'conv2' or 'conv1'"),
        ({"metric": "flip_rate", "layer": "conv1"}, "'flip_rate' was not measured at layer 'conv1'.*output"),
        ({"metric": "sensitivity", "augmentation": "rotations"}, "did you mean 'rotation'"),
        ({"metric": "sensitivity", "augmentation": "rotation", "level": 4}, r"no level 4 of rotation.*\[1, 2, 3\]"),
        ({"metric": "sensitivity", "level": 9}, r"no level 9 of any augmentation.*\[1, 2, 3\]$"),
        (
            {"metric": "sensitivity", "augmentation": "rotation", "level": 15},
            r"^no level 15 of rotation; its levels are \[1, 2, 3\]; 15 is a severity: give severity=15$",
        ),
        (
            {"metric": "sensitivity", "augmentation": "rotation", "severity": 2},
            r"^no severity 2 of rotation; its severities are \[5, 15, 30\]; 2 is a level: give level=2$",
        ),
        ({"metric": "sensitivity", "severity": 0.5}, r"^no severity 0.5 of any.*are \[0.005, 0.01, 1, 5, 15, 30\]$"),
        (
            {"metric": "sensitivity", "level": 2, "severity": 15},
            "^level=2 and severity=15 were given, and each names a view; give one of them: a level counts from 1, a",
        ),
    ],
)
def test_an_unknown_name_is_an_error_that_shows_near_ones(asked, message):
    result = made_result(tables={"flip_rate": table_of(("output",), torch.zeros(6, 1))})
    with pytest.raises(ValueError, match=message):
        result.value(**asked)


def test_a_long_list_of_known_names_is_cut_short_and_says_so():
    layers = tuple(f"block{i}" for i in range(30))
    with pytest.raises(ValueError, match="and 20 more"):
        made_result(layers=layers).layer_index("qqq")


def test_tensor_is_float64_and_a_copy():
    result = made_result()
    found = result.tensor("sensitivity")
    assert (found.dtype, found.shape) == (torch.float64, (6, 5))
    found.zero_()
    assert result.value("sensitivity") > 0


def test_a_table_with_other_views_is_refused():
    with pytest.raises(ValueError, match="the table of 'own' has 1 views, the result 2"):
        ProbeResult(layers=("fc",), views=views_of({"blur": (1, 2)}), tables={"own": table_of(("fc",), [[1.0]])})


def test_a_table_with_an_unknown_layer_is_refused():
    with pytest.raises(ValueError, match="there is no layer 'conv9'"):
        ProbeResult(layers=("fc",), views=views_of({"blur": (1,)}), tables={"own": table_of(("conv9",), [[1.0]])})


def test_when_names_the_untrained_model():
    assert made_result(epoch=-1).when == "before training"
    assert made_result(epoch=2).when == "epoch 2, step 80"
    assert "epoch 2" in repr(made_result(epoch=2))


def test_without_a_trainer_there_is_no_time_to_be_said():
    assert made_result(epoch=0).when == ""
    # A Trainer's first epoch may be one without a step.
    assert made_result(epoch=0, metadata={"run": "a"}).when == "epoch 0, step 0"


def test_a_result_survives_pickle():
    assert pickle.loads(pickle.dumps(made_result())).rows == made_result().rows  # noqa: S301 - our own bytes
