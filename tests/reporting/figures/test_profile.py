import pytest
from support.made_results import made_result
from support.pictures import lines_with_values, small_print, tick_labels

pytest.importorskip("matplotlib")

from kornia_lightning_probe.plotting import plot_profile

NAN = float("nan")


def test_a_profile_has_the_layers_in_order_of_depth_and_the_values():
    ax = plot_profile([made_result()]).axes[0]
    assert tick_labels(ax.xaxis) == ["input", "conv1", "conv2", "fc", "output"]
    # The views' mean is .25, each layer adds .01.
    assert lines_with_values(ax)[0].get_ydata() == pytest.approx([0.25, 0.26, 0.27, 0.28, 0.29])


def test_bands_are_two_standard_errors_and_the_small_print_says_so():
    figure = plot_profile([made_result()])
    corners = figure.axes[0].collections[0].get_paths()[0].vertices
    assert corners[:, 1].min() == pytest.approx(0.25 - 0.02)
    assert corners[:, 1].max() == pytest.approx(0.29 + 0.02)
    assert "±2 standard errors" in small_print(figure)


def test_a_profile_of_one_augmentation_is_the_mean_over_its_levels():
    ax = plot_profile([made_result()], augmentation="rotation").axes[0]
    assert lines_with_values(ax)[0].get_ydata()[0] == pytest.approx(0.2)
    assert ax.get_ylabel() == "sensitivity, rotation"


def test_a_sequence_of_results_is_named_by_epoch():
    results = [made_result(epoch=-1), made_result(epoch=0), made_result(epoch=0)]
    legend = plot_profile(results).axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["before training", "epoch 0 (1)", "epoch 0 (2)"]


def test_lines_differ_by_marker_as_well_as_by_colour():
    lines = lines_with_values(plot_profile({"a": made_result(), "b": made_result(), "c": made_result()}).axes[0])
    assert len({line.get_marker() for line in lines}) == len({line.get_color() for line in lines}) == 3


def test_results_with_other_layers_share_one_axis_with_gaps():
    ax = plot_profile({"a": made_result(layers=("conv1", "old")), "b": made_result(layers=("conv1", "new"))}).axes[0]
    assert tick_labels(ax.xaxis) == ["input", "conv1", "new", "output", "old"]
    assert [bool(x != x) for x in lines_with_values(ax)[0].get_ydata()] == [False, False, True, False, False]


def test_no_result_is_an_error():
    with pytest.raises(ValueError, match="there is no result to draw"):
        plot_profile([])


def test_the_axis_of_a_single_augmentation_names_it():
    result = made_result(ladders={"blur": (1.0, 2.0)})
    assert plot_profile([result]).axes[0].get_ylabel() == "sensitivity, blur"
