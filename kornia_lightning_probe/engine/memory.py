"""What memory allows: how many images go into a pass, and errors that say that it has run out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from kornia_lightning_probe.engine.notes import Findings

#: How many images go into one pass: a number, or what an accelerator's memory allows.
BatchSize = int | Literal["auto"]
AUTO: Literal["auto"] = "auto"
# So many images without an accelerator, and everywhere to begin with.
_FEW = 32
# More views at once bring nothing: the device is busy by then.
_MOST_VIEWS = 8
# Of what is free, a pass may take so much: the rest is for what is measured, and for others.
_SHARE = 0.5

_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "Unable to allocate", "ALLOC_FAILED")


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


class PassSize:
    """How many images go into one pass, as its user says or as memory allows; the numbers do not depend on it.

    With "auto" these are 32 without an accelerator. On one, a pass over as many views of a block as may fit is tried
    once; while it takes more than half of the memory that is free, or runs out of it, half as many are tried. Where
    memory runs out later, a single process begins anew with half as many, and several do so in their next probe.

    Args:
        wish: a number of images, at least 1, or "auto".

    Raises:
        ValueError: for a number below 1.

    Attributes:
        now: the number; with "auto" that of the first passes, until it is settled.
    """

    def __init__(self, wish: BatchSize = _FEW) -> None:
        if wish != AUTO and wish < 1:
            raise ValueError(f"batch_size must be at least 1, got {wish}")
        self.now: int = _FEW if wish == AUTO else wish
        self._wish = wish
        self._is_settled = wish != AUTO

    def settle(
        self,
        run: Callable[[int], object],
        num_images: int,
        *,
        views: int,
        device: torch.device,
        lockstep: bool,
        findings: Findings,
    ) -> int:
        """The number for all later passes, found where it is not known yet.

        Args:
            run: runs the model on so many copies of a block, one behind the other.
            num_images: of the block.
            views: how many there are of it.
            device: where the model is.
            lockstep: whether passes must be as they are on all processes, or of whole blocks, so that none is tried.
            findings: where it is noted if less fits than was tried.
        """
        if not self._is_settled and device.type == "cuda" and not lockstep:
            most = min(_MOST_VIEWS, views)
            self.now = num_images * _views_that_fit(run, num_images, most, device, findings)
        self._is_settled = True
        return self.now

    @property
    def can_be_halved(self) -> bool:
        """Whether memory allowed more before than it must."""
        return self._wish == AUTO and self.now > _FEW

    def halve(self) -> bool:
        """Take half as many images from now on, where that can be done; whether it can."""
        if not self.can_be_halved:
            return False
        self.now = max(_FEW, self.now // 2)
        return True


def _views_that_fit(
    run: Callable[[int], object], num_images: int, most: int, device: torch.device, findings: Findings
) -> int:
    views = max(1, most)
    while views > 1 and not _fits(run, views, device):
        # The cache is large by now, and nobody else can use it.
        torch.cuda.empty_cache()
        views //= 2
    if views < most:
        findings.warn(
            f"batch_size='auto': {most * num_images} images at once take more than half of the memory that is "
            f"free on {device}, so that {views * num_images} go into one pass",
            kind="images in a pass",
        )
    return views


def _fits(run: Callable[[int], object], views: int, device: torch.device) -> bool:
    """Whether a pass over so many views leaves the device half of what was free; it may run out of memory."""
    held = torch.cuda.memory_reserved(device)
    free, _ = torch.cuda.mem_get_info(device)
    try:
        run(views)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False
    # What a pass has freed stays with the process, so that this is what it took beyond what the process held.
    return torch.cuda.memory_reserved(device) - held <= _SHARE * free
