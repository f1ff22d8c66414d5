import io

import pytest
from support.made_results import made_result, table_of, views_of

pytest.importorskip("matplotlib")

from kornia_lightning_probe.result import ProbeResult

NAN = float("nan")


def test_the_figure_has_a_cell_for_each_change_and_hatches_those_within_error():
    pytest.importorskip("matplotlib")
    first = made_result()
    table = first.tensor("sensitivity")
    table[0, 0] += 0.5
    second = made_result(tables={"sensitivity": table_of(("input", "conv1", "conv2", "fc", "output"), table)})
    figure = first.compare(second).plot()
    (mesh,) = figure.axes[0].collections
    assert mesh.get_array().shape == (5, 3)
    # The scale is symmetric about no change.
    assert mesh.get_clim() == (-0.5, 0.5)
    assert [patch.get_xy() for patch in figure.axes[0].patches].count((-0.5, -0.5)) == 0
    assert len(figure.axes[0].patches) == 5 * 3 - 1
    assert "within 2 standard errors, not paired" in figure.get_supxlabel()
    figure.savefig(io.BytesIO(), format="png")


def test_a_figure_of_no_change_and_one_in_axes_of_ones_own_can_be_drawn():
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    from kornia_lightning_probe.reporting.figures.comparison import plot_comparison

    views = views_of({"blur": (1.0,)})
    empty = ProbeResult(layers=("a",), views=views, tables={"own": table_of(("a",), [[NAN]])})
    figure = empty.compare(empty).plot("own")
    assert figure.axes[0].collections[0].get_clim() == (-1.0, 1.0)
    assert figure.get_supxlabel().endswith("; grey: no value")
    mine = Figure()
    assert plot_comparison(made_result().compare(made_result()), ax=mine.subplots()) is mine


def test_a_large_change_is_written_short_and_a_large_table_has_no_numbers():
    def figure(layers, change):
        results = [
            ProbeResult(
                layers=layers,
                views=views_of({"blur": (1.0,)}),
                tables={"own": table_of(layers, [[value] * len(layers)])},
            )
            for value in (0.0, change)
        ]
        return results[0].compare(results[1]).plot("own")

    assert [text.get_text() for text in figure(("a",), 12.25).axes[0].texts if "+" in text.get_text()] == ["+12.2"]
    many = tuple(f"layer{i}" for i in range(24 * 14 + 1))
    assert not any("+" in text.get_text() for text in figure(many, 0.5).axes[0].texts)
