"""Where probe images come from: tensors, or a dataset that is read by index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from kornia_lightning_probe.image_layout import IMAGE, ImageLayout
from kornia_lightning_probe.images.batches import (
    ImageKeys,
    ToInputs,
    describe,
    describe_targets,
    find_binary_labels,
    find_image_keys,
    find_inputs,
    find_labels,
)
from kornia_lightning_probe.images.first_images import name_of
from kornia_lightning_probe.images.nested import image_entries, take_rows
from kornia_lightning_probe.images.reading import BlocksByIndex, Collate, Numbered
from kornia_lightning_probe.images.workers import opened
from kornia_lightning_probe.randomness import isolated_rng, stable_seed


class Rows(NamedTuple):
    """What a source holds of one block.

    Attributes:
        inputs: the model's inputs, B in front.
        labels: integers (B,) or (B, H, W), or None.
    """

    inputs: Any
    labels: Tensor | None


class Reader(Protocol):
    """Where model inputs and labels come from; both are asked for by the source's own indices.

    Attributes:
        labels: integers (N,) or (N, H, W), or None.
        total: N.
        targets: what there is in the place of labels, as a text, where that is none; else empty.
        labelled: whether labels or targets were given beside the source, so that nobody looks for them in it.
    """

    labels: Tensor | None
    total: int
    targets: str
    labelled: bool

    def open(self, blocks: Sequence[Numbered]) -> AbstractContextManager[Iterator[Rows]]:
        """Read blocks, one after another."""
        ...


@dataclass
class _TensorReader:
    inputs: Any
    total: int
    labels: Tensor | None = None
    targets: str = ""
    labelled: bool = False

    def open(self, blocks: Sequence[Numbered]) -> AbstractContextManager[Iterator[Rows]]:
        return nullcontext(map(self._rows, blocks))

    def _rows(self, block: Numbered) -> Rows:
        inputs = take_rows(self.inputs, torch.tensor(block.indices), num_rows=self.total)
        return Rows(inputs, _taken(self.labels, block))


@dataclass
class _DatasetReader:
    dataset: Any
    collate_fn: Collate
    to_inputs: ToInputs | None
    seed: int
    loader: DataLoader[Any] | None
    layout: ImageLayout
    labels: Tensor | None = None
    total: int = field(init=False)
    targets: str = ""
    labelled: bool = False

    def __post_init__(self) -> None:
        self.total = len(self.dataset)

    @contextmanager
    def open(self, blocks: Sequence[Numbered]) -> Iterator[Iterator[Rows]]:
        batches = BlocksByIndex(self.dataset, self.collate_fn, self.seed, blocks)
        with opened(batches, self.loader) as read:
            yield map(self._rows, read, blocks)

    def _rows(self, batch: Any, block: Numbered) -> Rows:
        with isolated_rng(stable_seed(self.seed, "inputs", block.block)):
            inputs = find_inputs(batch, self.to_inputs)
        if self.labelled:
            return Rows(inputs, _taken(self.labels, block))
        count = len(block.indices)
        labels = find_labels(batch, count, layout=self.layout)
        if labels is None:
            labels = find_binary_labels(batch, count, layout=self.layout)
        if labels is None and not self.targets:
            self.targets = describe_targets(batch)
        return Rows(inputs, labels)


def open_source(
    source: Any,
    labels: Tensor | Sequence[int] | None,
    *,
    image_keys: ImageKeys | None,
    to_inputs: ToInputs | None,
    collate_fn: Collate | None,
    seed: int,
    layout: ImageLayout = IMAGE,
) -> Reader:
    """Tell tensors from datasets, and return what reads the model's inputs and labels by index.

    The arguments are those of `ProbeImages`; a source without indices goes through `read_first` before.

    Raises:
        ValueError: if no image is found among tensors, if entries or labels disagree in N, or if labels are none.
        TypeError: if the source is none of those that `ProbeImages` lists.
    """
    reader: Reader
    if isinstance(source, Tensor | Mapping | tuple):
        reader = _tensor_reader(source, image_keys, layout)
    else:
        loader = source if isinstance(source, DataLoader) else None
        reader = _dataset_reader(source, loader, to_inputs=to_inputs, collate_fn=collate_fn, seed=seed, layout=layout)
    if labels is not None:
        reader.labels, reader.targets = _labels_or_targets(labels, reader.total, layout)
        reader.labelled = True
    return reader


def _tensor_reader(source: Any, image_keys: ImageKeys | None, layout: ImageLayout) -> _TensorReader:
    one_image = isinstance(source, Tensor) and source.ndim == layout.num_axes - 1
    inputs = source.unsqueeze(0) if one_image else source
    images = image_entries(inputs, find_image_keys(inputs, image_keys, layout=layout))
    total = len(images[0])
    if any(length != total for length in _lengths(inputs)):
        raise ValueError(f"All entries must have the same number of images in front, but they are {describe(inputs)}")
    return _TensorReader(inputs, total)


def _lengths(inputs: Any) -> list[int]:
    if isinstance(inputs, Tensor):
        return [len(inputs)]
    entries = inputs.values() if isinstance(inputs, Mapping) else inputs
    return [len(entry) for entry in entries if isinstance(entry, Tensor) and entry.ndim > 0]


def _dataset_reader(
    source: Any,
    loader: DataLoader[Any] | None,
    *,
    to_inputs: ToInputs | None,
    collate_fn: Collate | None,
    seed: int,
    layout: ImageLayout,
) -> _DatasetReader:
    dataset = source if loader is None else loader.dataset
    if not hasattr(dataset, "__getitem__") or not isinstance(dataset, Sized):
        raise TypeError(
            f"{name_of(source)} came as images, expected a (N, C, H, W) tensor, one (C, H, W) image, a dict or tuple "
            "of tensors, a dataset with __getitem__ and __len__, a DataLoader or an iterable of batches"
        )
    default: Collate = default_collate if loader is None else loader.collate_fn
    return _DatasetReader(dataset, collate_fn or default, to_inputs, seed, loader, layout)


def _taken(labels: Tensor | None, block: Numbered) -> Tensor | None:
    if labels is None:
        return None
    return labels[torch.tensor(block.indices)]


def _labels_or_targets(labels: Tensor | Sequence[int], total: int, layout: ImageLayout) -> tuple[Tensor | None, str]:
    """The labels, or in their place a text that says what the targets of several labels for each image are."""
    of_one = layout.mask_shape
    expected = (
        f"expected {total} integers, one per image, masks ({total}, {of_one}) of integers, or targets ({total}, K) of "
        "K > 1 labels for each image; number the classes, or leave labels= out where the targets are others"
    )
    try:
        tensor = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"labels: {describe(labels)} came ({error}), {expected}") from error
    given = (None, tensor)
    checked = find_labels(given, total, layout=layout)
    if checked is None:
        checked = find_binary_labels(given, total, layout=layout)
    if checked is not None:
        return checked, ""
    if tensor.ndim == 2 and len(tensor) == total and tensor.shape[1] > 1:
        return None, describe(tensor)
    raise ValueError(f"labels: {describe(tensor)} came, {expected}")
