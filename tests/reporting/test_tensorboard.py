import math
import re

import pytest
import torch
from support.made_results import made_result, table_of

from kornia_lightning_probe.quantity import Quantity
from kornia_lightning_probe.reporting.tensorboard import (
    Curves,
    add_charts,
    add_picture,
    chart_layout,
    curve_tag,
    curves,
    writer_of,
)
from kornia_lightning_probe.result import ProbeResult
from kornia_lightning_probe.results.tables import CLEAN

NAN = float("nan")


class Writer:
    def __init__(self):
        self.layouts = []
        self.images = []

    def add_custom_scalars(self, layout):
        self.layouts.append(layout)

    def add_image(self, tag, image, *, global_step, dataformats):
        self.images.append((tag, image.shape, global_step, dataformats))


class Logger:
    def __init__(self, experiment):
        self.experiment = experiment


def test_a_tag_has_the_section_before_its_slash():
    assert curve_tag("probe", "sensitivity", "layer1.0") == "probe_sensitivity/layer1.0"
    assert curve_tag("probe", "sensitivity", "layer1.0", "blur") == "probe_sensitivity_blur/layer1.0"


def test_each_layer_has_a_mean_and_one_curve_for_each_augmentation():
    values, left_out = curves(made_result(), name="probe")
    # Three layers and the output, each with one mean and three augmentations; the input has no curve.
    assert len(values) == 4 * 4
    assert left_out == ""
    assert values["probe_sensitivity/conv1"] == pytest.approx(0.26)
    assert values["probe_sensitivity_rotation/conv1"] == pytest.approx(0.21)
    assert not any("input" in tag for tag in values)


def test_log_curves_chooses_the_metrics():
    result = made_result(tables={"flip_rate": table_of(("output",), torch.zeros(6, 1))})
    assert not any("flip_rate" in tag for tag in curves(result, name="probe").values)
    assert "probe_flip_rate_blur/output" in curves(result, name="probe", log_curves="all").values
    assert curves(result, name="probe", log_curves="summary").values == {}


def test_a_metric_says_itself_whether_it_is_a_curve_without_being_asked_for():
    tables = {
        "mine": table_of(("fc",), torch.zeros(6, 1), quantity=Quantity(logged=True)),
        "other": table_of(("fc",), torch.zeros(6, 1)),
    }
    sections = {tag.partition("/")[0] for tag in curves(made_result(tables=tables), name="p").values}
    assert {"p_mine", "p_mine_blur", "p_sensitivity"} <= sections
    assert not any("other" in section for section in sections)


def test_a_sensitivity_that_says_nothing_of_itself_is_a_curve_all_the_same():
    silent = made_result(tables={"sensitivity": table_of(("fc",), torch.zeros(6, 1))})
    assert "probe_sensitivity/fc" in curves(silent, name="probe").values


def test_an_unknown_log_curves_shows_the_known_ones():
    with pytest.raises(ValueError, match=r"'layer'.*did you mean 'layers'"):
        curves(made_result(), name="probe", log_curves="layer")


def test_with_too_many_tags_only_the_means_are_left_and_it_is_said():
    result = made_result(layers=tuple(f"layer{i}" for i in range(50)))
    values, left_out = curves(result, name="probe")
    # 51 layers x (1 mean + 3 augmentations) = 204.
    assert left_out.startswith("probe: 204 curves are more than 200, so only the 51 means over the views are logged")
    assert list(values) == [f"probe_sensitivity/layer{i}" for i in range(50)] + ["probe_sensitivity/output"]


def test_exactly_as_many_tags_as_allowed_are_all_logged():
    assert len(curves(made_result(), name="probe", most_tags=16).values) == 16


def test_the_tags_do_not_depend_on_the_values():
    dead = {"sensitivity": table_of(("input", "conv1", "conv2", "fc", "output"), torch.full((6, 5), NAN))}
    values = curves(made_result(tables=dead), name="probe").values
    assert list(values) == list(curves(made_result(), name="probe").values)
    assert all(map(math.isnan, values.values()))


def test_an_augmentation_that_a_metric_does_not_apply_to_has_no_curve():
    attempted = torch.tensor([True, True, True, True, False, False])[:, None]
    table = table_of(("fc",), torch.ones(6, 1), attempted=attempted)
    values = curves(made_result(tables={"own": table}), name="probe", log_curves="all").values
    assert [tag for tag in values if "own" in tag] == ["probe_own/fc", "probe_own_hflip/fc", "probe_own_rotation/fc"]


def layout_of(result, **options):
    return chart_layout(result, curves(result, name="probe"), name="probe", **options)


def test_the_chart_of_a_drift_is_of_clean_images():
    table = table_of(("fc",), torch.ones(1, 1), quantity=Quantity(logged=True))
    result = ProbeResult(layers=("fc",), views=[CLEAN], tables={"cka": table})
    logged = Curves({"drift_cka/fc": 1.0}, "")
    assert list(chart_layout(result, logged, name="drift")["drift cka"]) == ["clean images"]


def test_there_is_a_chart_for_all_views_and_one_for_each_augmentation():
    charts = layout_of(made_result())["probe sensitivity"]
    assert list(charts) == ["all views", "hflip", "rotation", "blur"]
    assert {kind for kind, _ in charts.values()} == {"Multiline"}


def test_a_chart_has_at_most_ten_layers():
    charts = layout_of(made_result(layers=tuple(f"layer{i}" for i in range(40))))["probe sensitivity"]
    assert {len(lines) for _, lines in charts.values()} == {10}


def test_a_pattern_matches_its_own_tag_and_no_other():
    result = made_result(layers=("a.b", "axb", "a.b[0]", "a.b:cls"))
    tags = list(curves(result, name="my probe").values)
    layout = chart_layout(result, curves(result, name="my probe"), name="my probe")
    patterns = [line for _, lines in layout["my probe sensitivity"].values() for line in lines]
    # TensorBoard takes a tag where re.match finds the pattern at its start.
    matched = [[tag for tag in tags if re.match(pattern, tag)] for pattern in patterns]
    assert sorted(tag for (tag,) in matched) == sorted(tags)


def test_a_loggers_prefix_is_part_of_the_pattern():
    line = layout_of(made_result(), prefix="run")["probe sensitivity"]["all views"][1][0]
    assert re.match(line, "run-probe_sensitivity/conv1")


def test_charts_without_a_logged_curve_are_left_out():
    result = made_result(tables={"flip_rate": table_of(("output",), torch.zeros(6, 1))})
    few = curves(result, name="probe", most_tags=1)
    assert {name: list(charts) for name, charts in chart_layout(result, few, name="probe").items()} == {
        "probe sensitivity": ["all views"]
    }


def test_charts_of_two_probes_stand_side_by_side():
    writer, other = Writer(), Writer()
    add_charts(writer, {"one": {}})
    add_charts(writer, {"two": {}})
    add_charts(other, {"three": {}})
    add_charts(other, {})
    assert writer.layouts == [{"one": {}}, {"one": {}, "two": {}}]
    assert other.layouts == [{"three": {}}]


def test_a_writer_is_told_by_what_it_can_do():
    writer = Writer()
    assert writer_of(Logger(writer)) is writer
    assert writer_of(Logger(object())) is None
    assert writer_of(object()) is None


def test_a_picture_is_written_without_leaving_a_figure_open():
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    writer = Writer()
    add_picture(writer, "probe/profile", Figure(figsize=(2, 1), dpi=50), step=7)
    assert writer.images == [("probe/profile", (50, 100, 3), 7, "HWC")]


def test_tensorboard_reads_back_what_was_written(tmp_path):
    pytest.importorskip("tensorboard")
    pytest.importorskip("matplotlib")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
    from torch.utils.tensorboard import SummaryWriter

    from kornia_lightning_probe.plotting import plot_epoch

    result = made_result()
    logged = curves(result, name="probe")
    with SummaryWriter(tmp_path) as writer:
        add_charts(writer_of(Logger(writer)), chart_layout(result, logged, name="probe"))
        for tag, value in logged.values.items():
            writer.add_scalar(tag, NAN if "conv2" in tag else value, 5)
        add_picture(writer, "probe/profile", plot_epoch({"now": result}), step=5)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert set(events.Tags()["scalars"]) == set(logged.values)
    assert math.isnan(events.Scalars("probe_sensitivity/conv2")[0].value)
    assert events.Images("probe/profile")[0].width > 100
    layout = Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    assert [chart.title for chart in layout.category[0].chart] == ["all views", "hflip", "rotation", "blur"]
