"""What is kept comes back as it was drawn; of what does not fit, what is dearest to draw for each byte."""

import pytest
import torch

from kornia_lightning_probe.bank.bank import Augmented
from kornia_lightning_probe.engine.under_views.keeping import KeptViews

CPU = torch.device("cpu")
# Four floats.
BYTES = 16


def augmented(value, *, count=4):
    matrix = torch.eye(3).expand(count, 3, 3)
    return Augmented(images=(torch.full((count,), float(value)),), changed=True, matrix=matrix)


def held(kept, keys):
    return [key for key in keys if kept.get(*key, device=CPU) is not None]


def test_what_is_kept_comes_back_with_all_that_is_known_of_it():
    kept, drawn = KeptViews(BYTES), augmented(3)
    kept.offer(2, 5, drawn, seconds=1.0)
    back = kept.get(2, 5, device=CPU)
    assert torch.equal(back.images[0], drawn.images[0])
    assert back[1:] == drawn[1:]
    assert kept.get(5, 2, device=CPU) is None
    assert kept.nbytes == BYTES


def test_a_model_that_writes_into_its_input_changes_nothing_that_is_kept():
    kept, drawn = KeptViews(BYTES), augmented(3)
    kept.offer(0, 0, drawn, seconds=1.0)
    drawn.images[0].zero_()
    kept.get(0, 0, device=CPU).images[0].zero_()
    assert kept.get(0, 0, device=CPU).images[0].tolist() == [3.0] * 4


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_the_dearest_for_each_byte_are_kept_in_whatever_order_they_come(order):
    kept = KeptViews(2 * BYTES)
    for view in order:
        kept.offer(0, view, augmented(view), seconds=[0.1, 0.4, 0.2, 0.3][view])
    assert held(kept, [(0, view) for view in range(4)]) == [(0, 1), (0, 3)]
    assert kept.nbytes == 2 * BYTES


def test_the_same_time_for_fewer_bytes_is_worth_more():
    kept = KeptViews(2 * BYTES)
    kept.offer(0, 0, augmented(0, count=8), seconds=1.5)
    # Half as many bytes: two thirds of the time are worth more for each.
    kept.offer(0, 1, augmented(1), seconds=1.0)
    assert held(kept, [(0, 0), (0, 1)]) == [(0, 1)]


def test_what_had_no_room_is_not_kept_later_either():
    kept = KeptViews(BYTES)
    kept.offer(0, 0, augmented(0), seconds=1.0)
    kept.offer(0, 1, augmented(1), seconds=0.5)
    # Times vary by chance from one probe to the next.
    kept.offer(0, 1, augmented(1), seconds=2.0)
    assert held(kept, [(0, 0), (0, 1)]) == [(0, 0)]


def test_nothing_is_kept_in_no_room():
    kept = KeptViews(0)
    kept.offer(0, 0, augmented(0), seconds=1.0)
    assert kept.nbytes == 0
    assert held(kept, [(0, 0)]) == []


def test_nothing_goes_for_what_does_not_fit_in_its_place():
    kept = KeptViews(25 * 4)
    kept.offer(0, 0, augmented(0, count=15), seconds=0.15)
    kept.offer(0, 1, augmented(1, count=10), seconds=1.0)
    # In the room of the first it does not fit, and the second is worth more.
    kept.offer(0, 2, augmented(2, count=16), seconds=0.8)
    assert held(kept, [(0, 0), (0, 1), (0, 2)]) == [(0, 0), (0, 1)]
    assert kept.nbytes == 100
