"""The fixed probe images: which ones, read how, and dealt into which blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kornia_lightning_probe.checks import whole_number
from kornia_lightning_probe.image_layout import ImageLayout, image_layout
from kornia_lightning_probe.images.batches import ImageKeys, ToInputs, describe, find_image_keys
from kornia_lightning_probe.images.blocks import Block, deal_blocks
from kornia_lightning_probe.images.fingerprints import content_hash, fingerprints_of
from kornia_lightning_probe.images.first_images import FirstImages, has_no_indices, read_first
from kornia_lightning_probe.images.labels import Targets
from kornia_lightning_probe.images.nested import map_tensors
from kornia_lightning_probe.images.reading import Collate, Numbered
from kornia_lightning_probe.images.sources import Reader, Rows, open_source
from kornia_lightning_probe.randomness import stable_seed


class ProbeImages:
    """N fixed images, chosen by a seed and dealt into blocks; this rank holds the blocks it owns, and block 0.

    The choice is the front of one seeded permutation of the source's indices: `num_images=64` takes the first 64 of
    the images that `num_images=256` takes, and a set sorted by class is mixed. Blocks are ceil(N / block_size) runs of
    that order, of nearly equal size and never of one image unless N is 1; block b belongs to rank b % world_size.
    Each image of a dataset is read under its own seed, a stable hash of (seed, index), and the streams of Python,
    NumPy and torch, and generators that the dataset keeps, are put back: random transforms give the same image on any
    rank, in any epoch and any order. A DataLoader with workers is read in a worker process of its kind, and nothing of
    the dataset in this process changes; any other source is read in this process.

    Args:
        source: a (N, C, H, W) tensor; one (C, H, W) image; a dict or tuple of tensors with N in front (the model's
            inputs); a dataset; a DataLoader, of which dataset and collate_fn are used and the sampler never is; what
            `read_first` has returned. An iterable dataset, a loader over one or with `batch_size=None`, and any other
            iterable of batches are read from the front by `read_first`.
        num_images: N; None takes all. Where there are fewer, all are used and `notes` says so.
        seed: chooses the images, and seeds the reading of each.
        image_keys: the keys or indices of the images in dict or tuple inputs; default: the only float entry with four
            dimensions.
        to_inputs: how to get the model's inputs out of a loader's batch: a function of the batch, a key or an index.
            By default a tensor is the input, of a tuple the first entry is, and a dict is searched for "image(s)",
            "pixel_values", "x" or "input(s)". Labels are searched in the batch all the same: a tuple's second entry,
            or a dict's "label(s)", "target(s)" or "y", of integers (B,) or (B, H, W).
        labels: integers (N,) or (N, H, W) by the source's indices, where the source holds none; or the targets (N, K)
            of K labels for each image, which say that the model's output is not scores of one class among others.
        rank: the number of this process.
        world_size: how many processes share the blocks.
        block_size: how many images a block holds at most, at least 2.
        collate_fn: joins the items of a dataset; default: the loader's, or torch's `default_collate`.
        layout: the axes of images: "image" (B, C, H, W), "volume" (B, C, D, H, W) or "video" (B, T, C, H, W).

    Attributes:
        num_images: N.
        num_blocks: the number of blocks of all ranks together.
        deal: the positions of the images of each of them.
        image_ids: the source's index of each image, in the order of the tables.
        scout: block 0, which every rank holds.
        blocks: the blocks of this rank, in order; may be empty.
        image_keys: the names of the images in the model's inputs, empty where the inputs are one tensor.
        fingerprints: int64 (N,), a content hash below 2**52 of each image of this rank's blocks and 0 elsewhere: summed
            over the ranks it is that of all images.
        other_targets: what the source or `labels` gives in the place of labels where that is none, as a text such as
            "float32 (32, 4)"; else empty.
        labels_given: whether `labels` was given, so that a reader of the result expects something of them.
        notes: sentences on what a reader of the result should know.

    Raises:
        ValueError: if there is no image, if none can be found in a batch, if it is no float tensor (B, C, H, W), if
            the entries or the labels disagree in N, or if the labels are none.
        TypeError: if the source is none of the above.

    Example:
        >>> images = ProbeImages(torch.rand(80, 3, 8, 8), num_images=70)
        >>> images.num_images, [len(block) for block in images.blocks]
        (70, [24, 23, 23])
    """

    def __init__(
        self,
        source: Any,
        *,
        num_images: int | None = None,
        seed: int = 0,
        image_keys: ImageKeys | None = None,
        to_inputs: ToInputs | None = None,
        labels: Tensor | Sequence[int] | None = None,
        rank: int = 0,
        world_size: int = 1,
        block_size: int = 32,
        collate_fn: Collate | None = None,
        layout: str = "image",
    ) -> None:
        self.layout = image_layout(layout)
        seed = whole_number("seed", seed)
        _check_numbers(num_images, rank=rank, world_size=world_size, block_size=block_size)
        self.notes: list[str] = []
        self.labels_given = labels is not None
        if has_no_indices(source):
            source = read_first(
                source,
                num_images,
                seed=seed,
                image_keys=image_keys,
                to_inputs=to_inputs,
                collate_fn=collate_fn,
                layout=self.layout,
            )
        if isinstance(source, FirstImages):
            self.notes += source.notes
            labels = source.labels if labels is None else labels
            source = source.inputs
        reader = open_source(
            source,
            labels,
            image_keys=image_keys,
            to_inputs=to_inputs,
            collate_fn=collate_fn,
            seed=seed,
            layout=self.layout,
        )
        self.image_ids = self._choose(reader.total, num_images, seed)
        self.num_images = len(self.image_ids)
        self.deal = deal_blocks(self.num_images, block_size)
        self.num_blocks = len(self.deal)
        owned = range(rank, self.num_blocks, world_size)
        self.scout, others = self._read(reader, [index for index in owned if index > 0], image_keys)
        self.blocks = [self.scout, *others] if rank == 0 else others
        self.image_keys = self.scout.image_keys
        self.other_targets = reader.targets
        self.fingerprints = torch.zeros(self.num_images, dtype=torch.int64)
        for block in self.blocks:
            self.fingerprints[block.ids.start : block.ids.stop] = fingerprints_of(block.images)

    def __len__(self) -> int:
        return self.num_images

    @property
    def targets(self) -> Targets:
        """What the images of this rank's blocks, and of block 0, are labelled with."""
        return Targets.of([block.labels for block in (self.scout, *self.blocks)], self.other_targets)

    @staticmethod
    def content_hash(fingerprints: Tensor) -> str:
        """Turn the fingerprints of all images into one hash.

        Args:
            fingerprints: (N,), summed over the ranks, as integers or float64.

        Returns:
            16 hexadecimal digits that depend on the content and the order of the images.

        Example:
            >>> ProbeImages.content_hash(torch.tensor([1, 2])) == ProbeImages.content_hash(torch.tensor([1.0, 2.0]))
            True
        """
        return content_hash(fingerprints)

    def content_hash_by_number(self, fingerprints: Tensor) -> str:
        """As `content_hash`, of the images in the order of their numbers in the source: the same for any `seed`.

        Where two sets agree in it, the image of the i-th smallest number is the same in both.

        Args:
            fingerprints: (N,), summed over the ranks, in the order of the tables.
        """
        order = sorted(range(self.num_images), key=self.image_ids.__getitem__)
        return self.content_hash(fingerprints[order])

    def _choose(self, total: int, num_images: int | None, seed: int) -> tuple[int, ...]:
        if total < 1:
            raise ValueError("There are no images to probe: the source has length 0, at least 1 is needed")
        if num_images is not None and total < num_images:
            self.notes.append(f"{num_images} images were asked for and {total} exist: all {total} are used")
        generator = torch.Generator().manual_seed(stable_seed(seed, "choice"))
        return tuple(torch.randperm(total, generator=generator)[:num_images].tolist())

    def _read(self, reader: Reader, others: list[int], image_keys: ImageKeys | None) -> tuple[Block, list[Block]]:
        """Read the scout and other blocks, in one go: it may take a process to be started."""
        numbered = [Numbered(index, self._indices(index)) for index in (0, *others)]
        blocks = []
        with torch.inference_mode(False), reader.open(numbered) as read:
            for number, rows in zip(numbered, read, strict=True):
                ids = self.deal[number.block]
                blocks.append(_made(rows, number.block, ids=ids, image_keys=image_keys, layout=self.layout))
        if reader.targets:
            # Targets of any numbers may look like labels in some blocks.
            blocks = [replace(block, labels=None) for block in blocks]
        return blocks[0], blocks[1:]

    def _indices(self, block: int) -> list[int]:
        return [self.image_ids[position] for position in self.deal[block]]


def _made(rows: Rows, index: int, *, ids: range, image_keys: ImageKeys | None, layout: ImageLayout) -> Block:
    inputs, labels = map_tensors(tuple(rows), _plain)
    keys = find_image_keys(inputs, image_keys, layout=layout)
    block = Block(index, ids, inputs, labels, keys, layout)
    if any(len(images) != len(ids) for images in block.images):
        raise ValueError(
            f"{len(ids)} images were read, but collating them gave {describe(inputs)}; each image must give one "
            "row: pass collate_fn=, or choose one view with to_inputs="
        )
    return block


def _check_numbers(num_images: int | None, *, rank: int, world_size: int, block_size: int) -> None:
    if num_images is not None and whole_number("num_images", num_images) < 1:
        raise ValueError(f"num_images={num_images}: at least 1 image is needed")
    if whole_number("block_size", block_size) < 2:
        raise ValueError(f"block_size={block_size}: a block needs at least 2 images to say how far apart images are")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank={rank} is not below world_size={world_size}")


def _plain(tensor: Tensor) -> Tensor:
    """Drop graph and subclass: kernels should not dispatch through a torchvision or MONAI tensor."""
    return tensor.detach().as_subclass(Tensor)
