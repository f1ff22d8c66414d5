import builtins
from dataclasses import replace

import pytest
import torch
from support.made_results import made_result

from kornia_lightning_probe.result import Comparison, ProbeResult, ProbeRow
from kornia_lightning_probe.results.comparing.comparison import ComparisonRow
from kornia_lightning_probe.results.lookup import ProbeNumbers


def test_to_pandas_has_a_column_for_each_field():
    pandas = pytest.importorskip("pandas")
    frame = made_result().to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert tuple(frame.columns) == ProbeRow._fields
    assert len(frame) == 30


def test_without_pandas_the_error_names_the_extra(monkeypatch):
    genuine = builtins.__import__

    def missing(name, *rest):
        if name == "pandas":
            raise ImportError(name)
        return genuine(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"pip install pandas \(the extra \[dataframe\]\)"):
        made_result().to_pandas()


@pytest.mark.parametrize("kind", ["profile", "heatmap", "severity"])
def test_plot_draws_each_kind(kind):
    pytest.importorskip("matplotlib")
    assert made_result().plot(kind).axes


def test_plot_shows_the_kinds_that_there_are():
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match=r"no kind of plot 'heat'.*did you mean 'heatmap'"):
        made_result().plot("heat")


def test_to_json_makes_folders_returns_nothing_and_leaves_nothing_else(tmp_path):
    assert made_result().to_json(str(tmp_path / "new" / "probe.json")) is None
    assert (tmp_path / "new" / "probe.json").read_text() == made_result().to_json()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["probe.json"]


def test_a_failed_write_leaves_the_old_file_and_no_half_one(tmp_path, monkeypatch):
    path = tmp_path / "probe.json"
    made_result(epoch=1).to_json(path)

    def fail(self, target):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        made_result(epoch=2).to_json(path)
    assert ProbeResult.from_json(path).epoch == 1
    assert [found.name for found in tmp_path.iterdir()] == ["probe.json"]


def test_the_dataframe_of_a_comparison_has_a_column_for_each_field():
    pytest.importorskip("pandas")
    comparison = made_result().compare(made_result())
    frame = comparison.to_pandas()
    assert tuple(frame.columns) == ComparisonRow._fields
    assert (len(frame), len(comparison.to_pandas(views=True))) == (3 * 5, 6 * 5)


def test_a_result_of_numbers_holds_the_same_tables():
    given = made_result()
    numbers = ProbeNumbers(
        layers=given.layers, views=given.views, tables=given.tables, epoch=3, step=120, metadata=given.metadata
    )
    result = ProbeResult.of(numbers)
    assert result.table("sensitivity") is numbers.table("sensitivity")
    assert result.summary(full=True) == given.summary(full=True)
    assert repr(result).replace("ProbeResult", "ProbeNumbers") == repr(numbers)


def test_without_influence_the_errors_stay():
    result = made_result()
    table = result.table("sensitivity")
    with_influence = replace(table, influence=torch.randn(6, 5, 8, generator=torch.Generator().manual_seed(0)))
    result.tables["sensitivity"] = with_influence
    lighter = result.without_influence()
    assert lighter.table("sensitivity").influence is None
    assert lighter.rows == result.rows
    assert result.table("sensitivity") is with_influence


def test_a_comparison_knows_words_and_pictures():
    assert isinstance(made_result().compare(made_result()), Comparison)
    numbers = ProbeNumbers(layers=(), views=made_result().views, tables={})
    with pytest.raises(ValueError, match="no metric at a layer"):
        made_result().compare(numbers)


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        ("heatmap", {"layers": ["fc"]}, r"plot\('heatmap'\) takes metric=, got layers="),
        ("worst", {"metric": "cosine"}, r"plot\('worst'\) takes no other argument, got metric="),
        ("severity", {"augmentation": "blur"}, r"plot\('severity'\) takes metric=, layers=, got augmentation="),
        ("heatmp", {}, "no kind of plot 'heatmp' in this result; did you mean 'heatmap'"),
    ],
)
def test_a_plot_refuses_what_it_would_not_use(kind, given, said):
    with pytest.raises(ValueError, match=said):
        made_result().plot(kind, **given)


def test_a_baseline_that_is_no_result_and_no_layer_at_all_are_refused():
    with pytest.raises(TypeError, match="before must be a ProbeResult or None, got a int"):
        made_result().verdict(before=3)
    with pytest.raises(ValueError, match="max_layers must be at least 1, got 0"):
        made_result().summary(max_layers=0)
