"""Where probe images come from: tensors, datasets, and loaders that can only be read from the front."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, default_collate

from kornia_lightning_probe.images.batches import (
    ImageKeys,
    ToInputs,
    describe,
    describe_targets,
    find_image_keys,
    find_inputs,
    find_labels,
)
from kornia_lightning_probe.images.generators import isolated_streams
from kornia_lightning_probe.images.nested import image_entries, join_rows, take_rows
from kornia_lightning_probe.randomness import stable_seed


class FirstImages(NamedTuple):
    """The first images of a loader that has no indices, as `ProbeImages` takes them.

    Attributes:
        inputs: the model's inputs, N in front.
        labels: integers of shape (N,) or (N, H, W), or None.
        notes: what the choice of these images depends on.
    """

    inputs: Any
    labels: Tensor | None
    notes: list[str]


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

    def read(self, indices: list[int], block: int) -> tuple[Any, Tensor | None]:
        """Read the images of one block: the model's inputs and, where there are any, the labels."""
        ...


@dataclass
class _TensorReader:
    inputs: Any
    labels: Tensor | None
    total: int
    targets: str = ""
    labelled: bool = False

    def read(self, indices: list[int], block: int) -> tuple[Any, Tensor | None]:  # noqa: ARG002 - a Reader
        rows = torch.tensor(indices)
        return take_rows(self.inputs, rows, num_rows=self.total), _taken(self.labels, indices)


@dataclass
class _DatasetReader:
    dataset: Any
    collate_fn: Callable[[list[Any]], Any]
    to_inputs: ToInputs | None
    labels: Tensor | None
    seed: int
    total: int = field(init=False)
    targets: str = ""
    labelled: bool = False

    def __post_init__(self) -> None:
        self.total = len(self.dataset)

    def read(self, indices: list[int], block: int) -> tuple[Any, Tensor | None]:
        with isolated_streams([self.dataset, self.collate_fn]) as seed_all:
            items = [self._item(index, seed_all) for index in indices]
            seed_all(stable_seed(self.seed, "collate", block))
            batch = _collate(items, self.collate_fn)
            inputs = find_inputs(batch, self.to_inputs)
        if self.labelled:
            return inputs, _taken(self.labels, indices)
        labels = find_labels(batch, len(indices))
        self.targets = describe_targets(batch) if labels is None else ""
        return inputs, labels

    def _item(self, index: int, seed_all: Callable[[int], None]) -> Any:
        seed_all(stable_seed(self.seed, "image", index))
        with _explained(f"kornia_lightning_probe was reading image {index} of the probe's dataset"):
            return self.dataset[index]


def _taken(labels: Tensor | None, indices: list[int]) -> Tensor | None:
    return None if labels is None else labels[torch.tensor(indices)]


def _collate(items: list[Any], collate_fn: Callable[[list[Any]], Any]) -> Any:
    hint = (
        f"kornia_lightning_probe was collating {len(items)} probe images, the first being {describe(items[0])}; "
        "images must be tensors of one size here: convert and resize them in the dataset, or pass a DataLoader with a "
        "collate_fn that can join them"
    )
    with _explained(hint):
        return collate_fn(items)


@contextmanager
def _explained(note: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        error.add_note(note)
        raise


def has_no_indices(source: object) -> bool:
    """Say whether images can only be read from the front: an iterable dataset, or a loader without automatic batching.

    Example:
        >>> has_no_indices(DataLoader([1, 2, 3])), has_no_indices(iter([1, 2, 3]))
        (False, True)
    """
    if isinstance(source, DataLoader):
        return (source.batch_size is None and source.batch_sampler is None) or has_no_indices(source.dataset)
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
    collate_fn: Callable[[list[Any]], Any] | None = None,
) -> FirstImages:
    """Read the first images of a source that has no indices, in its order and with every random stream put back.

    With several ranks, one of them calls this, shares what it returns with all others, and each hands that to
    `ProbeImages`: ranks that read on their own would get different images.

    Args:
        source: an `IterableDataset`, a DataLoader over one or with `batch_size=None`, or any iterable of batches. Of a
            DataLoader only dataset and collate_fn are used: no worker is started.
        num_images: N; None reads to the end.
        seed: the seed under which random transforms draw.
        image_keys: as for `ProbeImages`.
        to_inputs: as for `ProbeImages`.
        collate_fn: joins the items of an iterable dataset; default: the loader's.

    Returns:
        Inputs, labels and notes; fewer than N images where the source ends before.

    Raises:
        ValueError: if there is no image, or none can be found in a batch.

    Example:
        >>> read_first(iter([torch.zeros(4, 3, 8, 8), torch.ones(4, 3, 8, 8)]), 6).inputs.shape
        torch.Size([6, 3, 8, 8])
    """
    parts: list[tuple[Any, Tensor | None, int]] = []
    missing = float("inf") if num_images is None else num_images
    owner = source.dataset if isinstance(source, DataLoader) else source
    with torch.inference_mode(False), isolated_streams(owner) as seed_all:

        def seed_next(position: int) -> None:
            seed_all(stable_seed(seed, "image", position))

        for batch in _first_batches(source, num_images, seed_next=seed_next, collate_fn=collate_fn):
            inputs = find_inputs(batch, to_inputs)
            rows = len(image_entries(inputs, find_image_keys(inputs, image_keys))[0])
            parts.append((inputs, find_labels(batch, rows), rows))
            missing -= rows
            if missing <= 0:
                break
    if not parts:
        raise ValueError(f"There is no image in {_name(source)}: it ended at once")
    note = f"{_name(source)} has no indices: its first images were read, so which ones depends on its order"
    return _joined(parts, num_images, note)


def _joined(parts: list[tuple[Any, Tensor | None, int]], num_images: int | None, note: str) -> FirstImages:
    total = sum(rows for _, _, rows in parts)
    inputs = take_rows(join_rows([inputs for inputs, _, _ in parts]), slice(num_images), num_rows=total)
    labels = [labels for _, labels, _ in parts if labels is not None]
    all_labels = torch.cat(labels)[:num_images] if len(labels) == len(parts) else None
    return FirstImages(inputs, all_labels, [note])


def _first_batches(
    source: Any,
    num_images: int | None,
    *,
    seed_next: Callable[[int], None],
    collate_fn: Callable[[list[Any]], Any] | None,
) -> Iterator[Any]:
    loader = source if isinstance(source, DataLoader) else None
    dataset = source if loader is None else loader.dataset
    collate = collate_fn or (default_collate if loader is None else loader.collate_fn)
    if loader is not None and loader.batch_size is None:
        yield from (collate(batch) for batch in _seeded(_unbatched(loader), seed_next))
    elif isinstance(dataset, IterableDataset):
        items = list(islice(_seeded(iter(dataset), seed_next), num_images))
        yield from [_collate(items, collate)] if items else []
    else:
        yield from _seeded(iter(dataset), seed_next)


def _unbatched(loader: DataLoader[Any]) -> Iterator[Any]:
    dataset: Any = loader.dataset
    if isinstance(dataset, IterableDataset):
        yield from dataset
    elif isinstance(loader.sampler, BatchSampler):
        for start in range(0, len(dataset), loader.sampler.batch_size):
            yield dataset[list(range(start, min(start + loader.sampler.batch_size, len(dataset))))]
    else:
        yield from (dataset[index] for index in range(len(dataset)))


def _seeded(items: Iterator[Any], seed_next: Callable[[int], None]) -> Iterator[Any]:
    for position in count():
        seed_next(position)
        try:
            yield next(items)
        except StopIteration:
            return


def open_source(
    source: Any,
    labels: Tensor | Sequence[int] | None,
    *,
    image_keys: ImageKeys | None,
    to_inputs: ToInputs | None,
    collate_fn: Callable[[list[Any]], Any] | None,
    seed: int,
) -> Reader:
    """Tell tensors from datasets, and return what reads the model's inputs and labels by index.

    The arguments are those of `ProbeImages`; a source without indices goes through `read_first` before.

    Raises:
        ValueError: if no image is found among tensors, if entries or labels disagree in N, or if labels are none.
        TypeError: if the source is none of those that `ProbeImages` lists.
    """
    reader: Reader
    if isinstance(source, Tensor | Mapping | tuple):
        reader = _tensor_reader(source, image_keys)
    else:
        dataset = source.dataset if isinstance(source, DataLoader) else source
        if not hasattr(dataset, "__getitem__") or not isinstance(dataset, Sized):
            raise TypeError(
                f"{_name(source)} came as images, expected a (N, C, H, W) tensor, one (C, H, W) image, a dict or tuple "
                "of tensors, a dataset with __getitem__ and __len__, a DataLoader or an iterable of batches"
            )
        collate = collate_fn or (source.collate_fn if isinstance(source, DataLoader) else default_collate)
        reader = _DatasetReader(dataset, collate, to_inputs, None, seed)
    if labels is not None:
        reader.labels, reader.targets = _labels_or_targets(labels, reader.total)
        reader.labelled = True
    return reader


def _tensor_reader(source: Any, image_keys: ImageKeys | None) -> _TensorReader:
    inputs = source.unsqueeze(0) if isinstance(source, Tensor) and source.ndim == 3 else source
    images = image_entries(inputs, find_image_keys(inputs, image_keys))
    total = len(images[0])
    entries = inputs.values() if isinstance(inputs, Mapping) else (inputs if isinstance(inputs, tuple) else images)
    if any(isinstance(entry, Tensor) and entry.ndim > 0 and len(entry) != total for entry in entries):
        raise ValueError(f"All entries must have the same number of images in front, but they are {describe(inputs)}")
    return _TensorReader(inputs, None, total)


def _labels_or_targets(labels: Tensor | Sequence[int], total: int) -> tuple[Tensor | None, str]:
    """The labels, or in their place a text that says what the targets of several labels for each image are."""
    expected = (
        f"expected {total} integers, one per image, masks ({total}, H, W) of integers, or targets ({total}, K) of K "
        "> 1 labels for each image; number the classes, or leave labels= out where the targets are others"
    )
    try:
        tensor = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"labels: {describe(labels)} came ({error}), {expected}") from error
    checked = find_labels((None, tensor), total)
    if checked is not None:
        return checked, ""
    if tensor.ndim == 2 and len(tensor) == total and tensor.shape[1] > 1:
        return None, describe(tensor)
    raise ValueError(f"labels: {describe(tensor)} came, {expected}")


def _name(source: object) -> str:
    if isinstance(source, DataLoader):
        return f"the DataLoader over {_name(source.dataset)}"
    return f"{type(source).__name__}"
