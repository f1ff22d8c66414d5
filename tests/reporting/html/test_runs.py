"""Several runs beside each other."""

import json

import vl_convert
from support.made_results import made_result
from support.reports import Page, words_of

from kornia_lightning_probe.reporting.html import Probed, report_text
from kornia_lightning_probe.reporting.html.charts import run_charts
from kornia_lightning_probe.reporting.html.runs import run_numbers


def run_of(name, *, by=0.0, layers=("conv1", "fc"), epochs=(-1, 0, 1), stage="fit"):
    results = [made_result(layers, epoch=epoch, metadata={"embedding": layers[-1]}) for epoch in epochs]
    for result in results:
        result.tables["sensitivity"].value.add_(by)
    return Probed(name, results, stage, "Net")


def test_one_run_and_a_test_beside_its_training_are_not_several():
    assert run_numbers([run_of("a")]) is None
    assert run_numbers([run_of("a"), run_of("a", stage="test", epochs=(1,))]) is None


def test_runs_share_their_colours_and_the_names_of_both():
    numbers = run_numbers([run_of("a"), run_of("b", by=2.0, layers=("conv1", "attention", "fc"))])
    assert numbers.layers == ["input", "conv1", "attention", "fc", "output"]
    # The mean of views 4 and 5 at the last of five columns: .45 + .04 + 2.
    assert numbers.ends == (0.0, 2.49)
    cell = next(row for row in numbers.rows if (row["r"], row["j"], row["k"]) == (1, 2, 2))
    assert (cell["y"], cell["s"]) == (2.47, 0.01)
    assert not [row for row in numbers.rows if (row["r"], row["j"]) == (0, 2)]


def test_a_line_for_each_says_what_the_embedding_did():
    numbers = run_numbers([run_of("a"), run_of("b", by=1.0)])
    assert numbers.heads[:6] == ["run", "model", "probed epochs", "embedding", "sensitivity at first", "now"]
    # Over the six views .25, and .02 for column 2.
    assert numbers.table[0][:6] == ["a", "Net", "2", "fc", "0.270 ± 0.010", "0.270 ± 0.010"]
    assert numbers.table[1][5] == "1.270 ± 0.010"
    assert [(row["x"], row["y"]) for row in numbers.curves if row["r"] == 1] == [(-1, 1.27), (0, 1.27), (1, 1.27)]


def test_their_charts_name_runs_layers_and_time():
    charts = run_charts(run_numbers([run_of("left"), run_of("right")]))
    words = words_of(vl_convert.vegalite_to_svg(json.dumps(charts["runs"])))
    for name in ("left", "right", "conv1"):
        assert name in words
    words = words_of(vl_convert.vegalite_to_svg(json.dumps(charts["run_curves"])))
    assert {"left", "right"} <= set(words)
    assert "-1" not in words


def test_runs_of_one_result_each_have_no_curves():
    page = Page(report_text([run_of("a", epochs=(1,)), run_of("b", epochs=(1,))]))
    assert "2 runs side by side" in page.text
    assert list(page.data[0]["charts"]) == ["runs"]
