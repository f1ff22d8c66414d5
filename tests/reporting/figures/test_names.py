"""Names are drawn as they are: a layer or an augmentation may be called anything."""

import warnings

import pytest
from support.made_results import SENSITIVITY, made_result, table_of
from support.pictures import FakeBank

pytest.importorskip("matplotlib")
import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

from kornia_lightning_probe.plotting import (
    figure_pixels,
    plot_bank,
    plot_epoch,
    plot_heatmap,
    plot_profile,
    plot_severity,
)
from kornia_lightning_probe.reporting.figures.comparison import plot_comparison
from kornia_lightning_probe.reporting.figures.over_epochs.drift import plot_drift
from kornia_lightning_probe.result import ProbeResult, ViewInfo
from kornia_lightning_probe.results.drift import CKA_FIRST
from kornia_lightning_probe.results.tables import CLEAN

# No formula that matplotlib could read; one that it could, which would lose its letters; a name that it would hide.
BAD, FORMULA, HIDDEN = r"$\bad{$", "$x_1$", "_conv_stem"
LAYERS = (BAD, FORMULA, HIDDEN)
LADDERS = {BAD: (1.0, 2.0), FORMULA: (1.0,), HIDDEN: (1.0,)}
METRIC = r"my $\metric{$"


def named_result():
    layers = (*LAYERS, "output")
    table = table_of(layers, torch.full((4, 4), 0.5), quantity=SENSITIVITY)
    return made_result(LAYERS, ladders=LADDERS, tables={METRIC: table})


def drift_history():
    table = table_of(LAYERS, torch.ones(1, 3), quantity=CKA_FIRST)
    return [ProbeResult(layers=LAYERS, views=[CLEAN], tables={"cka_first": table}, epoch=i) for i in range(2)]


FIGURES = {
    "profile": lambda: plot_profile({BAD: named_result(), HIDDEN: named_result()}, metric=METRIC),
    "profile of one augmentation": lambda: plot_profile([named_result()], augmentation=BAD),
    "heatmap": lambda: plot_heatmap(named_result(), metric=METRIC),
    "epoch": lambda: plot_epoch({BAD: named_result(), "now": named_result()}, metric=METRIC),
    "severity": lambda: plot_severity(named_result(), metric=METRIC),
    "comparison": lambda: plot_comparison(named_result().compare(named_result()), metric=METRIC),
    "drift": lambda: plot_drift(drift_history()),
    "bank": lambda: plot_bank(FakeBank([ViewInfo(name, 1, 1.0) for name in LADDERS]), torch.zeros(1, 1, 4, 4)),
}


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text)]


@pytest.mark.parametrize("kind", FIGURES)
def test_any_name_can_be_drawn_and_stands_as_it_is(kind):
    figure = FIGURES[kind]()
    assert figure_pixels(figure).size
    assert any(BAD in text for text in texts(figure))
    assert any(HIDDEN in text for text in texts(figure))
    drawn = [text for text in figure.findobj(Text) if "$" in text.get_text()]
    assert drawn
    assert not any(text.get_parse_math() for text in drawn)


@pytest.mark.parametrize("draw", [plot_profile, plot_heatmap, plot_comparison])
def test_any_name_can_be_drawn_in_axes_of_ones_own(draw):
    given = {plot_profile: [named_result()], plot_heatmap: named_result()}
    figure = Figure()
    ax = figure.subplots()
    ax.set_xlabel("mine")
    draw(given.get(draw, named_result().compare(named_result())), metric=METRIC, ax=ax)
    assert figure_pixels(figure).size


def test_layers_with_an_underscore_in_front_are_in_the_legend_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plot_severity(named_result())
    assert HIDDEN in [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_users_own_latex_is_not_asked_to_read_names():
    with mpl.rc_context({"text.usetex": True}):
        figure = plot_heatmap(named_result())
    assert not any(text.get_usetex() for text in figure.findobj(Text) if "$" in text.get_text())
