import re
from html.parser import HTMLParser

import torch
from support.made_results import made_result, table_of, views_of

from kornia_lightning_probe.plotting import plot_profile
from kornia_lightning_probe.result import ProbeResult

HOSTILE = "<script>alert('\"')</script>"


class Cells(HTMLParser):
    """The texts of a page by the kind of their element, and every element that there is."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.texts: dict[str, list[str]] = {}

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)

    def handle_data(self, data):
        self.texts.setdefault(self.elements[-1], []).append(data)


def read(page):
    cells = Cells()
    cells.feed(page)
    return cells


def made(value, *, layers=("conv", "fc"), names=("blur", "turn"), error=0.01):
    table = table_of(layers, torch.tensor(value).T, error)
    views = views_of(dict.fromkeys(names, (1.0,)))
    metadata = {"embedding": layers[-1]}
    return ProbeResult(layers=layers, views=views, tables={"sensitivity": table}, metadata=metadata)


def test_a_notebook_shows_the_verdict_and_a_table_of_layers_and_augmentations():
    result = made([[0.25, 0.5], [0.75, 1.0]])
    cells = read(result._repr_html_())
    assert cells.texts["b"] == [repr(result)]
    assert cells.texts["li"] == result.verdict().splitlines()
    assert cells.texts["th"] == ["layer", "blur", "turn", "conv", "fc"]
    assert cells.texts["td"] == ["0.25", "0.50", "0.75", "1.00"]


def test_of_changes_a_notebook_shows_those_that_are_decided():
    # The errors of both add up to .014, three of them are .042.
    comparison = made([[0.25, 0.5], [0.75, 1.0]]).compare(made([[0.28, 0.4], [0.85, 1.0]]))
    cells = read(comparison._repr_html_())
    assert cells.texts["td"] == ["-0.10", "+0.10"]
    assert cells.texts["li"] == comparison.verdict().splitlines()


def test_what_moves_most_has_the_deepest_colour():
    page = made([[0.0, 0.4], [0.8, 0.2]])._repr_html_()
    shades = [float(shade) for shade in re.findall(r"rgba\([^)]*, ([0-9.]+)\)", page)]
    # Of a scale from 0 to its end each shade is its value's share.
    assert shades[0] == 0.0
    assert shades[2] == max(shades)
    assert abs(shades[1] - shades[2] / 2) <= 0.01


def test_names_are_inert():
    one = made([[0.2, 0.4]], layers=(HOSTILE,), names=(HOSTILE, "turn"))
    for shown in (one, one.compare(made([[0.9, 0.4]], layers=(HOSTILE,), names=(HOSTILE, "turn")))):
        cells = read(shown._repr_html_())
        assert "script" not in cells.elements
        assert HOSTILE in cells.texts["th"]


def test_without_a_metric_there_is_a_title():
    empty = ProbeResult(layers=("fc",), views=views_of({"blur": (1.0,)}), tables={})
    assert empty._repr_html_() == f"<div><p><b>{empty!r}</b></p></div>"


def test_a_figure_shows_itself_in_a_notebook():
    assert made_result().plot("heatmap")._repr_png_()[1:4] == b"PNG"
    assert plot_profile([made_result()])._repr_png_()[1:4] == b"PNG"


def test_layers_that_are_left_out_are_counted():
    layers = tuple(f"layer{number}" for number in range(60))
    one = made([[0.1, 0.2]] * 60, layers=layers)
    for shown in (one, one.compare(one)):
        assert "40 of 60 layers, evenly by depth" in shown._repr_html_()
