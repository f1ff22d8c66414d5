import pytest
import torch
from support.made_results import COSINE, made_result, table_of
from support.pictures import tick_labels

pytest.importorskip("matplotlib")

from kornia_lightning_probe.plotting import figure_pixels, plot_heatmap
from kornia_lightning_probe.quantity import Quantity

SHARE = Quantity(unit="nats", at_identity=0.0, scale=(0.0, 2.0), marks=((0.0, "0 (none)"), (2.0, "2 (all)")), line=1.0)


def test_a_metric_without_a_known_range_is_scaled_by_its_values():
    tables = {"own": table_of(("fc",), torch.linspace(-2, 4, 6)[:, None])}
    figure = plot_heatmap(made_result(tables=tables), metric="own")
    assert figure.axes[0].collections[0].get_clim() == (-2.0, 4.0)


def test_a_metric_of_ones_own_has_the_scale_the_marks_and_the_line_of_its_quantity():
    tables = {"own": table_of(("fc",), torch.full((6, 1), 0.7), quantity=SHARE)}
    cells, bar = plot_heatmap(made_result(tables=tables), metric="own").axes
    assert cells.collections[0].get_clim() == (0.0, 2.0)
    assert tick_labels(bar.yaxis) == ["0 (none)", "2 (all)"]
    assert bar.get_title("left") == "own\n(nats)"
    assert [line.get_ydata()[0] for line in bar.get_lines() if len(set(line.get_ydata())) == 1] == [1.0]


def test_a_mark_outside_the_scale_is_not_drawn():
    quantity = Quantity(scale=(0.0, 0.5), marks=((0.0, "none"), (1.0, "all")), line=1.0)
    tables = {"own": table_of(("fc",), torch.zeros(6, 1), quantity=quantity)}
    bar = plot_heatmap(made_result(tables=tables), metric="own").axes[1]
    assert tick_labels(bar.yaxis) == ["none"]
    assert bar.get_ylim() == (0.0, 0.5)


def test_light_is_what_an_augmentation_that_does_nothing_reads():
    tables = {
        "cosine": table_of(("fc",), torch.ones(6, 1), quantity=COSINE),
        "share": table_of(("output",), torch.zeros(6, 1), quantity=SHARE),
    }
    result = made_result(tables=tables)
    for metric in tables:
        (mesh, *_) = plot_heatmap(result, metric=metric).axes[0].collections
        figure_pixels(mesh.figure)
        assert mesh.get_facecolors()[0, :3].mean() > 0.8


def test_a_colour_bar_points_to_where_values_leave_the_scale():
    values = torch.tensor([0.3, 0.6, 0.7, 0.8, 0.9, 1.0])[:, None]
    table = table_of(("fc",), values, quantity=Quantity(at_identity=1.0, scale=(0.5, 1.0)))
    figure = plot_heatmap(made_result(tables={"own": table}), metric="own")
    assert figure.axes[0].collections[-1].colorbar.extend == "min"
