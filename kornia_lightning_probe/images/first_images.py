"""Images of a source that has no indices: the first ones, in its own order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sized
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, default_collate

from kornia_lightning_probe.image_layout import IMAGE, ImageLayout
from kornia_lightning_probe.images.batches import (
    ImageKeys,
    ToInputs,
    find_binary_labels,
    find_image_keys,
    find_inputs,
    find_labels,
)
from kornia_lightning_probe.images.nested import image_entries, join_rows, take_rows
from kornia_lightning_probe.images.reading import Batches, BatchesFromFront, Collate, ItemsFromFront
from kornia_lightning_probe.images.workers import has_workers, opened
from kornia_lightning_probe.randomness import isolated_rng, stable_seed


class FirstImages(NamedTuple):
    """The first images of a source that has no indices, as `ProbeImages` takes them.

    Attributes:
        inputs: the model's inputs, N in front.
        labels: integers of shape (N,) or (N, H, W), or None.
        notes: what the choice of these images depends on.
    """

    inputs: Any
    labels: Tensor | None
    notes: list[str]


class _Part(NamedTuple):
    inputs: Any
    labels: Tensor | None
    rows: int


def has_no_indices(source: object) -> bool:
    """Say whether images can only be read from the front: an iterable dataset, or a loader without automatic batching.

    Example:
        >>> has_no_indices(DataLoader([1, 2, 3])), has_no_indices(iter([1, 2, 3]))
        (False, True)
    """
    if isinstance(source, DataLoader):
        return _hands_over_batches(source) or has_no_indices(source.dataset)
    if isinstance(source, Tensor | Mapping | list | tuple):
        return False
    indexed = hasattr(source, "__getitem__") and isinstance(source, Sized)
    return isinstance(source, IterableDataset) or (isinstance(source, Iterable) and not indexed)


def read_first(
    source: Any,
    num_images: int | None = None,
    *,
    seed: int = 0,
    image_keys: ImageKeys | None = None,
    to_inputs: ToInputs | None = None,
    collate_fn: Collate | None = None,
    layout: ImageLayout = IMAGE,
) -> FirstImages:
    """Read the first images of a source that has no indices, in its order and with every random stream put back.

    With several ranks, one of them calls this, shares what it returns with all others, and each hands that to
    `ProbeImages`: ranks that read on their own would get different images.

    Args:
        source: an `IterableDataset`, a DataLoader over one or with `batch_size=None`, or any iterable of batches. A
            DataLoader with workers is read in one worker process of its kind, see `opened`: there `get_worker_info`
            knows a single worker, so that a dataset which is shared out among workers is read in its plain order, and
            one that isn't doesn't give an image twice.
        num_images: N; None reads to the end.
        seed: the seed under which random transforms draw.
        image_keys: as for `ProbeImages`.
        to_inputs: as for `ProbeImages`.
        collate_fn: joins the items of an iterable dataset; default: the loader's.
        layout: the axes of images.

    Returns:
        Inputs, labels and notes; fewer than N images where the source ends before.

    Raises:
        ValueError: if there is no image, or none can be found in a batch.

    Example:
        >>> read_first(iter([torch.zeros(4, 3, 8, 8), torch.ones(4, 3, 8, 8)]), 6).inputs.shape
        torch.Size([6, 3, 8, 8])
    """
    wanted = math.inf if num_images is None else num_images
    parts: list[_Part] = []
    with torch.inference_mode(False), _opened(source, wanted, seed=seed, collate_fn=collate_fn) as batches:
        for position, batch in enumerate(batches):
            with isolated_rng(stable_seed(seed, "inputs", position)):
                inputs = find_inputs(batch, to_inputs)
            parts.append(_part(inputs, batch, image_keys, layout))
            wanted -= parts[-1].rows
            if wanted <= 0:
                break
    if not parts:
        raise ValueError(f"There is no image in {name_of(source)}: it ended at once")
    return _joined(parts, num_images, _notes(source))


def name_of(source: object) -> str:
    """What a source is called in a sentence.

    Example:
        >>> name_of(DataLoader([1, 2]))
        'the DataLoader over list'
    """
    if isinstance(source, DataLoader):
        return f"the DataLoader over {name_of(source.dataset)}"
    return type(source).__name__


def _hands_over_batches(loader: DataLoader[Any]) -> bool:
    return loader.batch_size is None and loader.batch_sampler is None


def _opened(source: Any, wanted: float, *, seed: int, collate_fn: Collate | None) -> AbstractContextManager[Any]:
    loader = source if isinstance(source, DataLoader) else None
    batches: Batches
    if loader is not None and _hands_over_batches(loader):
        batches = BatchesFromFront(loader.dataset, collate_fn or loader.collate_fn, seed, _rows_at_once(loader))
    elif loader is not None:
        batches = ItemsFromFront(loader.dataset, collate_fn or loader.collate_fn, seed, wanted)
    elif isinstance(source, IterableDataset):
        batches = ItemsFromFront(source, collate_fn or default_collate, seed, wanted)
    else:
        batches = BatchesFromFront(source, _as_it_is, seed)
    return opened(batches, loader)


def _rows_at_once(loader: DataLoader[Any]) -> int | None:
    sampler: Any = loader.sampler
    return sampler.batch_size if isinstance(sampler, BatchSampler) else None


def _as_it_is(batch: Any) -> Any:
    return batch


def _part(inputs: Any, batch: object, image_keys: ImageKeys | None, layout: ImageLayout) -> _Part:
    images = image_entries(inputs, find_image_keys(inputs, image_keys, layout=layout))
    rows = len(images[0])
    labels = find_labels(batch, rows, layout=layout)
    if labels is None:
        labels = find_binary_labels(batch, rows, layout=layout)
    return _Part(inputs, labels, rows)


def _notes(source: Any) -> list[str]:
    notes = [f"{name_of(source)} has no indices: its first images were read, so which ones depends on its order"]
    if has_workers(source):
        notes.append(
            f"{name_of(source)} was read by one worker process, so its order is that of num_workers=1, whatever "
            f"num_workers={source.num_workers} makes of it"
        )
    return notes


def _joined(parts: list[_Part], num_images: int | None, notes: list[str]) -> FirstImages:
    total = sum(part.rows for part in parts)
    joined = join_rows([part.inputs for part in parts])
    inputs = take_rows(joined, slice(num_images), num_rows=total)
    labels = [part.labels for part in parts if part.labels is not None]
    if len(labels) < len(parts):
        return FirstImages(inputs, None, notes)
    return FirstImages(inputs, torch.cat(labels)[:num_images], notes)
