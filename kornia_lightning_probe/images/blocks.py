"""Blocks: runs of about 32 images, the unit of randomness and of everything that relates images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from kornia_lightning_probe.image_layout import IMAGE, ImageLayout
from kornia_lightning_probe.images.nested import image_entries, map_tensors, replace_images, take_rows


@dataclass(frozen=True, eq=False)
class Block:
    """A run of about 32 probe images, the unit of randomness and of everything that relates images.

    Attributes:
        index: the number of the block, the same on every rank.
        ids: the positions of its images in the table of all N probe images.
        inputs: what the model is called with: a tensor, or a dict or tuple of tensors, B in front.
        labels: integers of shape (B,) or (B, H, W), or None.
        image_keys: which entries of `inputs` are images; empty where `inputs` is one tensor.
        layout: the axes of the images.
    """

    index: int
    ids: range
    inputs: Any
    labels: Tensor | None = None
    image_keys: tuple[str | int, ...] = ()
    layout: ImageLayout = IMAGE

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def images(self) -> tuple[Tensor, ...]:
        """The image entries, each as `layout` says, in the order of `image_keys`."""
        return image_entries(self.inputs, self.image_keys)

    def to(self, device: torch.device) -> Block:
        """Return this block with its tensors on a device."""
        inputs, labels = map_tensors((self.inputs, self.labels), lambda tensor: tensor.to(device))
        return replace(self, inputs=inputs, labels=labels)

    def first(self, count: int) -> Block:
        """Return a block of the first images only, or this one where it has no more."""
        if count >= len(self):
            return self
        labels = None if self.labels is None else self.labels[:count]
        return replace(self, ids=self.ids[:count], inputs=self.rows(0, count), labels=labels)

    def with_images(self, images: Sequence[Tensor]) -> Any:
        """Return the model's inputs with other images in place of this block's; what else goes in is a copy.

        A model may write into its inputs.
        """
        inputs = self.inputs
        if self.image_keys:
            inputs = map_tensors(inputs, torch.clone)
        return replace_images(inputs, self.image_keys, images)

    def rows(self, start: int, stop: int, *, inputs: Any = None) -> Any:
        """Return the model's inputs for some of the images, as views.

        Args:
            start: the first row, counted within the block.
            stop: one behind the last row.
            inputs: the rows of these inputs instead, for example of what `with_images` has returned.
        """
        if inputs is None:
            inputs = self.inputs
        return take_rows(inputs, slice(start, stop), num_rows=len(self))


def deal_blocks(num_images: int, block_size: int = 32) -> list[range]:
    """Cut N positions into ceil(N / block_size) runs of nearly equal size, never of one image unless N is 1.

    Args:
        num_images: N, at least 1.
        block_size: how many images a block holds at most, at least 2. Where that would leave one image alone, which
            happens with 2 only, one block has 3.

    Returns:
        The positions of each block.

    Example:
        >>> deal_blocks(33), deal_blocks(4)
        ([range(0, 17), range(17, 33)], [range(0, 4)])
    """
    blocks = min(-(-num_images // block_size), max(num_images // 2, 1))
    size, larger = divmod(num_images, blocks)
    starts = [block * size + min(block, larger) for block in range(blocks + 1)]
    return [range(start, stop) for start, stop in pairwise(starts)]
