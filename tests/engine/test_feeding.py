import pytest
import torch

from kornia_lightning_probe.engine.feeding import Gathered
from kornia_lightning_probe.engine.segments import Segment

KEY = ("fc", 0)


def gathered(num_views=3, num_rows=4, *, enough=3, tensors=1):
    memory = tuple(torch.full((num_views, num_rows, 1), torch.nan) for _ in range(tensors))
    return Gathered({KEY: memory}, enough)


def write(room, view, start=0, stop=4):
    segment = Segment(range(view, view + 1), slice(start, stop))
    came = room.coming(segment)
    for slot in room.slots(KEY, segment):
        slot.copy_(torch.arange(float(start), stop).unsqueeze(1) + 10 * view)
    came.add(KEY[0])


def emptied(room):
    return [(first, [rows.flatten().tolist() for rows in tensors]) for _, first, tensors in room.emptied()]


def test_rows_that_come_in_parts_are_put_together():
    room = gathered()
    write(room, 0, 0, 3)
    write(room, 0, 3, 4)
    write(room, 1)
    assert emptied(room) == [(0, [[0, 1, 2, 3, 10, 11, 12, 13]])]


def test_what_did_not_come_whole_is_left_out_and_splits_the_views():
    room = gathered(4, enough=4)
    write(room, 0)
    write(room, 1, 0, 2)
    write(room, 3)
    assert emptied(room) == [(0, [[0, 1, 2, 3]]), (3, [[30, 31, 32, 33]])]


def test_slots_that_nothing_was_written_to_are_left_out():
    # As of a layer that does not run under the second view.
    room = gathered(2, enough=2)
    write(room, 0)
    assert not room.is_full
    room.coming(Segment(range(1, 2), slice(0, 4))).add("another layer")
    assert room.is_full
    assert emptied(room) == [(0, [[0, 1, 2, 3]])]


def test_views_that_follow_get_the_same_slots_again():
    room = gathered(2, enough=2)
    write(room, 0)
    assert not room.is_full
    write(room, 1)
    assert room.is_full
    assert [first for first, _ in emptied(room)] == [0]
    assert not room.is_full
    assert not emptied(room)
    write(room, 2)
    assert emptied(room) == [(2, [[20, 21, 22, 23]])]


@pytest.mark.parametrize("tensors", [1, 2, 3])
def test_a_key_has_as_many_slots_as_tensors(tensors):
    room = gathered(tensors=tensors)
    write(room, 0)
    assert emptied(room) == [(0, [[0, 1, 2, 3]] * tensors)]


def test_views_that_left_nothing_have_slots_too():
    room = gathered(2, enough=2)
    room.coming(Segment(range(1), slice(0, 4)))
    write(room, 1)
    assert room.is_full
    assert emptied(room) == [(1, [[10, 11, 12, 13]])]


def test_several_views_of_one_pass_are_written_at_once():
    room = gathered(4, enough=4)
    segment = Segment(range(3), slice(0, 4))
    came = room.coming(segment)
    for slot in room.slots(KEY, segment):
        slot.copy_(torch.arange(12.0).unsqueeze(1))
    came.add(KEY[0])
    assert not room.is_full
    write(room, 3)
    assert emptied(room) == [(0, [[*range(12), 30, 31, 32, 33]])]
