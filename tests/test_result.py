import builtins
import io
import json
import math
import pickle
import struct

import pytest
import torch
from support.made_results import made_result, table_of, views_of

from kornia_lightning_probe.result import MetricTable, ProbeResult, ProbeRow, ViewInfo

NAN = float("nan")


def bits(number):
    return struct.pack("<d", number)


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
        ({"metric": "sensitivity", "level": 9}, r"no level 9 of any augmentation.*\[1, 2, 3\]"),
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


def test_a_table_owns_its_numbers():
    value = torch.ones(1, 1)
    table = MetricTable(("fc",), value, value, value)
    value.zero_()
    assert table.value.item() == 1.0
    assert table.num_images.dtype == torch.int64


def test_tables_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"std_error has shape \(1, 2\); expected \(views, layers\) = \(1, 1\)"):
        MetricTable(("fc",), torch.ones(1, 1), torch.ones(1, 2), torch.ones(1, 1))


def test_a_layer_named_twice_is_refused():
    with pytest.raises(ValueError, match="a layer is named twice"):
        table_of(("fc", "fc"), [[1.0, 2.0]])


def test_a_table_with_other_views_is_refused():
    with pytest.raises(ValueError, match="the table of 'own' has 1 views, the result 2"):
        ProbeResult(layers=("fc",), views=views_of({"blur": (1, 2)}), tables={"own": table_of(("fc",), [[1.0]])})


def test_a_table_with_an_unknown_layer_is_refused():
    with pytest.raises(ValueError, match="there is no layer 'conv9'"):
        ProbeResult(layers=("fc",), views=views_of({"blur": (1,)}), tables={"own": table_of(("conv9",), [[1.0]])})


def test_a_view_label_has_a_severity_where_there_are_several():
    labels = made_result().view_labels()
    assert labels == ("hflip", "rotation 5", "rotation 15", "rotation 30", "blur 0.005", "blur 0.01")


def test_when_names_the_untrained_model():
    assert made_result(epoch=-1).when == "before training"
    assert made_result(epoch=2).when == "epoch 2, step 80"
    assert "epoch 2" in repr(made_result(epoch=2))


def test_json_brings_every_number_back_bit_for_bit(tmp_path):
    generator = torch.Generator().manual_seed(0)
    numbers = torch.cat([torch.randn(200, 1, generator=generator, dtype=torch.float64).exp() ** 9, torch.zeros(1, 1)])
    special = torch.tensor([[0.1], [-0.0], [5e-324], [1.7976931348623157e308], [NAN], [math.inf], [-math.inf]])
    result = one_layer(torch.cat([numbers, special.double()]).tolist())
    result.to_json(tmp_path / "probe.json")
    again = ProbeResult.from_json(tmp_path / "probe.json")
    assert [bits(row.value) for row in again.rows] == [bits(row.value) for row in result.rows]
    assert [row[:8] for row in again.rows] == [row[:8] for row in result.rows]
    assert again.to_json() == result.to_json()


def test_json_is_strict_and_has_null_for_nan():
    def refuse(constant):
        raise AssertionError(constant)

    found = json.loads(one_layer([[NAN], [math.inf]]).to_json(), parse_constant=refuse)
    assert found["format"] == 1
    assert found["tables"]["own"]["value"] == [[None], ["inf"]]


def test_json_text_is_read_as_well_as_a_path():
    assert ProbeResult.from_json(made_result().to_json()).rows == made_result().rows


def test_a_result_without_views_survives_json():
    result = ProbeResult(layers=("fc",), views=[], tables={"own": table_of(("fc",), torch.zeros(0, 1))})
    assert ProbeResult.from_json(result.to_json()).tensor("own").shape == (0, 1)


def test_a_json_file_of_another_format_is_refused():
    with pytest.raises(ValueError, match="no probe result of format 1: its format is 99"):
        ProbeResult.from_json('{"format": 99}')
    with pytest.raises(ValueError, match="its format is None"):
        ProbeResult.from_state({})


def test_a_json_file_that_holds_no_object_is_refused(tmp_path):
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(ValueError, match="a probe result is a JSON object; this is a list"):
        ProbeResult.from_json(tmp_path / "list.json")


def test_to_json_makes_folders_and_leaves_nothing_else(tmp_path):
    text = made_result().to_json(str(tmp_path / "new" / "probe.json"))
    assert (tmp_path / "new" / "probe.json").read_text() == text
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["probe.json"]


def test_a_failed_write_leaves_the_old_file_and_no_half_one(tmp_path, monkeypatch):
    path = tmp_path / "probe.json"
    made_result(epoch=1).to_json(path)

    def fail(self, target):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        made_result(epoch=2).to_json(path)
    assert ProbeResult.from_json(path).epoch == 1
    assert [found.name for found in tmp_path.iterdir()] == ["probe.json"]


def test_a_checkpoint_loads_the_state_as_weights_only_and_it_is_small():
    result = made_result(layers=tuple(f"layer{i}" for i in range(16)))
    file = io.BytesIO()
    torch.save(result.state(), file)
    # 6 views x 18 layers of 8 + 8 + 8 + 1 bytes are 2.7 kB; the rest is the archive's own.
    assert file.tell() < 8_000
    file.seek(0)
    again = ProbeResult.from_state(torch.load(file, weights_only=True))
    assert again.rows == result.rows
    assert again.metadata == result.metadata


def test_a_state_does_not_share_memory_with_its_result():
    result = made_result()
    result.state()["tables"]["sensitivity"]["value"].zero_()
    assert result.value("sensitivity") > 0


def test_metadata_is_made_plain():
    given = {
        "device": torch.device("cpu"),
        "ids": torch.tensor([1, 2]),
        "floor": NAN,
        "pair": (1, 2.5),
        5: {"dtype": torch.float32},
        "none": None,
    }
    result = made_result(metadata=given)
    plain = {
        "device": "cpu", "ids": [1, 2], "floor": None, "pair": [1, 2.5], "5": {"dtype": "torch.float32"}, "none": None
    }  # fmt: skip
    assert result.metadata == plain
    assert ProbeResult.from_json(result.to_json()).metadata == plain


def test_metadata_added_later_is_saved_too():
    result = made_result()
    result.metadata["seconds"] = torch.tensor(4.5)
    assert ProbeResult.from_json(result.to_json()).metadata["seconds"] == 4.5


def test_a_result_survives_pickle():
    assert pickle.loads(pickle.dumps(made_result())).rows == made_result().rows  # noqa: S301 - our own bytes


def test_to_pandas_has_a_column_for_each_field():
    pandas = pytest.importorskip("pandas")
    frame = made_result().to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert tuple(frame.columns) == ProbeRow._fields
    assert len(frame) == 30


def test_without_pandas_the_error_names_the_extra(monkeypatch):
    genuine = builtins.__import__

    def missing(name, *rest):
        if name == "pandas":
            raise ImportError(name)
        return genuine(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"kornia-lightning-probe\[dataframe\]"):
        made_result().to_pandas()


@pytest.mark.parametrize("kind", ["profile", "heatmap", "severity"])
def test_plot_draws_each_kind(kind):
    pytest.importorskip("matplotlib")
    assert made_result().plot(kind).axes


def test_plot_shows_the_kinds_that_there_are():
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match=r"no kind of plot 'heat'.*did you mean 'heatmap'"):
        made_result().plot("heat")


def test_views_are_values():
    assert ViewInfo("blur", 1, 2.0) == ViewInfo("blur", 1, 2.0)
