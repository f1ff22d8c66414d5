import pytest
import torch
from support.made_results import table_of

from kornia_lightning_probe.quantity import Quantity
from kornia_lightning_probe.result import ProbeResult, ViewInfo

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
