import os
import threading
import warnings

import pytest
import torch
import torch.distributed as dist

from support.gloo_pool import GlooPool, RankError


@pytest.fixture(scope="module")
def gloo():
    """A pool of our own: some of its workers are killed, and with them the coverage that they have measured."""
    pool = GlooPool()
    yield pool
    pool.remove()


def rank_and_sum(number):
    total = torch.tensor(number * (dist.get_rank() + 1))
    dist.all_reduce(total)
    return dist.get_rank(), dist.get_world_size(), total


def fail_on(rank):
    if dist.get_rank() == rank:
        raise ValueError("this rank fails")


def hang_on(rank):
    if dist.get_rank() == rank:
        threading.Event().wait()


def fail_while_others_wait(rank):
    fail_on(rank)
    dist.all_reduce(torch.zeros(1))


def die_on(rank):
    if dist.get_rank() == rank:
        os._exit(1)


def warn():
    warnings.warn("something is off", stacklevel=1)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_function_runs_on_every_rank_of_one_group(gloo, size):
    # 5 * (1 + 2 + ... + size)
    expected = 5 * size * (size + 1) // 2
    assert gloo(size)(rank_and_sum, 5) == [(rank, size, expected) for rank in range(size)]


def test_results_are_in_the_order_of_ranks_when_worlds_take_turns(gloo):
    for size in (3, 2, 3):
        assert [rank for rank, *_ in gloo(size)(rank_and_sum, 1)] == list(range(size))


def test_a_failure_names_the_rank_and_the_pool_goes_on(gloo):
    with pytest.raises(RankError, match=r"^rank 1:\n(.*\n)*ValueError: this rank fails"):
        gloo(2)(fail_on, 1)
    assert len(gloo(2)(rank_and_sum, 1)) == 2


def test_a_rank_that_waits_for_a_failed_one_fails_too(gloo):
    with pytest.raises(RankError, match=r"^rank 0:\n(.*\n)*rank 1:\n(.*\n)*ValueError: this rank fails"):
        gloo(2)(fail_while_others_wait, 1)


def test_a_warning_on_a_rank_is_an_error(gloo):
    with pytest.raises(RankError, match="UserWarning: something is off"):
        gloo(1)(warn)


def test_a_hang_is_a_failure_and_the_pool_starts_again(gloo):
    with pytest.raises(TimeoutError, match=r"ranks \[1\] of 2 have not answered"):
        gloo(2)(hang_on, 1, timeout=1)
    assert len(gloo(2)(rank_and_sum, 1)) == 2


def test_a_process_that_dies_is_a_failure_and_the_pool_starts_again(gloo):
    with pytest.raises(RankError, match="rank 0 of 1 died"):
        gloo(1)(die_on, 0)
    assert len(gloo(1)(rank_and_sum, 1)) == 1
