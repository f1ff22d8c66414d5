"""Reading as a DataLoader reads: where it has workers, in a worker process, and the dataset here stays untouched.

A dataset that opens its file at first use would be open here, before the loader's own workers are forked or spawned:
forked ones would share one offset in the file, and spawned ones can't be sent an open file.
"""

from __future__ import annotations

import math
import pickle
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from kornia_lightning_probe.images.reading import Batches, explained


def has_workers(source: object) -> bool:
    """Say whether a source is a DataLoader that reads in worker processes.

    Example:
        >>> has_workers(DataLoader([1, 2])), has_workers(DataLoader([1, 2], num_workers=1))
        (False, True)
    """
    return isinstance(source, DataLoader) and source.num_workers > 0


@contextmanager
def opened(batches: Batches, loader: DataLoader[Any] | None) -> Iterator[Iterator[Any]]:
    """Read batches as a loader does: in a worker process where it has workers, else in this one.

    The worker is of the loader's start method, and is started by the loader's `worker_init_fn`, as worker 0 of 1. No
    random stream of this process moves, nor the loader's generator. When the block ends, the worker has ended.

    Args:
        batches: what to read.
        loader: how; None reads in this process.

    Yields:
        The batches.

    Raises:
        RuntimeError: where the worker dies, or takes longer than the loader's `timeout`.
    """
    if loader is None or not has_workers(loader):
        yield iter(batches)
        return
    note = (
        f"kornia_lightning_probe read the probe's images in a worker process, as the DataLoader over "
        f"{type(loader.dataset).__name__} does (num_workers={loader.num_workers})"
    )
    with explained(note):
        received: Any = iter(_private_loader(batches, loader))
    try:
        yield _unpacked(received, note)
    finally:
        # Else it lives as long as the traceback of an exception, and an endless stream never ends.
        received._shutdown_workers()


def _private_loader(batches: Batches, loader: DataLoader[Any]) -> DataLoader[bytes]:
    return DataLoader(
        _Sender(batches),
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=1,
        prefetch_factor=1,
        multiprocessing_context=loader.multiprocessing_context,
        worker_init_fn=_Start(loader.worker_init_fn),
        timeout=_timeout(batches, loader),
        # The worker's seed is drawn from it: always the same, and no stream of the user's moves.
        generator=torch.Generator(torch.get_default_device()),
    )


def _timeout(batches: Batches, loader: DataLoader[Any]) -> float:
    # The user's is for one batch of the loader, and ours may hold more images.
    times = max(1, batches.images_at_once / (loader.batch_size or 1))
    if loader.timeout == 0 or math.isinf(times):
        return 0
    return loader.timeout * times


class _Sender(IterableDataset[bytes]):
    """Reads in the worker. What it has read goes through a pipe, as bytes: shared memory may not hold a whole block."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[bytes]:
        try:
            for batch in self.batches:
                yield pickle.dumps((batch, None))
        except Exception as error:
            yield _packed(error)


class _Start:
    """Starts the worker as the user's loader does: its function finds the user's dataset in `get_worker_info`."""

    def __init__(self, worker_init_fn: Callable[[int], object] | None) -> None:
        self.worker_init_fn = worker_init_fn

    def __call__(self, worker_id: int) -> None:
        info: Any = get_worker_info()
        # The record is frozen.
        object.__setattr__(info, "dataset", info.dataset.batches.dataset)
        if self.worker_init_fn is not None:
            self.worker_init_fn(worker_id)


def _packed(error: Exception) -> bytes:
    """The error itself, so that its type and notes arrive."""
    trace = traceback.TracebackException.from_exception(error)
    trace.__notes__ = []
    told = "".join(trace.format())
    try:
        packed = pickle.dumps((None, error))
        pickle.loads(packed)  # noqa: S301 - our own bytes; many exceptions can't be made again from their text
    except Exception:
        # Then the DataLoader sends its text.
        raise error from None
    error.add_note(f"in the worker process:\n{told}")
    return pickle.dumps((None, error))


def _unpacked(received: Iterator[bytes], note: str) -> Iterator[Any]:
    with explained(note):
        for packed in received:
            batch, error = pickle.loads(packed)  # noqa: S301 - from our own child
            if error is not None:
                raise error
            yield batch


def _as_it_is(packed: Any) -> Any:
    return packed
