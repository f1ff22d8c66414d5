import pytest
import torch
from support.made_results import made_result, table_of, views_of

from kornia_lightning_probe.result import ProbeResult
from kornia_lightning_probe.results.tables import CLEAN


def test_only_what_both_results_have_is_compared_and_the_rest_is_named():
    first = made_result(tables={"cosine": table_of(("conv1", "conv2"), torch.ones(6, 2))})
    second = made_result(
        layers=("conv1", "conv2", "head"),
        ladders={"rotation": (5.0, 15.0), "noise": (0.1,)},
        tables={"cosine": table_of(("conv2",), torch.ones(3, 1)), "own": table_of(("head",), torch.ones(3, 1))},
    )
    comparison = first.compare(second)
    assert {row.layer for row in comparison.rows if row.metric == "sensitivity"} == {
        "input",
        "conv1",
        "conv2",
        "output",
    }
    assert {(row.augmentation, row.severity) for row in comparison.view_rows} == {("rotation", 5.0), ("rotation", 15.0)}
    assert set(comparison.left_out) == {
        "view hflip 1: only in the first result",
        "view rotation 30: only in the first result",
        "view blur 0.005: only in the first result",
        "view blur 0.01: only in the first result",
        "view noise 0.1: only in the second result",
        "layer fc: only in the first result",
        "layer head: only in the second result",
        "cosine at layer conv1: only in the first result",
        "metric own: only in the second result",
    }
    assert "left out: layer fc: only in the first result" in comparison.summary()


def test_results_with_nothing_in_common_are_an_error():
    drift = ProbeResult(layers=("a",), views=[CLEAN], tables={"cka_first": table_of(("a",), [[1.0]])})
    with pytest.raises(ValueError, match="no view") as refused:
        drift.compare(made_result(layers=("conv",), ladders={"noise": (0.1, 0.2)}))
    assert str(refused.value) == (
        "the results have no view (an augmentation at one severity) in common: the first has the views clean 0, the "
        "metrics cka_first and the layers a; the other has the views noise 0.1, noise 0.2, the metrics sensitivity and "
        "the layers conv, input, output; compare two results of one kind of probe, measured under banks that share a "
        "view"
    )
    views = views_of({"blur": (1.0,)})
    first, second = (
        ProbeResult(layers=(name,), views=views, tables={"own": table_of((name,), [[1.0]])}) for name in ("a", "b")
    )
    with pytest.raises(ValueError, match="no metric at a layer of one name in common") as refused:
        first.compare(second)
    assert str(refused.value).endswith(
        "the first has the views blur 1, the metrics own and the layers a; the other has the views blur 1, the metrics "
        "own and the layers b; compare two results of one kind of probe, with a metric in common, of models whose "
        "layers go by the same names"
    )


def test_banks_that_differ_are_noted():
    def result(seed, transform):
        views = [{"augmentation": "hflip", "level": 1, "severity": 1.0, "transform": transform}]
        return made_result(metadata={"bank": {"seed": seed, "views": views}})

    notes = result(0, "Flip()").compare(result(1, "Mirror()")).notes
    assert "the banks' seeds differ (0, 1); the errors don't cover the augmentations' draw" in notes
    assert "hflip 1 is not the same augmentation in both results" in notes
    assert len(result(0, "Flip()").compare(result(0, "Flip()")).notes) == 1
