from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from kornia_lightning_probe.model.tracing.arrangement import Arrangement
from kornia_lightning_probe.model.tracing.merging import concatenated, merged
from kornia_lightning_probe.model.tracing.runs import Framed, LostError

SHAPE = (2, 3, 8, 8)
MAP = Arrangement.of_image(SHAPE, (2, 3))


def at(place: Arrangement, *pixels: int) -> Arrangement:
    return replace(place, at=tuple(map(Fraction, pixels)))


def floats(vector: tuple[Fraction, ...]) -> list[float]:
    return [float(number) for number in vector]


def test_a_gate_gives_way_to_the_map_that_it_scales():
    gate = MAP.averaged(2).averaged(3)
    # The mean of cells 0 to 7 lies at 3.5.
    assert floats(gate.at) == [3.5, 3.5]
    assert merged([MAP, gate], SHAPE) == MAP


def test_branches_meet_in_the_middle_with_a_spread_that_reaches_both():
    found = merged([at(MAP, 0, 0), at(MAP, 3, -1)], SHAPE)
    assert (floats(found.at), floats(found.spread)) == ([1.5, -0.5], [1.5, 0.5])
    # A third branch within the spread changes nothing.
    assert merged([found, at(MAP, 1, 0)], SHAPE) == found


def test_branches_of_different_strides_drift_apart():
    # Cells 2 i and 2.5 i of eight: 3.5 pixels apart at the last one, in the middle 2.25 i.
    coarse = MAP.resampled(2, 8, scale=2)
    coarser = MAP.resampled(2, 8, scale=Fraction(5, 2))
    found = merged([coarse, coarser], SHAPE)
    assert float(found.axes[2][0].step[0]) == 2.25
    assert floats(found.spread) == [1.75, 0]


def test_rows_of_one_and_columns_of_another_are_a_map():
    rows, columns = at(MAP.averaged(3), 5, 0), at(MAP.averaged(2), 0, 7)
    found = merged([rows, columns], SHAPE)
    assert (found.axes, floats(found.at), floats(found.spread)) == (MAP.axes, [5, 7], [0, 0])


def test_a_map_and_its_transpose_do_not_merge():
    with pytest.raises(LostError, match="other layouts"):
        merged([MAP, MAP.permuted([0, 1, 3, 2])], SHAPE)
    with pytest.raises(LostError, match="one operand is rolled"):
        merged([MAP, MAP.rolled(2, 1)], SHAPE)


def test_pixels_that_become_channels_are_no_spread():
    fine = Arrangement.of_image((2, 3, 16, 16), (2, 3))
    corners = [fine.cut(2, down, 8, 2).cut(3, right, 8, 2) for down in (0, 1) for right in (0, 1)]
    found = concatenated(corners, [3] * 4, 1, (2, 12, 8, 8))
    # The middle of pixels 0 and 1.
    assert (floats(found.at), floats(found.spread)) == ([0.5, 0.5], [0, 0])
    # Three of the four corners fill no cell.
    three = concatenated(corners[:3], [3] * 3, 1, (2, 9, 8, 8))
    assert floats(three.spread) == [0.5, 0.5]


def test_parts_put_together_again_are_the_whole():
    for sizes in ([4, 4], [3, 5], [2, 2, 4]):
        starts = [sum(sizes[:index]) for index in range(len(sizes))]
        parts = [MAP.cut(2, start, size) for start, size in zip(starts, sizes, strict=True)]
        assert concatenated(parts, sizes, 2, SHAPE) == MAP
    with pytest.raises(LostError, match="do not go on"):
        concatenated([MAP.cut(2, 5, 3), MAP.cut(2, 0, 5)], [3, 5], 2, SHAPE)


def test_cells_between_tokens_are_framed():
    tokens = MAP.viewed((2, 3, 64)).permuted([0, 2, 1])
    found = concatenated([None, tokens, None], [1, 64, 4], 1, (2, 69, 3))
    assert found.axes[1] == (Framed(69, 1, tokens.axes[1]),)
    # A second class token in front of the first one.
    again = concatenated([None, found], [1, 69], 1, (2, 70, 3))
    assert again.axes[1][0].lead == 2
    assert again.cut(1, 2, 64) == tokens
    with pytest.raises(LostError, match="part of the tokens"):
        again.cut(1, 3, 64)


def test_single_images_that_are_stacked_are_a_run():
    images = Arrangement.of_image((4, 8), (-1, 0))
    single = [images.cut(0, index, 1).without_axis(0) for index in range(4)]
    raised = [image.with_new_axis(0) for image in single]
    assert concatenated(raised, [1] * 4, 0, (4, 8)) == images
