"""Seeds that mean the same everywhere, and random streams that come back as they were."""

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

_SEED_BITS = 63


def stable_seed(*parts: object) -> int:
    """Turn names and numbers into a seed that is the same in every process, run and Python version.

    Python's own `hash` of a string differs from process to process, so ranks could not agree on it.

    Args:
        parts: what the seed stands for, for example a base seed, a name and a block number; each counts as `str(part)`.

    Returns:
        An integer in [0, 2**63).

    Example:
        >>> stable_seed(0, "rotation", 3) == stable_seed(0, "rotation", 3)
        True
        >>> stable_seed(0, "rotation", 3) == stable_seed(0, "rotation", 4)
        False
    """
    text = "\x1f".join(str(part) for part in parts)
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - _SEED_BITS)


def reseed(seed: int, *, device: torch.device | None = None) -> None:
    """Seed Python's, NumPy's and torch's CPU stream, and the stream of one accelerator.

    `torch.manual_seed` would reseed every device of the machine; this touches the named one only.

    Args:
        seed: an integer in [0, 2**63).
        device: a CUDA or MPS device whose stream is seeded too; any other device has no stream of its own.
    """
    random.seed(seed)
    # A number of 32 bits: a list of two takes ten times as long, at every view and pass.
    np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002 - foreign transforms draw from the global stream
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device is not None and device.type == "mps":
        torch.mps.manual_seed(seed)


@contextmanager
def isolated_rng(seed: int | None = None, *, device: torch.device | None = None) -> Iterator[None]:
    """Put every random stream back as it was when the block ends, also after an exception.

    Args:
        seed: where given, the streams are seeded with it inside the block, see `reseed`.
        device: a CUDA or MPS device whose stream is kept too.

    Example:
        >>> before = torch.get_rng_state()
        >>> with isolated_rng(7):
        ...     first = torch.rand(3)
        >>> with isolated_rng(7):
        ...     second = torch.rand(3)
        >>> bool((first == second).all()), bool((torch.get_rng_state() == before).all())
        (True, True)
    """
    restore = _remember(device)
    try:
        if seed is not None:
            reseed(seed, device=device)
        yield
    finally:
        for put_back in restore:
            put_back()


def _remember(device: torch.device | None) -> list[Callable[[], object]]:
    python_state = random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002 - the global stream is the one to protect
    torch_state = torch.default_generator.get_state()
    restore: list[Callable[[], object]] = [
        lambda: random.setstate(python_state),
        lambda: np.random.set_state(numpy_state),  # noqa: NPY002 - as above
        lambda: torch.default_generator.set_state(torch_state),
    ]
    if device is not None and device.type == "cuda":
        cuda_state = torch.cuda.get_rng_state(device)
        restore.append(lambda: torch.cuda.set_rng_state(cuda_state, device))
    elif device is not None and device.type == "mps":
        mps_state = torch.mps.get_rng_state()
        restore.append(lambda: torch.mps.set_rng_state(mps_state))
    return restore
