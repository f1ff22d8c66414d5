from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from kornia_lightning_probe.model.tracing.arrangement import Arrangement
from kornia_lightning_probe.model.tracing.operators import Unknown
from kornia_lightning_probe.model.tracing.runs import Framed
from kornia_lightning_probe.model.tracing.writes import Geometry, Write, written_into

WHOLE = torch.zeros(2, 4, 12, 10)


def write(part: torch.Tensor, place: Arrangement | None = None) -> Write:
    """What is written into a part walks along its last two axes unless said otherwise."""
    return Write(Geometry.of(part), place or Arrangement.of_image(part.shape, (-2 + part.ndim, -1 + part.ndim)))


def after(*writes: Write) -> Arrangement | Unknown | None:
    return written_into(None, writes, Geometry.of(WHOLE))


def test_a_write_over_all_is_what_was_written():
    everything = write(WHOLE)
    assert after(everything) == everything.place
    assert after() is None


def test_a_block_of_cells_goes_on_to_the_borders():
    found = after(write(WHOLE[:, :, 3:9, 2:]))
    # The first row lies 3 rows above the block, the first column 2 to its left.
    assert [float(pixel) for pixel in found.at] == [-3, -2]
    assert found.axes == Arrangement.of_image(WHOLE.shape, (2, 3)).axes


def test_channels_may_be_written_in_parts():
    single, several = write(WHOLE[:, 1]), write(WHOLE[:, 2::1])
    assert after(single, several) == Arrangement.of_image(WHOLE.shape, (2, 3))
    every_second = write(WHOLE[:, ::2])
    assert after(every_second) == Arrangement.of_image(WHOLE.shape, (2, 3))


def test_images_that_are_written_one_by_one_are_a_run():
    rows = Arrangement.of_image(WHOLE.shape, (-1, 0))
    images = [write(WHOLE[index], rows.cut(0, index, 1).without_axis(0)) for index in range(2)]
    assert after(*images) == rows
    assert after(*reversed(images)) == rows
    # One of two alone is no batch.
    assert after(images[1]).at == (0, 1)


def test_folded_cells_are_framed():
    tokens = torch.zeros(2, 26, 4)
    place = Arrangement.of_image((2, 4, 6, 4), (1, 2)).viewed((2, 24, 4))
    found = written_into(None, [write(tokens[:, 1:25], place)], Geometry.of(tokens))
    assert found.axes[1] == (Framed(26, 1, place.axes[1]),)


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (WHOLE[:, :, ::2], "every few of its cells"),
        (WHOLE.view(2, 4, 6, 20), "other cells"),
        (WHOLE.view(-1)[7:907].view(1, 1, 30, 30), "every few of its cells"),
        (WHOLE.view(-1).as_strided((2, 2), (11, 1)), "no block"),
    ],
)
def test_a_part_that_is_no_block_of_cells_is_unknown(part, text):
    held = Arrangement.of_image(WHOLE.shape, (2, 3)) if text == "other cells" else None
    found = written_into(held, [write(part)], Geometry.of(WHOLE))
    assert isinstance(found, Unknown)
    assert found.reason.startswith("written into a part of it")
    assert text in found.reason or held is not None


def test_what_is_written_where_it_was_changes_nothing():
    held = Arrangement.of_image(WHOLE.shape, (2, 3))
    assert written_into(held, [write(WHOLE[:, 1:])], Geometry.of(WHOLE)) == held
    lost = Unknown("sort: cells chosen by their values")
    assert written_into(lost, [write(WHOLE)], Geometry.of(WHOLE)) == lost
    assert Fraction(1) in held.axes[2][0].step
