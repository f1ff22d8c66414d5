import pytest
from support.made_results import made_result
from support.pictures import FORTY, small_print

pytest.importorskip("matplotlib")

from kornia_lightning_probe.plotting import plot_severity

NAN = float("nan")


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


@pytest.mark.parametrize(("count", "places"), [(2, 2), (4, 4), (5, 6), (6, 6), (7, 8), (9, 9), (11, 12)])
def test_a_place_that_is_left_over_holds_the_legend(count, places):
    figure = plot_severity(made_result(ladders={f"own{i}": (1.0,) for i in range(count)}))
    assert len(figure.axes) == places
    assert sum(panel.axison for panel in figure.axes) == count
    legends = [panel.get_legend() for panel in figure.axes]
    assert [legend is not None for legend in legends] == [number == count for number in range(places)]
    assert len(figure.legends) == (count == places)
