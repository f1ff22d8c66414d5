"""The history of a training, of results made by hand: view v reads v/10 + l/100 at layer l, in each epoch less."""

import pytest
import torch
from support.made_results import SENSITIVITY, made_result, table_of
from support.pictures import FORTY, small_print

pytest.importorskip("matplotlib")
from kornia_lightning_probe.plotting import figure_pixels
from kornia_lightning_probe.reporting.figures.over_epochs.history import plot_history

LAYERS = ("conv1", "conv2", "fc")


def made_history(count=3, layers=LAYERS, **options):
    """Epochs -1, 0, 1, ..."""
    return [made_result(layers, epoch=epoch, **options) for epoch in range(-1, count - 1)]


def panels(figure):
    return [ax for ax in figure.axes if ax.get_lines() and ax.get_label() != "<colorbar>"]


def heatmap(figure):
    return next(ax for ax in figure.axes if ax.get_title(loc="left") == "mean over the views")


def ticks(ax):
    return [text.get_text() for text in ax.get_xticklabels()]


def test_each_augmentation_has_a_panel_and_the_legend_names_the_layers_without_the_pixels():
    figure = plot_history(made_history())
    assert [panel.get_title(loc="left") for panel in panels(figure)] == ["hflip", "rotation", "blur"]
    (legend,) = [ax.get_legend() for ax in figure.axes if ax.get_legend()]
    assert [text.get_text() for text in legend.get_texts()] == [*LAYERS, "output"]


def test_a_line_is_the_mean_over_the_levels_at_each_probe_and_the_first_is_before_training():
    rotation = panels(plot_history(made_history()))[1]
    # Views 1, 2 and 3 at layer 1: (.1 + .2 + .3) / 3 + .01.
    assert rotation.get_lines()[0].get_ydata() == pytest.approx([0.21] * 3)
    assert ticks(rotation) == ["before\ntraining", "0", "1"]


def test_the_bands_are_two_standard_errors_to_each_side():
    flip = panels(plot_history(made_history()))[0]
    heights = flip.collections[0].get_paths()[0].vertices[:, 1]
    # One view, whose error is .01, at layer 1.
    assert (heights.min(), heights.max()) == pytest.approx((0.01 - 0.02, 0.01 + 0.02))


def test_the_heatmap_has_the_means_over_the_views_of_all_layers():
    (mesh,) = heatmap(plot_history(made_history())).collections
    # (0 + ... + .5) / 6 = .25, and l/100.
    expected = [0.25 + layer / 100 for layer in range(5) for _ in range(3)]
    assert mesh.get_array().flatten().tolist() == pytest.approx(expected)


def test_a_layer_that_came_later_is_a_gap_in_its_line_and_grey_before():
    history = [made_result(LAYERS[:2], epoch=-1), made_result(LAYERS, epoch=0)]
    figure = plot_history(history)
    assert [value == value for value in panels(figure)[0].get_lines()[2].get_ydata()] == [False, True]
    (mesh,) = heatmap(figure).collections
    assert mesh.get_array().mask.reshape(5, 2).tolist() == [[False, False]] * 3 + [[True, False], [False, False]]


def test_of_forty_layers_ten_have_lines_and_the_small_print_says_so():
    figure = plot_history(made_history(layers=FORTY))
    assert "lines: 10 of 41 layers" in small_print(figure)
    # And the line at 1.
    assert [len(panel.get_lines()) for panel in panels(figure)] == [10 + 1] * 3


def test_layers_that_are_asked_for_have_the_lines():
    assert len(panels(plot_history(made_history(), layers=["fc"]))[0].get_lines()) == 1


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 13, 19])
def test_panels_and_legend_fill_the_grid_whatever_their_number(count):
    figure = plot_history(made_history(ladders={f"own{i}": (1.0,) for i in range(count)}))
    spots = [ax.get_subplotspec() for ax in figure.axes if ax.get_title(loc="left") != "mean over the views"]
    grids = [spot for spot in spots if spot is not None and spot.get_gridspec().nrows * spot.get_gridspec().ncols > 1]
    held = sum(len(spot.rowspan) * len(spot.colspan) for spot in grids)
    grid = grids[0].get_gridspec()
    assert held == grid.nrows * grid.ncols


def test_a_card_shows_the_three_augmentations_that_move_most_at_five_layers():
    ladders = {f"own{i}": (1.0,) for i in range(5)}
    figure = plot_history(made_history(layers=FORTY, ladders=ladders), card=True)
    assert [panel.get_title(loc="left") for panel in panels(figure)] == ["own2", "own3", "own4"]
    assert {len(panel.get_lines()) for panel in panels(figure)} == {5}
    assert "2 not shown" in figure.get_suptitle()
    # 4.4 inches at 350 pixels: letters of 8 points are 350 / 4.4 * 8 / 72 = 8.8 pixels high.
    assert figure.get_figwidth() == 4.4


@pytest.mark.parametrize("card", [False, True])
def test_any_name_can_be_drawn_and_stands_as_it_is(card):
    bad = r"$\bad{$"
    table = table_of((bad, "_hidden"), torch.full((1, 2), 0.5), quantity=SENSITIVITY)
    result = made_result((bad, "_hidden"), ladders={bad: (1.0,)}, tables={bad: table})
    figure = plot_history([result, result], metric=bad, card=card)
    assert figure_pixels(figure).size
    texts = figure.findobj(lambda artist: hasattr(artist, "get_parse_math") and "$" in artist.get_text())
    assert texts
    assert not any(text.get_parse_math() for text in texts)


def test_names_that_are_unknown_are_errors():
    with pytest.raises(ValueError, match="there is no layer 'fd'"):
        plot_history(made_history(), layers=["fd"])
    with pytest.raises(ValueError, match="there is no metric 'cosine'"):
        plot_history(made_history(), metric="cosine")


def test_no_history_is_an_error():
    with pytest.raises(ValueError, match="there is no result to draw; a SensitivityProbe has one after its first"):
        plot_history([])
