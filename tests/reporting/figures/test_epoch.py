import pytest
from support.made_results import made_result
from support.pictures import FORTY, lines_with_values, small_print

pytest.importorskip("matplotlib")

from kornia_lightning_probe.plotting import figure_pixels, plot_epoch

NAN = float("nan")


def test_the_epoch_figure_puts_the_profiles_beside_the_last_heatmap():
    results = {"start": made_result(epoch=-1), "previous": made_result(epoch=2), "now": made_result(epoch=3)}
    figure = plot_epoch(results)
    profile, heatmap, _ = figure.axes
    assert profile.get_ylim() == heatmap.get_ylim()
    # Depth runs down, values across.
    assert lines_with_values(profile)[2].get_xdata()[0] == pytest.approx(0.25)
    assert figure.get_suptitle() == "sensitivity, epoch 3, step 120"
    assert "heatmap: now; 32 images" in small_print(figure)


def test_a_card_has_the_profiles_of_at_most_twelve_layers_and_is_704_pixels_wide():
    results = {"start": made_result(epoch=-1, layers=FORTY), "now": made_result(epoch=3, layers=FORTY)}
    figure = plot_epoch(results, card=True)
    (profile,) = figure.axes
    assert len(profile.get_yticklabels()) == 12
    # Twice the width of TensorBoard's card: 4.4 inches of 160 pixels.
    assert figure_pixels(figure).shape[-1] == 704 or figure_pixels(figure).shape[1] == 704
