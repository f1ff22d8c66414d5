"""Several processes in one test: forked, in a group of their own, and a hang is a failure."""

import multiprocessing
import os
import socket
import time
import traceback
from datetime import timedelta

from lightning.pytorch.strategies import DDPStrategy

SECONDS = 60


def ddp(method="fork"):
    """Lightning's DDP, in forked processes within this test; with "popen" in those that `run_forked` has started."""
    return DDPStrategy(start_method=method, process_group_backend="gloo", timeout=timedelta(seconds=SECONDS))


def run_forked(size, work, *arguments):
    """Run `work(rank, *arguments)` in processes that look as if torchrun had started them; raise what one raises."""
    context = multiprocessing.get_context("fork")
    errors = context.SimpleQueue()
    with socket.socket() as probing:
        probing.bind(("127.0.0.1", 0))
        port = probing.getsockname()[1]
    processes = [
        context.Process(target=_work, args=(rank, size, port, errors, work, arguments)) for rank in range(size)
    ]
    for process in processes:
        process.start()
    deadline = time.monotonic() + SECONDS
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    hanging = [process for process in processes if process.is_alive()]
    for process in hanging:
        process.kill()
        process.join()
    assert errors.empty(), errors.get()
    assert not hanging, "processes hang"


def _work(rank, size, port, errors, work, arguments):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
    }
    try:
        work(rank, *arguments)
    except BaseException:
        errors.put(f"rank {rank}: {traceback.format_exc()}")
        raise
