import math

import pytest
import torch
from support.activations import pair

from kornia_lightning_probe.functional.distances import squared_distance
from kornia_lightning_probe.functional.memory import Room, Scratch, Temporaries, piece_of

NAN = math.nan
# Roundings of 6e-8 that go either way, in a float32 sum of at most 1024 squares.
FLOAT32 = 1e-6


def close(actual, expected, **tolerances):
    expected = torch.as_tensor(expected, dtype=actual.dtype)
    torch.testing.assert_close(actual, expected, equal_nan=True, check_device=False, **tolerances)


def test_a_buffer_is_used_again_where_it_is_large_enough():
    scratch = Scratch()
    large = scratch.like(torch.empty(4, 5))
    small = scratch.like(torch.empty(2, 3))
    assert small.data_ptr() == large.data_ptr()
    assert small.shape == (2, 3)


@pytest.mark.parametrize("x", [torch.empty(9, 9), torch.empty(2, 2, dtype=torch.float64), torch.empty(0, 3)])
def test_a_buffer_has_the_shape_and_dtype_asked_for(x):
    scratch = Scratch()
    scratch.like(torch.empty(4, 4))
    assert scratch.like(x).shape == x.shape
    assert scratch.like(x).dtype == x.dtype


def test_each_shape_of_an_image_has_a_buffer_of_its_own():
    temporaries = Temporaries()
    large = temporaries.like(torch.empty(4, 5))
    assert temporaries.like(torch.empty(3, 5)).data_ptr() == large.data_ptr()
    assert temporaries.like(torch.empty(4, 6)).data_ptr() != large.data_ptr()


@pytest.mark.parametrize("width", [1, 1024, 1025, 2039, 3 * 1031, 150_528, 100_003])
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_pieces_of_a_row_are_its_entries_once_each(width, rows):
    # The norms of pieces of ones are the roots of their lengths.
    room = Room(torch.empty(rows, width))
    out = torch.full((5, room.num_pieces), NAN)
    room.write_norms(torch.zeros(1, width), torch.ones(5, width), out)
    lengths = out.double().square()
    close(lengths.sum(1), [float(width)] * 5, rtol=FLOAT32, atol=0)
    assert lengths.max() <= 1024.01
    assert room.num_pieces <= 1 + width // 256


@pytest.mark.parametrize("rows", [1, 3, 7, 9])
def test_a_buffer_of_any_number_of_rows_is_written_into_and_changes_nothing(rows):
    x, y = pair(7, 2, 3)
    buffer = torch.full((rows, 2, 3), NAN, dtype=torch.float64)
    close(squared_distance(x, y, room=Room(buffer)), squared_distance(x, y), rtol=0, atol=0)
    assert buffer[: min(rows, 7)].isfinite().all()


def test_a_piece_is_at_least_one_image_and_at_most_all():
    assert len(piece_of(torch.empty(4, 2**20))) == 1
    assert len(piece_of(torch.empty(4, 5))) == 4
    assert len(piece_of(torch.empty(0, 5))) == 0


def test_a_room_for_rows_of_one_layout_is_made_once():
    temporaries = Temporaries()
    x = torch.empty(4, 3, 2, 2)
    assert temporaries.room(x) is temporaries.room(torch.ones(4, 3, 2, 2))
    assert temporaries.room(x) is not temporaries.room(x.contiguous(memory_format=torch.channels_last))
    assert temporaries.room(x) is not temporaries.room(x.double())
    assert temporaries.room(x) is not temporaries.room(x[:3])


def test_rows_of_several_tensors_lie_behind_one_another_in_the_layout_of_one():
    like = torch.empty(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    rows = Scratch().rows(3, like)
    assert rows.shape == (3, 4, 3, 2, 2)
    assert rows[1].is_contiguous(memory_format=torch.channels_last)
    assert rows.flatten(0, 1).data_ptr() == rows.data_ptr()


def test_a_room_never_writes_into_what_it_is_given_to_read():
    x, y = pair(4, 2, 3)
    before = x.clone(), y.clone()
    room = Room(torch.empty_like(x))
    room.write_norms(y, x, torch.empty(4, room.num_pieces, dtype=x.dtype))
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])
