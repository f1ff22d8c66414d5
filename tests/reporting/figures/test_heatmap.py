import pytest
from support.made_results import made_result, table_of, views_of
from support.pictures import small_print, tick_labels

pytest.importorskip("matplotlib")

from matplotlib.collections import QuadMesh

from kornia_lightning_probe.plotting import plot_heatmap
from kornia_lightning_probe.result import ProbeResult

NAN = float("nan")


def test_a_heatmap_has_a_fixed_scale_with_the_swap_marked():
    figure = plot_heatmap(made_result())
    meshes = [found for found in figure.axes[0].collections if isinstance(found, QuadMesh)]
    assert {mesh.get_clim() for mesh in meshes} == {(0.0, 1.2)}
    assert "1 (as far as\nswapping the\nimage)" in tick_labels(figure.axes[1].yaxis)


def test_a_heatmap_groups_the_levels_of_an_augmentation():
    figure = plot_heatmap(made_result())
    meshes = [found for found in figure.axes[0].collections if isinstance(found, QuadMesh)]
    # One mesh for each of hflip (1 level), rotation (3) and blur (2), over input, three layers and output.
    assert [mesh.get_array().shape for mesh in meshes] == [(5, 1), (5, 3), (5, 2)]
    assert tick_labels(figure.axes[0].xaxis) == ["1", "5", "15", "30", "0.005", "0.01"]


def test_the_input_is_on_top_of_a_heatmap():
    ax = plot_heatmap(made_result()).axes[0]
    assert tick_labels(ax.yaxis)[0] == "input"
    assert ax.yaxis_inverted()


def test_cells_without_a_value_are_grey_and_the_small_print_says_so():
    views = views_of({"blur": (1.0,)})
    result = ProbeResult(layers=("a", "b"), views=views, tables={"sensitivity": table_of(("a", "b"), [[NAN, 0.5]])})
    assert "grey: no value" in small_print(plot_heatmap(result))
    assert "grey" not in small_print(plot_heatmap(made_result()))
