import pytest
from support.made_results import made_result
from support.pictures import lines_with_values, small_print

pytest.importorskip("matplotlib")

from kornia_lightning_probe.plotting import plot_epoch

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
