"""Figures of drift histories made by hand."""

from dataclasses import replace

import pytest
import torch
from support.made_results import table_of

from kornia_lightning_probe.result import ProbeResult, ViewInfo
from kornia_lightning_probe.results.drift import CKA_FIRST, CKA_PREVIOUS

pytest.importorskip("matplotlib")
from kornia_lightning_probe.plotting import figure_pixels
from kornia_lightning_probe.reporting.figures.over_epochs.drift import plot_drift


def made_history(epochs, layers=("stem", "body", "head"), references=("previous", "first")):
    """CKA of layer l at epoch e is 1 - l / (10 + e); the first probe has none."""
    history = []
    for epoch in range(-1, epochs):
        values = 1 - torch.arange(len(layers)).double() / (10 + epoch)
        values = values if epoch >= 0 else torch.full_like(values, torch.nan)
        quantities = {"previous": CKA_PREVIOUS, "first": CKA_FIRST}
        tables = {
            f"cka_{name}": table_of(layers, values.unsqueeze(0), quantity=quantities[name]) for name in references
        }
        views = [ViewInfo("clean", 1, 0.0)]
        history.append(ProbeResult(layers=layers, views=views, tables=tables, epoch=epoch, metadata={"num_images": 32}))
    return history


def panels(figure):
    return [ax for ax in figure.axes if ax.get_title(loc="left")]


def heatmap(figure):
    return next(mesh for ax in figure.axes for mesh in ax.collections if mesh.get_array() is not None).get_array()


def test_lines_and_heatmap_show_the_same_numbers_without_the_first_probe():
    figure = plot_drift(made_history(4))
    lines = panels(figure)[0].get_lines()[:3]
    expected = [[1 - layer / (10 + epoch) for epoch in range(4)] for layer in range(3)]
    assert [list(line.get_ydata()) for line in lines] == [pytest.approx(row) for row in expected]
    assert heatmap(figure).reshape(3, 4).tolist() == [pytest.approx(row) for row in expected]


def test_a_layer_without_a_value_is_masked_in_the_heatmap():
    history = made_history(2)
    history[-1].table("cka_first").value[0, 1] = torch.nan
    cells = heatmap(plot_drift(history, references=["first"])).reshape(3, 2)
    assert bool(cells.mask[1, 1])
    assert cells.mask.sum() == 1


def test_only_one_probe_makes_an_empty_figure_that_can_be_drawn():
    assert figure_pixels(plot_drift(made_history(0))).ndim == 3


def test_forty_layers_and_two_hundred_epochs_stay_readable():
    figure = plot_drift(made_history(200, [f"net.blocks.{i}" for i in range(40)]))
    assert figure_pixels(figure).shape[1] < 2000
    left = panels(figure)[0]
    assert len(left.get_xticks()) <= 12
    # Ten layers and the line at 1.
    assert len(left.get_lines()) == 11
    assert figure.legends[0].get_texts()[0].get_text() == "0"


def test_a_reference_that_was_not_measured_is_an_error():
    with pytest.raises(ValueError, match="there is no metric 'cka_previous'"):
        plot_drift(made_history(2, references=["first"]), references=["previous"])


def test_no_history_is_an_error():
    with pytest.raises(ValueError, match="there is no result to draw; a DriftProbe has one after its first probe"):
        plot_drift([])


def test_the_lines_are_marked_where_nothing_has_changed_and_the_images_are_counted():
    history = made_history(2)
    assert plot_drift(history).get_supxlabel().replace("\n", " ") == (
        "epoch 1, step 0; 32 images; dashed: 1 (the same up to rotation and scale)"
    )
    for result in history:
        result.metadata = replace(result.metadata, num_images=None)
    assert "32 images" in plot_drift(history).get_supxlabel()
