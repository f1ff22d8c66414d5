from __future__ import annotations

from fractions import Fraction

import pytest

from kornia_lightning_probe.model.tracing.arrangement import Arrangement
from kornia_lightning_probe.model.tracing.grids import grid_of
from kornia_lightning_probe.model.tracing.merging import concatenated
from kornia_lightning_probe.model.tracing.rows import rows_of
from kornia_lightning_probe.model.tracing.runs import LostError

SHAPE = (2, 3, 8, 12)
MAP = Arrangement.of_image(SHAPE, (2, 3))
TOKENS = MAP.viewed((2, 3, 96)).permuted([0, 2, 1])


def pixels(place: Arrangement) -> list[float]:
    return [float(pixel) for pixel in place.at]


def with_class_token(tokens: Arrangement) -> Arrangement:
    shape = list(tokens.shape)
    shape[1] += 1
    return concatenated([None, tokens], [1, tokens.shape[1]], 1, shape)


def test_whole_rows_of_tokens_are_a_smaller_grid():
    # Two rows of twelve tokens from the third row on.
    assert grid_of(TOKENS.cut(1, 24, 24), None, 2).size == (2, 12)
    assert pixels(TOKENS.cut(1, 24, 24)) == [2, 0]
    with pytest.raises(LostError, match="a part of folded cells"):
        TOKENS.cut(1, 6, 24)


def test_class_tokens_lie_in_the_middle_of_all_cells():
    found = with_class_token(TOKENS).cut(1, 0, 1)
    assert not found.has_cells
    # The middle of rows 0 to 7 and of columns 0 to 11.
    assert pixels(found) == [3.5, 5.5]


def test_an_average_lies_in_the_middle():
    assert pixels(MAP.averaged(2)) == [3.5, 0]
    assert pixels(TOKENS.averaged(1)) == [3.5, 5.5]
    assert MAP.averaged(1).axes[1] == ()


def test_parts_of_a_cell_lie_evenly_in_it():
    copies = MAP.viewed((2, 3, 8, 12, 1)).with_axis(4, MAP.plain(4)).viewed((2, 3, 8, 48))
    even, run = copies.line(3)
    # Four parts of a cell at 0 lie at -3/8, -1/8, 1/8, 3/8.
    assert (pixels(even), run.count, run.step[1]) == ([0, -0.375], 48, Fraction(1, 4))


@pytest.mark.parametrize("place", [TOKENS, with_class_token(TOKENS)])
def test_folded_cells_are_no_line(place):
    with pytest.raises(LostError, match=r"no line of cells|beside tokens"):
        place.resampled(1, 10, scale=2)
    with pytest.raises(LostError, match="a roll of folded cells"):
        place.rolled(1, 3)


def test_a_roll_is_pending_until_it_is_undone():
    rolled = MAP.rolled(2, 3)
    assert rolled.rolled(2, -3) == MAP
    assert rolled.rolled(2, 5) == MAP
    assert MAP.rolled(1, 2) == MAP
    # A mean over rolled rows is one over rows.
    assert rolled.averaged(2) == MAP.averaged(2)
    for change in (lambda: rolled.resampled(2, 4, scale=2), lambda: rolled.viewed((2, 3, 96)).cut(2, 0, 48)):
        with pytest.raises(LostError, match="a part of rolled cells"):
            change()
    assert rolled.resampled(3, 6, scale=2).roll == (3, 0)


def test_images_are_found_however_they_are_folded():
    rows = Arrangement.of_image((4, 6, 5), (-1, 0))
    # Images as (2, 2): the first two and the last two.
    folded = rows.viewed((2, 2, 6, 5)).permuted([2, 0, 3, 1])
    found = rows_of(folded, 4)
    assert found.axis is None
    assert found.order.shape == (-1, 6, 5)
    with pytest.raises(LostError, match="images in no order"):
        rows_of(rows.resampled(0, 4, scale=2), 4)
    with pytest.raises(LostError, match="images beside other rows"):
        rows_of(concatenated([None, rows], [1, 4], 0, (5, 6, 5)), 4)


def test_cells_that_lie_askew_or_unevenly_are_no_grid():
    diagonal = MAP.with_axis(3, ()).with_axis(2, (MAP.axes[2][0].__class__(8, (Fraction(1), Fraction(1))),))
    with pytest.raises(LostError, match="askew"):
        grid_of(diagonal, None, 2)
    gaps = MAP.viewed((2, 3, 2, 4, 12)).cut(3, 0, 3).viewed((2, 3, 6, 12))
    with pytest.raises(LostError, match="no even grid"):
        grid_of(gaps, None, 2)
