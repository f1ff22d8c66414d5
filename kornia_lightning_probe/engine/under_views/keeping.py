"""Views that are kept from one probe to the next, since images and seeds are fixed and every draw is the same."""

from __future__ import annotations

import heapq

import torch
from torch import Tensor

from kornia_lightning_probe.bank.bank import Augmented


class KeptViews:
    """Blocks under views, as many as fit, of those that are dearest to draw for each byte.

    They lie on the host, beside an accelerator in pinned memory, so that no memory of a device is held between probes.
    What is handed out is a copy, since a model may write into its input.

    Args:
        most_bytes: for all together; 0 keeps nothing.

    Attributes:
        nbytes: what is kept takes so much.
    """

    def __init__(self, most_bytes: int = 0) -> None:
        self.most_bytes = most_bytes
        self.nbytes = 0
        self._kept: dict[tuple[int, int], tuple[Augmented, int]] = {}
        # What a byte of each saves in seconds, the least first.
        self._least: list[tuple[float, tuple[int, int]]] = []
        self._offered: set[tuple[int, int]] = set()

    def get(self, block: int, view: int, *, device: torch.device) -> Augmented | None:
        """A block under a view, as it was drawn; None where it is not kept.

        Args:
            block: its number.
            view: the view's place in the bank.
            device: where the images are wanted.
        """
        if (block, view) not in self._kept:
            return None
        augmented, _ = self._kept[block, view]
        images = tuple(image.to(device, non_blocking=True, copy=True) for image in augmented.images)
        return augmented._replace(images=images)

    def offer(self, block: int, view: int, augmented: Augmented, *, seconds: float) -> None:
        """Keep a block under a view, where there is room or what is worth less makes room for it.

        What is offered again is what had no room before.

        Args:
            block: its number.
            view: the view's place in the bank.
            augmented: what was drawn; it is copied.
            seconds: what drawing it took.
        """
        key = (block, view)
        nbytes = sum(image.nbytes for image in augmented.images)
        if nbytes > self.most_bytes or key in self._offered:
            return
        self._offered.add(key)
        worth = seconds / max(nbytes, 1)
        going, room = [], self.most_bytes - self.nbytes
        while self._least and room < nbytes and self._least[0][0] < worth:
            going.append(heapq.heappop(self._least))
            room += self._kept[going[-1][1]][1]
        if room < nbytes:
            # What goes would not make room enough.
            for entry in going:
                heapq.heappush(self._least, entry)
            return
        for _, other in going:
            self.nbytes -= self._kept.pop(other)[1]
        images = tuple(map(_on_host, augmented.images))
        self._kept[key] = augmented._replace(images=images), nbytes
        heapq.heappush(self._least, (worth, key))
        self.nbytes += nbytes


def _on_host(images: Tensor) -> Tensor:
    if images.device.type == "cpu":
        return images.detach().clone()
    try:
        copied = torch.empty_like(images, device="cpu", pin_memory=images.device.type == "cuda")
    except RuntimeError:
        # No more memory can be pinned; only the way back is slower without.
        copied = torch.empty_like(images, device="cpu")
    return copied.copy_(images.detach())
