import importlib
import sys
from types import SimpleNamespace

import pytest
import torch
from support.made_results import geometric_result, made_result, table_of, views_of

from kornia_lightning_probe.bank.pixels import PixelScale
from kornia_lightning_probe.result import ProbeResult, ViewInfo

pytest.importorskip("matplotlib")

from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from kornia_lightning_probe.reporting.figures import drawing
from kornia_lightning_probe.reporting.figures import views as plotting
from kornia_lightning_probe.reporting.figures.views import (
    figure_pixels,
    plot_bank,
    plot_epoch,
    plot_heatmap,
    plot_profile,
    plot_severity,
)

NAN = float("nan")
FORTY = tuple(f"backbone.layer{1 + i // 10}.{i % 10}.conv2" for i in range(40))
FIFTY_VIEWS = {f"augmentation{i}": (1.0, 2.0, 3.0, 4.0, 5.0) for i in range(10)}


class FakeBank(list):
    """Doubles the pixels at level 1 and crops at level 2, on images that a loader has mapped to [-1, 1]."""

    pixels = PixelScale(mean=0.5, std=0.5)

    def augment(self, view, images, block=0):
        return SimpleNamespace(images=(images[..., 1:, :] if view.level == 2 else images.clamp(max=0.0),))


def small_print(figure):
    return figure.get_supxlabel()


def tick_labels(axis):
    return [text.get_text() for text in axis.get_ticklabels()]


def lines_with_values(ax):
    return [line for line in ax.get_lines() if line.get_label()[:1] != "_"]


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


@pytest.mark.parametrize("value", [0.9, 1.1])
def test_the_mark_of_a_swapped_image_appears_where_the_axis_comes_near_it_and_is_inside(value):
    views = views_of({"blur": (1.0,)})
    far = ProbeResult(layers=("a",), views=views, tables={"sensitivity": table_of(("a",), [[value]])})
    figure = plot_profile([far])
    assert "dashed: as far as swapping the image" in small_print(figure)
    assert figure.axes[0].get_ylim()[1] > 1.0
    assert "dashed" not in small_print(plot_profile([made_result()]))


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


def test_a_metric_without_a_known_range_is_scaled_by_its_values():
    tables = {"own": table_of(("fc",), torch.linspace(-2, 4, 6)[:, None])}
    figure = plot_heatmap(made_result(tables=tables), metric="own")
    assert figure.axes[0].collections[0].get_clim() == (-2.0, 4.0)


def test_figures_show_the_headline_and_their_small_print_says_what_is_pooled():
    result = geometric_result()
    # Two views of rotation at .25 and one of blur at .5.
    assert lines_with_values(plot_profile([result]).axes[0])[0].get_ydata()[1] == pytest.approx(1 / 3)
    for figure in (plot_profile([result]), plot_heatmap(result), plot_severity(result), plot_epoch({"now": result})):
        assert "maps pooled under rotation" in small_print(figure).replace("\n", " ")
    assert plot_profile([result]).axes[0].get_ylabel() == "sensitivity, mean over views"
    assert plot_epoch({"now": result}).get_suptitle() == "sensitivity, epoch 0, step 0"


def test_sensitivity_by_its_name_is_the_flattened_one():
    result = geometric_result()
    figure = plot_profile([result], metric="sensitivity")
    assert lines_with_values(figure.axes[0])[0].get_ydata() == pytest.approx([0.5] * 4)
    flat = (figure, plot_heatmap(result, metric="sensitivity"), plot_severity(result, metric="sensitivity"))
    assert not any("pooled" in small_print(figure) for figure in flat)


def test_nothing_pooled_is_not_mentioned():
    result = geometric_result()
    assert "pooled" not in small_print(plot_profile([result], augmentation="blur"))
    assert "pooled" not in small_print(plot_severity(result, layers=["fc"]))
    assert "pooled" not in small_print(plot_heatmap(made_result()))


def test_results_that_are_pooled_differently_are_told_apart():
    figure = plot_profile({"old": made_result(), "new": geometric_result()})
    assert "old: nothing pooled; new: maps pooled under rotation" in small_print(figure).replace("\n", " ")


def test_small_print_is_broken_where_the_figure_ends():
    figure = Figure(figsize=(4, 3))
    drawing.small_print(figure, "many words " * 20, "", "the end")
    assert max(map(len, small_print(figure).splitlines())) <= 84
    assert small_print(figure).endswith("; the end")


@pytest.mark.parametrize("metric", sorted(drawing.SCALES))
def test_each_metric_with_a_known_range_has_that_scale(metric):
    result = made_result(tables={metric: table_of(("fc",), torch.full((6, 1), 0.7))})
    figure = plot_heatmap(result, metric=metric)
    assert figure.axes[0].collections[0].get_clim() == drawing.SCALES[metric]
    low, high = drawing.SCALES[metric]
    assert all(low <= place <= high for place in drawing.MARKS.get(metric, {}))


def test_light_is_what_an_augmentation_that_does_nothing_reads():
    tables = {"cosine": table_of(("fc",), torch.ones(6, 1)), "flip_rate": table_of(("output",), torch.zeros(6, 1))}
    result = made_result(tables=tables)
    for metric in tables:
        (mesh, *_) = plot_heatmap(result, metric=metric).axes[0].collections
        figure_pixels(mesh.figure)
        assert mesh.get_facecolors()[0, :3].mean() > 0.8


def test_a_colour_bar_points_to_where_values_leave_the_scale():
    values = torch.tensor([0.3, 0.6, 0.7, 0.8, 0.9, 1.0])[:, None]
    figure = plot_heatmap(made_result(tables={"retrieval_auc": table_of(("fc",), values)}), metric="retrieval_auc")
    assert figure.axes[0].collections[0].colorbar.extend == "min"


def test_the_axis_of_a_single_augmentation_names_it():
    result = made_result(ladders={"blur": (1.0, 2.0)})
    assert plot_profile([result]).axes[0].get_ylabel() == "sensitivity, blur"


def test_the_module_that_all_layers_are_in_is_said_once():
    names, label = drawing.shown(["input", "net.stage1.conv", "net.stage2.conv", "output"])
    assert (names, label) == (["input", "stage1.conv", "stage2.conv", "output"], "layer of net")
    assert drawing.shown(["input", "conv", "output"]) == (["input", "conv", "output"], "layer")


def test_a_very_long_name_is_cut_in_its_middle():
    (name,), _ = drawing.shown(["a" * 30 + "z" * 30])
    assert (len(name), name[0], name[-1]) == (28, "a", "z")
    assert "…" in name


def test_the_epoch_figure_puts_the_profiles_beside_the_last_heatmap():
    results = {"start": made_result(epoch=-1), "previous": made_result(epoch=2), "now": made_result(epoch=3)}
    figure = plot_epoch(results)
    profile, heatmap, _ = figure.axes
    assert profile.get_ylim() == heatmap.get_ylim()
    # Depth runs down, values across.
    assert lines_with_values(profile)[2].get_xdata()[0] == pytest.approx(0.25)
    assert figure.get_suptitle() == "sensitivity, epoch 3, step 120"
    assert "heatmap: now; 32 images" in small_print(figure)


def test_severity_curves_have_a_panel_for_each_augmentation():
    figure = plot_severity(made_result())
    panels = [panel for panel in figure.axes if panel.get_visible()]
    assert [panel.get_title("left") for panel in panels] == ["hflip", "rotation", "blur"]
    line = panels[1].get_lines()[0]
    assert list(line.get_xdata()) == [5.0, 15.0, 30.0]
    # Views 1 to 3 at the input.
    assert line.get_ydata() == pytest.approx([0.1, 0.2, 0.3])


def test_severity_curves_show_at_most_ten_layers_and_say_so():
    figure = plot_severity(made_result(layers=FORTY))
    assert len(figure.legends[0].get_texts()) == 10
    assert "10 of 42 layers" in small_print(figure)


def test_severity_curves_show_the_layers_asked_for():
    figure = plot_severity(made_result(), layers=["fc"])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["fc"]


def test_panels_that_are_not_needed_are_hidden():
    figure = plot_severity(made_result(ladders={f"own{i}": (1.0,) for i in range(5)}))
    assert sum(panel.get_visible() for panel in figure.axes) == 5


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


def pictures(figure):
    return [ax.images[0].get_array() for ax in figure.findobj(lambda artist: bool(getattr(artist, "images", None)))]


def test_the_bank_is_shown_in_the_pixels_before_the_loaders_normalisation():
    bank = FakeBank([ViewInfo("dim", 1, 0.5)])
    images = torch.full((6, 3, 2, 2), 1.0)
    clean, *_, dimmed = pictures(plot_bank(bank, images, max_images=1))
    # (1 * .5 + .5) = 1 and (0 * .5 + .5) = .5.
    assert (clean.shape, clean.max(), dimmed.max()) == ((2, 2, 3), 1.0, 0.5)


def test_the_bank_draws_the_block_as_a_whole_and_shows_its_first_images():
    seen = []

    class Watched(FakeBank):
        def augment(self, view, images, block=0):
            seen.append((len(images), block))
            return super().augment(view, images, block)

    figure = plot_bank(Watched([ViewInfo("dim", 1, 0.5)]), torch.zeros(6, 1, 2, 2), max_images=2)
    assert seen == [(6, 0)]
    assert len(pictures(figure)) == 4


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_the_bank_shows_any_number_of_channels_and_a_cropped_view(channels):
    bank = FakeBank([ViewInfo("crop", 1, 1.0), ViewInfo("crop", 2, 2.0)])
    figure = plot_bank(bank, torch.zeros(1, channels, 4, 4))
    assert [picture.shape[:2] for picture in pictures(figure)] == [(4, 4), (4, 4), (3, 4)]
    assert figure_pixels(figure).size


def titles(figure):
    return [ax.get_title() for ax in figure.findobj(lambda artist: hasattr(artist, "get_title")) if ax.get_title()]


def test_a_large_bank_goes_on_below_with_the_clean_images_again():
    views = [ViewInfo(name, i, float(i)) for name in ("one", "two") for i in range(1, 7)] + [ViewInfo("three", 1, 1.0)]
    found = titles(plot_bank(FakeBank(views), torch.zeros(1, 1, 4, 4)))
    assert found == [
        "clean",
        *(f"one\n{i}" for i in range(1, 7)),
        "clean",
        *(f"two\n{i}" for i in range(1, 7)),
        "three",
    ]


def test_a_ladder_longer_than_a_row_is_broken():
    views = [ViewInfo("one", i, float(i)) for i in range(1, 22)]
    assert [len(band) for band in plotting._bands(views)] == [10, 10, 1]


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"kornia-lightning-probe\[plots\]"):
        importlib.reload(drawing)
    monkeypatch.undo()
    importlib.reload(drawing)
