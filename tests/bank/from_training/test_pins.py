"""Parts of a range: between the identity and each end."""

import pytest
import torch

from kornia_lightning_probe.bank.from_training.pins import Ends, Pin, ends_at, look_up, put, range_of, reach_at, shrunk

FACTOR = Pin("factor", 1.0, "|factor - 1|")
LIMIT = Pin("limit", 0.0, "", drawn=False)


class Holder:
    def __init__(self, **held):
        self.__dict__.update(held)


def test_ends_are_drawn_evenly_and_equal_ones_move_the_stream_as_far():
    torch.manual_seed(0)
    drawn = Ends(-1.0, 1.0).rsample((10000,))
    after = torch.get_rng_state()
    # The mean of 10000 signs has a standard error of 0.01.
    assert set(drawn.tolist()) == {-1.0, 1.0}
    assert abs(float(drawn.mean())) < 0.04
    torch.manual_seed(0)
    assert set(Ends(2.0, 2.0).rsample((10000,)).tolist()) == {2.0}
    assert torch.equal(torch.get_rng_state(), after)


@pytest.mark.parametrize(
    ("limits", "ends"),
    [
        ((0.5, 2.0), (0.75, 1.5)),
        ((1.0, 2.0), (1.5, 1.5)),
        ((1.5, 3.0), (2.0, 2.0)),
        ((0.2, 0.8), (0.6, 0.6)),
        ((0.2, 1.0), (0.6, 0.6)),
    ],
)
def test_half_of_the_way_from_the_identity(limits, ends):
    half = ends_at(limits, FACTOR, 0.5)
    assert (float(half.low), float(half.high)) == pytest.approx(ends)
    assert reach_at(limits, FACTOR, 0.5) == pytest.approx(max(abs(end - 1) for end in ends))


def test_a_range_is_found_in_attributes_and_keys_and_none_where_it_is_not_used():
    holder = Holder(deep={"factor": torch.tensor([0.7, 1.3])}, factor=(1.0, 1.0), shear=(0.0, 0.0, -5.0, 5.0))
    assert range_of(holder, Pin("deep.factor", 1.0, "")) == (0.7, 1.3)
    assert range_of(holder, FACTOR) is None
    assert range_of(holder, Pin("missing.factor", 1.0, "")) is None
    assert range_of(holder, Pin("shear", 0.0, "")) is None
    assert range_of(holder, Pin("shear", 0.0, "", start=2)) == (-5.0, 5.0)


def test_a_longer_sequence_than_there_is_has_no_range():
    assert range_of(Holder(shear=(-5.0, 5.0)), Pin("shear", 0.0, "", start=2)) is None


def test_what_limits_a_draw_keeps_its_form():
    half = torch.distributions.Uniform(-1.0, 3.0, validate_args=False)
    spread = shrunk(half, LIMIT, 0.5)
    assert (float(spread.low), float(spread.high)) == (-0.5, 1.5)
    assert shrunk(torch.tensor(3.0), LIMIT, 0.5) == torch.tensor(1.5)
    assert shrunk((1.0, 3.0), LIMIT, 0.5) == (0.5, 1.5)
    assert shrunk([1.0, 3.0], LIMIT, 0.5) == [0.5, 1.5]
    assert shrunk(3.0, LIMIT, 0.5) == 1.5
    bits = shrunk(5, Pin("bits", 8.0, "", drawn=False, whole=True), 1 / 3)
    assert (bits, type(bits)) == (7, int)


def test_something_is_put_where_it_was_looked_up():
    holder = Holder(deep={"factor": 1}, factor=2)
    put(holder, "deep.factor", 3)
    put(holder, "factor", 4)
    assert (look_up(holder, "deep.factor"), look_up(holder, "factor")) == (3, 4)
