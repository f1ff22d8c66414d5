import pytest
import torch
from support.made_results import made_result, table_of, views_of

from kornia_lightning_probe.quantity import Quantity
from kornia_lightning_probe.result import ProbeResult, ViewInfo
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


# Grids.

ON_GRID = Quantity(at_identity=0.0, on_grid=True)
FINE = {"size": [8, 8], "stride": [4.0, 4.0], "offset": [1.5, 1.5], "spread": [0.0, 0.0]}
CORNER = {**FINE, "offset": [0.0, 0.0]}
LAYERS = ("conv1", "conv2")


def on_grids(grids, *, names=("equivariance_error",), moving=(True, True), others=True):
    """Metrics on grids under two views, both of which move pixels unless said otherwise, beside a sensitivity."""
    views = [ViewInfo("turn", level, float(level), moves_pixels=moves) for level, moves in enumerate(moving, start=1)]
    tables = {name: table_of(LAYERS, torch.ones(2, 2), quantity=ON_GRID) for name in names}
    if others:
        tables["sensitivity"] = table_of(LAYERS, torch.ones(2, 2))
    metadata = {} if grids is None else {"grids": dict(zip(LAYERS, grids, strict=True))}
    return ProbeResult(layers=LAYERS, views=views, tables=tables, metadata=metadata)


def test_equivariance_is_not_compared_where_cells_lie_on_two_grids():
    names = ("equivariance_error", "interpolation_floor")
    comparison = on_grids([FINE, FINE], names=names).compare(on_grids([FINE, CORNER], names=names))
    for name in names:
        assert {row.layer for row in comparison.rows_of(name)} == {"conv1"}
        assert {row.layer for row in comparison.view_rows if row.metric == name} == {"conv1"}
    assert {row.layer for row in comparison.rows_of("sensitivity")} == set(LAYERS)
    (told,) = comparison.left_out
    assert told == (
        "equivariance_error, interpolation_floor at layer conv2: its cells lie on two grids, 8 x 8 cells with stride "
        "(4, 4) and offset (1.5, 1.5) and 8 x 8 cells with stride (4, 4) and offset (0, 0)"
    )
    assert told.split(":")[0] in comparison.summary()


@pytest.mark.parametrize("change", [{"stride": [4.0, 2.0]}, {"size": [8, 7]}, {"spread": [0.0, 1.0]}])
def test_a_grid_is_another_one_in_whatever_it_differs(change):
    comparison = on_grids([FINE, FINE]).compare(on_grids([{**FINE, **change}, FINE]))
    assert {row.layer for row in comparison.rows_of("equivariance_error")} == {"conv2"}


def test_equivariance_alone_on_two_grids_is_refused():
    first, second = on_grids([FINE, FINE], others=False), on_grids([CORNER, CORNER], others=False)
    told = r"nothing in common that can be compared: equivariance_error at layer conv1: its cells lie on two grids"
    with pytest.raises(ValueError, match=told):
        first.compare(second)


def test_what_views_leave_in_place_is_compared_on_any_grid():
    first, second = (on_grids(grids, moving=(True, False)) for grids in ([FINE, FINE], [CORNER, FINE]))
    rows = {(row.layer, row.level) for row in first.compare(second).view_rows if row.metric == "equivariance_error"}
    assert rows == {("conv1", 2), ("conv2", 1), ("conv2", 2)}


def test_a_result_that_does_not_say_where_cells_lie_is_compared_with_a_sentence():
    told = "the second result does not say where cells lie: equivariance_error may be of two grids"
    comparison = on_grids([FINE, CORNER]).compare(on_grids(None))
    assert told in comparison.notes
    assert {row.layer for row in comparison.rows_of("equivariance_error")} == set(LAYERS)
    both = on_grids(None).compare(on_grids(None))
    assert "neither result says where cells lie: equivariance_error may be of two grids" in both.notes
    assert not any("cells lie" in note for note in on_grids([FINE, FINE]).compare(on_grids([FINE, FINE])).notes)


def test_grids_from_a_file_are_those_of_the_result():
    result = on_grids([FINE, CORNER])
    again = ProbeResult.from_json(result.to_json())
    assert {row.layer for row in result.compare(again).rows_of("equivariance_error")} == set(LAYERS)
