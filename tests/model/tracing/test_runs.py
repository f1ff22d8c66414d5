from __future__ import annotations

from fractions import Fraction

import pytest

from kornia_lightning_probe.model.tracing.runs import Framed, LostError, Run, joined, refined, regrouped, size_of


def run(count: int, *step: int) -> Run:
    return Run(count, tuple(map(Fraction, step)))


IMAGES, CHANNELS, ROWS, COLUMNS = run(2, 0, 0), run(3, 0, 0), run(4, 1, 0), run(6, 0, 1)
MAP = ((IMAGES,), (CHANNELS,), (ROWS,), (COLUMNS,))


def test_runs_that_go_on_are_one():
    # Windows of 2 cells, 3 of them side by side, are 6 cells.
    assert joined([run(3, 0, 2), run(2, 0, 1)]) == (run(6, 0, 1),)
    assert joined([run(1, 5, 5), ROWS, run(1, 0, 0)]) == (ROWS,)
    assert joined([ROWS, COLUMNS]) == (ROWS, COLUMNS)
    assert joined([IMAGES, CHANNELS]) == (run(6, 0, 0),)


def test_a_view_and_its_inverse_give_the_same_axes():
    tokens = regrouped(MAP, (2, 3, 24))
    assert tokens == ((IMAGES,), (CHANNELS,), (ROWS, COLUMNS))
    assert regrouped(tokens, (2, 3, 4, 6)) == MAP


def test_a_view_splits_rows_into_windows():
    # 4 rows are 2 windows of 2 rows, 6 columns 3 of 2.
    windows = regrouped(MAP, (2, 3, 2, 2, 3, 2))
    assert windows[2:] == ((run(2, 2, 0),), (run(2, 1, 0),), (run(3, 0, 2),), (run(2, 0, 1),))


@pytest.mark.parametrize(
    ("shape", "text"), [((2, 3, 8, 3), "across cells"), ((2, 3, 4, 5), "across cells"), ((2, 3, 4), "another size")]
)
def test_a_view_across_cells_is_lost(shape, text):
    lost = ((IMAGES,), (CHANNELS,), (ROWS,), (run(6, 0, 1),))
    if shape == (2, 3, 4):
        lost = ((IMAGES,), (CHANNELS,), ())
        shape = (2, 3, 4)
    else:
        lost = ((IMAGES,), (CHANNELS,), (run(3, 1, 0),), (run(8, 0, 1),))
    with pytest.raises(LostError, match=text):
        regrouped(lost, shape)


def test_class_tokens_are_not_split_off_by_a_view():
    tokens = Framed(25, 1, (ROWS, COLUMNS))
    assert size_of((tokens,)) == 25
    assert regrouped(((IMAGES,), (tokens,), (CHANNELS,)), (2, 25, 3)) == ((IMAGES,), (tokens,), (CHANNELS,))
    with pytest.raises(LostError, match="across cells"):
        regrouped(((IMAGES,), (tokens,), (CHANNELS,)), (2, 5, 5, 3))


def test_two_descriptions_of_one_axis_have_common_parts():
    rows = (run(2, 0, 1), run(12, 0, 0))
    cells = (run(2, 0, 0), run(4, 8, 0), run(3, 0, 8))
    assert [(row.count, cell.count) for row, cell in refined(rows, cells)] == [(2, 2), (4, 4), (3, 3)]
    with pytest.raises(LostError, match="interwoven"):
        refined((run(4, 0, 1), run(3, 0, 0)), (run(3, 1, 0), run(4, 0, 1)))
