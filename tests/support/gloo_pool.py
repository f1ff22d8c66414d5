"""Worker processes that run one function on every rank of a gloo group, started once and used by many tests."""

from __future__ import annotations

import pickle
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

# A collective that waits longer than this has a partner that never comes.
COLLECTIVE_TIMEOUT = timedelta(seconds=20)
# Time for one function; importing torch in a fresh worker is part of its first one.
CALL_TIMEOUT = 90.0


class RankError(RuntimeError):
    """A function failed on some ranks; the message holds their tracebacks."""


class GlooPool:
    """Processes that wait for functions; started at the first call, as many as the largest world asked for.

    Every call has a process group of its own, so a failed one leaves nothing behind for the next.
    """

    def __init__(self) -> None:
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload(["torch", "torchmetrics", "kornia_lightning_probe"])
        self._workers: list[tuple[Any, Connection]] = []
        self._folder = tempfile.TemporaryDirectory(prefix="gloo-")
        self._numbers = count()

    def __call__(self, world_size: int) -> Callable[..., list[Any]]:
        """A runner: ``gloo(2)(function, *args)`` calls a module-level function on 2 ranks, results in rank order."""

        def run(function: Callable[..., Any], *args: Any, timeout: float = CALL_TIMEOUT) -> list[Any]:
            return self._run(world_size, pickle.dumps((function, args)), timeout)

        return run

    def close(self) -> None:
        """End all workers; those that are stuck are killed."""
        for _, connection in self._workers:
            connection.close()
        for process, _ in self._workers:
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()
        self._workers.clear()

    def remove(self) -> None:
        self.close()
        self._folder.cleanup()

    def _run(self, world_size: int, call: bytes, timeout: float) -> list[Any]:
        self._start(world_size)
        rendezvous = (Path(self._folder.name) / str(next(self._numbers))).as_uri()
        for rank in range(world_size):
            self._workers[rank][1].send_bytes(pickle.dumps((rank, world_size, rendezvous, call)))
        answers = self._collect(world_size, time.monotonic() + timeout)
        failed = [f"rank {rank}:\n{answer}" for rank, (worked, answer) in sorted(answers.items()) if not worked]
        if failed:
            raise RankError("\n".join(failed))
        return [answers[rank][1] for rank in range(world_size)]

    def _start(self, size: int) -> None:
        while len(self._workers) < size:
            ours, theirs = self._context.Pipe()
            process = self._context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._workers.append((process, ours))

    def _collect(self, size: int, deadline: float) -> dict[int, tuple[bool, Any]]:
        waiting = {self._workers[rank][1]: rank for rank in range(size)}
        answers: dict[int, tuple[bool, Any]] = {}
        while waiting:
            ready = wait(list(waiting), timeout=max(0.0, deadline - time.monotonic()))
            if not ready:
                self._kill()
                raise TimeoutError(f"ranks {sorted(waiting.values())} of {size} have not answered")
            for connection in ready:
                rank = waiting.pop(connection)
                try:
                    answers[rank] = pickle.loads(connection.recv_bytes())  # noqa: S301 - from our own worker
                except EOFError:
                    self._kill()
                    raise RankError(f"rank {rank} of {size} died") from None
        return answers

    def _kill(self) -> None:
        for process, _ in self._workers:
            process.kill()
        self.close()


def _serve(connection: Connection) -> None:
    torch.set_num_threads(1)
    while True:
        try:
            rank, world_size, rendezvous, call = pickle.loads(connection.recv_bytes())  # noqa: S301 - from our parent
        except EOFError:
            return
        connection.send_bytes(_answer(rank, world_size, rendezvous, call))


def _answer(rank: int, world_size: int, rendezvous: str, call: bytes) -> bytes:
    # Whatever goes wrong is an answer too, or the parent would wait for it.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            function, args = pickle.loads(call)  # noqa: S301 - from our parent
            dist.init_process_group(
                "gloo", init_method=rendezvous, rank=rank, world_size=world_size, timeout=COLLECTIVE_TIMEOUT
            )
            return pickle.dumps((True, function(*args)))
    except BaseException:
        return pickle.dumps((False, traceback.format_exc()))
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
