"""What the engine may know of other processes, and how all of them stop together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_FAILED = "failed: "


class OtherRankError(RuntimeError):
    """Another process has failed or disagrees; every process raises it, so that none waits for one that is gone."""


@dataclass(frozen=True)
class World:
    """This process among others, and the two collectives that a probe needs.

    Args:
        rank: this process.
        size: how many there are.
        add: sums a tensor over all processes and returns the sum; it may write to the tensor.
        gather: returns every process's text, in order of rank.
        lockstep: whether a forward pass is itself collective, so that all processes must run equally many.
    """

    rank: int = 0
    size: int = 1
    add: Callable[[Tensor], Tensor] = lambda tensor: tensor
    gather: Callable[[str], Sequence[str]] = lambda text: [text]
    lockstep: bool = False

    def meet(self, text: str, *, what: str = "") -> None:
        """Wait for all processes.

        Args:
            text: what this process says.
            what: what the text stands for, for the error.

        Raises:
            OtherRankError: on every process, where one has failed or the texts differ.
        """
        texts = self.exchange(text)
        if len(set(texts)) > 1:
            raise OtherRankError(f"the processes differ in {what}; by rank: {' | '.join(texts)}")

    def exchange(self, text: str) -> Sequence[str]:
        """Wait for all processes, and hear what each of them says, in order of rank.

        Raises:
            OtherRankError: on every process, where one has failed.
        """
        texts = self.gather(text)
        for rank, other in enumerate(texts):
            if other.startswith(_FAILED):
                raise OtherRankError(f"the probe failed on rank {rank}: {other.removeprefix(_FAILED)}")
        return texts

    def fail(self, error: Exception) -> None:
        """Tell the processes that wait in :meth:`meet` or :meth:`exchange` why this one won't come."""
        if not isinstance(error, OtherRankError):
            self.gather(f"{_FAILED}{type(error).__name__}: {error}")

    def sum_together(self, tensors: Sequence[Tensor], *, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        """Sum tensors over all processes in one collective.

        Args:
            tensors: of any shapes, on any device.
            device: where they travel.
            dtype: as what they travel.

        Returns:
            The sums, on ``device``, of the same shapes.
        """
        if self.size == 1:
            return list(tensors)
        flat = torch.cat([tensor.to(device, dtype).flatten() for tensor in tensors])
        pieces = torch.split(self.add(flat), [tensor.numel() for tensor in tensors])
        return [piece.view(tensor.shape) for piece, tensor in zip(pieces, tensors, strict=True)]
