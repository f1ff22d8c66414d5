import importlib
import sys

import pytest
import torch
from support.made_results import made_result, moving_result, table_of, views_of
from support.pictures import FORTY, small_print

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

from kornia_lightning_probe.plotting import figure_pixels, plot_epoch, plot_heatmap, plot_profile, plot_severity
from kornia_lightning_probe.quantity import Quantity
from kornia_lightning_probe.reporting.figures import drawing
from kornia_lightning_probe.result import ProbeResult

NAN = float("nan")

FIFTY_VIEWS = {f"augmentation{i}": (1.0, 2.0, 3.0, 4.0, 5.0) for i in range(10)}


def test_small_print_is_broken_where_the_figure_ends():
    figure = Figure(figsize=(4, 3))
    drawing.small_print(figure, "many words " * 20, "", "the end")
    assert max(map(len, figure.get_supxlabel().splitlines())) <= 84
    assert small_print(figure).endswith("; the end")


def test_the_module_that_all_layers_are_in_is_said_once():
    names, label = drawing.shown(["input", "net.stage1.conv", "net.stage2.conv", "output"])
    assert (names, label) == (["input", "stage1.conv", "stage2.conv", "output"], "layer of net")
    assert drawing.shown(["input", "conv", "output"]) == (["input", "conv", "output"], "layer")


def test_a_very_long_name_is_cut_in_its_middle():
    (name,), _ = drawing.shown(["a" * 30 + "z" * 30])
    assert (len(name), name[0], name[-1]) == (28, "a", "z")
    assert "…" in name


@pytest.mark.parametrize("layers", [("a",), FORTY, tuple(f"x.{'long' * 20}{i}" for i in range(100))], ids=len)
@pytest.mark.parametrize("ladders", [{"blur": (1.0,)}, FIFTY_VIEWS], ids=["one view", "50 views"])
def test_every_size_can_be_drawn_without_a_warning(layers, ladders):
    result = made_result(layers=layers, ladders=ladders)
    for figure in (plot_epoch({"now": result}), plot_profile([result]), plot_heatmap(result), plot_severity(result)):
        height, width, channels = figure_pixels(figure).shape
        assert channels == 3
        assert max(height, width) < 2500


def test_a_result_without_any_value_can_be_drawn():
    views = views_of({"blur": (1.0, 2.0)})
    table = table_of(("a", "b"), torch.full((2, 2), NAN), error=NAN)
    result = ProbeResult(layers=("a", "b"), views=views, tables={"sensitivity": table})
    for figure in (plot_epoch({"now": result}), plot_severity(result)):
        assert figure_pixels(figure).size


def test_profiles_and_heatmaps_go_into_given_axes():
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert plot_profile([made_result()], ax=left) is figure
    assert plot_heatmap(made_result(), ax=right) is figure
    assert left.get_lines()
    assert right.collections


def test_drawing_leaves_the_settings_and_opens_no_window():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    with pytest.raises(ValueError, match="no metric"):
        plot_heatmap(made_result(), metric="none")
    plot_epoch({"now": made_result()})
    assert dict(mpl.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install matplotlib \(the extra \[plots\]\)"):
        importlib.reload(drawing)
    monkeypatch.undo()
    importlib.reload(drawing)


def test_every_figure_names_the_augmentations_that_move_pixels():
    result = moving_result()
    for figure in (plot_profile([result]), plot_heatmap(result), plot_severity(result), plot_epoch({"now": result})):
        assert "maps and tokens: spatial mean under rotation" in small_print(figure)


def test_what_does_not_move_pixels_or_does_not_depend_on_it_is_not_mentioned():
    result = moving_result()
    assert "spatial mean" not in small_print(plot_profile([result], augmentation="blur"))
    assert "spatial mean" not in small_print(plot_heatmap(result, metric="sensitivity_flat"))
    assert "spatial mean" not in small_print(plot_heatmap(made_result()))


def test_results_of_banks_that_differ_in_what_moves_pixels_are_told_apart():
    figure = plot_profile({"old": made_result(), "new": moving_result()})
    assert "old: no view moves pixels; new: maps and tokens: spatial mean under rotation" in small_print(figure)


def test_results_that_would_show_different_metrics_are_refused():
    own = ProbeResult(layers=("a",), views=views_of({"blur": (1,)}), tables={"own": table_of(("a",), [[1.0]])})
    assert plot_profile({"a": own, "b": own}).axes[0].get_ylabel() == "own, blur"
    with pytest.raises(ValueError, match=r"give metric=\.\.\.; it is start \(own\), now \(sensitivity\)$"):
        plot_profile({"start": own, "now": made_result()})


def test_a_result_without_metrics_has_nothing_to_show():
    with pytest.raises(ValueError, match="there is nothing to show in this result: no metric was measured"):
        plot_heatmap(ProbeResult(layers=(), views=[], tables={}))


def test_the_unit_of_a_metric_stands_beside_its_name():
    table = table_of(("fc",), torch.ones(6, 1), quantity=Quantity(unit="nats"))
    result = made_result(tables={"own": table})
    assert plot_profile([result], metric="own").axes[0].get_ylabel() == "own (nats), mean over views"
    assert plot_severity(result, metric="own").get_supylabel() == "own (nats)"
