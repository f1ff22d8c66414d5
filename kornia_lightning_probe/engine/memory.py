"""Errors that say that memory has run out, and what was held by then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from kornia_lightning_probe.engine.notes import Findings

_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "Unable to allocate")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or what it was raised from, says that memory has run out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY):
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)


@contextmanager
def clean_bytes_told(findings: Findings) -> Iterator[None]:
    """Add to an error of memory how much the clean activations of the first block took by then.

    Args:
        findings: which hold it.
    """
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            size = findings.clean_bytes / 2**20
            error.add_note(f"when memory ran out, the clean activations of the first block took {size:.3g} MiB")
        raise
