import pytest
import torch
from support.made_results import SENSITIVITY, made_result, table_of, views_of
from support.pictures import small_print

pytest.importorskip("matplotlib")

from kornia_lightning_probe.plotting import plot_profile, plot_severity
from kornia_lightning_probe.quantity import Quantity
from kornia_lightning_probe.result import ProbeResult


def one_value(value, quantity):
    tables = {"own": table_of(("a",), [[value]], quantity=quantity)}
    return ProbeResult(layers=("a",), views=views_of({"blur": (1.0,)}), tables=tables)


@pytest.mark.parametrize("value", [0.9, 1.1])
def test_the_mark_of_a_swapped_image_appears_where_the_axis_comes_near_it_and_is_inside(value):
    figure = plot_profile([one_value(value, SENSITIVITY)])
    assert "dashed: 1 (as far as swapping the image)" in small_print(figure)
    assert figure.axes[0].get_ylim()[1] > 1.0
    assert "dashed" not in small_print(plot_profile([made_result()]))


def test_a_line_without_a_mark_is_called_by_its_value():
    assert "dashed: 0.5" in small_print(plot_profile([one_value(0.5, Quantity(line=0.5))]))


def test_a_line_below_the_axis_is_drawn_inside_where_it_is_near():
    # The axis runs from 0 to 1 and a little more; -.05 is nearer than a tenth of it.
    quantity = Quantity(line=-0.05, marks=((-0.05, "chance"),))
    figure = plot_profile([one_value(1.0, quantity)])
    assert "dashed: chance" in small_print(figure)
    assert figure.axes[0].get_ylim()[0] < -0.05
    assert "dashed" not in small_print(plot_profile([one_value(1.0, Quantity(line=-0.5))]))


def test_every_panel_of_the_severity_curves_has_the_line():
    table = table_of(("fc",), torch.full((6, 1), 0.95), quantity=SENSITIVITY)
    figure = plot_severity(made_result(tables={"sensitivity": table}))
    assert "dashed: 1 (as far as swapping the image)" in small_print(figure)
    # One curve and one line.
    assert [len(panel.get_lines()) for panel in figure.axes if panel.get_visible()] == [2, 2, 2]
