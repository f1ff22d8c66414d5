from threading import Barrier, Thread

import torch
from support.probing import CPU

from kornia_lightning_probe.engine.processes import OtherRankError, World


def in_threads(size, work):
    """What `work` returns or raises on each of `size` ranks that really wait for one another."""
    barrier, texts, outcomes = Barrier(size, timeout=20), [""] * size, [None] * size

    def gather_on(rank):
        def gather(text):
            texts[rank] = text
            barrier.wait()
            gathered = list(texts)
            barrier.wait()
            return gathered

        return gather

    def on(rank):
        try:
            outcomes[rank] = work(World(rank=rank, size=size, gather=gather_on(rank)))
        except Exception as error:
            outcomes[rank] = error

    threads = [Thread(target=on, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    return outcomes


def test_alone_there_is_nobody_to_wait_for():
    world = World()
    world.meet("ready")
    world.fail(ValueError("no image"))
    tensor = torch.ones(2)
    assert world.sum_together([tensor], device=CPU, dtype=torch.float64)[0] is tensor


def test_processes_that_agree_go_on():
    assert in_threads(3, lambda world: world.meet("12 layers", what="the layers")) == [None] * 3


def test_processes_that_disagree_all_raise_and_say_who_saw_what():
    outcomes = in_threads(3, lambda world: world.meet(f"{world.rank // 2} layers", what="the layers that run"))
    assert all(isinstance(outcome, OtherRankError) for outcome in outcomes)
    text = "the processes differ in the layers that run; by rank: 0 layers | 0 layers | 1 layers"
    assert {str(outcome) for outcome in outcomes} == {text}


def test_a_process_that_fails_stops_all_that_wait_for_it():
    def work(world):
        try:
            if world.rank == 1:
                raise ValueError("no image")
            world.meet("done")
        except Exception as error:
            world.fail(error)
            raise

    first, failed, third = in_threads(3, work)
    assert repr(failed) == "ValueError('no image')"
    assert str(first) == str(third) == "the probe failed on rank 1: ValueError: no image"


def test_sums_travel_as_one_tensor_of_one_dtype_and_come_back_in_their_shapes():
    sent = []

    def add(tensor):
        sent.append(tensor)
        return tensor * 2

    tables = [torch.full((2, 3), 1.5, dtype=torch.float64), torch.tensor([2**52], dtype=torch.int64), torch.ones(())]
    sums = World(rank=0, size=2, add=add).sum_together(tables, device=CPU, dtype=torch.float64)
    assert [(tuple(tensor.shape), tensor.dtype) for tensor in sent] == [((8,), torch.float64)]
    assert [total.shape for total in sums] == [table.shape for table in tables]
    assert sums[0].tolist() == [[3.0] * 3] * 2
    # float64 holds a hash of 52 bits exactly.
    assert int(sums[1]) == 2**53
    assert tables[0].tolist() == [[1.5] * 3] * 2
