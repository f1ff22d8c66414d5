"""Batches of a dataset, by index or from the front, each image under a seed that means the same in every process.

What is iterated here is all that a worker process needs: it can be pickled where dataset and collate_fn can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple, Protocol

from torch.utils.data import IterableDataset

from kornia_lightning_probe.images.batches import describe
from kornia_lightning_probe.images.generators import isolated_streams
from kornia_lightning_probe.randomness import stable_seed

Collate = Callable[[Any], Any]

_END = object()


class Batches(Protocol):
    """Iterating reads a dataset, batch after batch; between two of them every random stream is as it was.

    Attributes:
        dataset: what is read.
        images_at_once: how many images a batch holds at most, as far as that is not the source's own choice.
    """

    @property
    def dataset(self) -> Any: ...  # noqa: D102 - see the class
    @property
    def images_at_once(self) -> float: ...  # noqa: D102 - see the class

    def __iter__(self) -> Iterator[Any]: ...


class Numbered(NamedTuple):
    """The images of one block: the block's number, and the source's index of each image."""

    block: int
    indices: list[int]


@dataclass(frozen=True)
class BlocksByIndex:
    """One batch for each block, its images read by index.

    Args:
        dataset: has `__getitem__`.
        collate_fn: joins the items of a block.
        seed: with its index it makes the seed of an image.
        blocks: which images.
    """

    dataset: Any
    collate_fn: Collate
    seed: int
    blocks: Sequence[Numbered]

    @property
    def images_at_once(self) -> float:
        """Those of the largest block."""
        return max(len(block.indices) for block in self.blocks)

    def __iter__(self) -> Iterator[Any]:
        for block in self.blocks:
            yield self._read(block)

    def _read(self, block: Numbered) -> Any:
        with isolated_streams([self.dataset, self.collate_fn]) as seed_all:
            items = [self._item(index, seed_all) for index in block.indices]
            seed_all(stable_seed(self.seed, "collate", block.block))
            return _collate(items, self.collate_fn)

    def _item(self, index: int, seed_all: Callable[[int], None]) -> Any:
        seed_all(stable_seed(self.seed, "image", index))
        with explained(f"kornia_lightning_probe was reading image {index} of the probe's dataset"):
            return self.dataset[index]


@dataclass(frozen=True)
class ItemsFromFront:
    """The first items of an iterable dataset, as one batch; no batch where it has none.

    Args:
        dataset: gives one image after another.
        collate_fn: joins them.
        seed: with its position it makes the seed of an item.
        images_at_once: how many to read; `math.inf` reads to the end.
    """

    dataset: Any
    collate_fn: Collate
    seed: int
    images_at_once: float

    def __iter__(self) -> Iterator[Any]:
        batches = []
        with isolated_streams([self.dataset, self.collate_fn]) as seed_all:
            items = self._items(seed_all)
            seed_all(stable_seed(self.seed, "collate", 0))
            if items:
                batches.append(_collate(items, self.collate_fn))
        yield from batches

    def _items(self, seed_all: Callable[[int], None]) -> list[Any]:
        seed_all(stable_seed(self.seed, "image", 0))
        source = iter(self.dataset)
        items: list[Any] = []
        while len(items) < self.images_at_once:
            seed_all(stable_seed(self.seed, "image", len(items)))
            item = _next_of(source, f"item {len(items)}")
            if item is _END:
                break
            items.append(item)
        return items


@dataclass(frozen=True)
class BatchesFromFront:
    """The batches that a source gives by itself, one after another.

    Args:
        dataset: an iterable of batches, or a dataset whose items are batches.
        collate_fn: makes tensors of what a batch holds.
        seed: with its position it makes the seed of a batch.
        rows: how many indices at once the dataset wants; None where it wants one, or none.
        images_at_once: the batches are the source's own.
    """

    dataset: Any
    collate_fn: Collate
    seed: int
    rows: int | None = None
    images_at_once: float = 1

    def __iter__(self) -> Iterator[Any]:
        source: Iterator[Any] | None = None
        for position in count():
            with isolated_streams([self.dataset, self.collate_fn]) as seed_all:
                seed_all(stable_seed(self.seed, "image", position))
                if source is None:
                    source = self._open()
                batch = _next_of(source, f"batch {position}")
                if batch is _END:
                    return
                batch = self.collate_fn(batch)
            yield batch

    def _open(self) -> Iterator[Any]:
        if isinstance(self.dataset, IterableDataset) or not hasattr(self.dataset, "__getitem__"):
            return iter(self.dataset)
        indices = range(len(self.dataset))
        if self.rows is None:
            return (self.dataset[index] for index in indices)
        starts = indices[:: self.rows]
        return (self.dataset[list(indices[start : start + self.rows])] for start in starts)


@contextmanager
def explained(note: str) -> Iterator[None]:
    """Add a note of ours to whatever is raised inside."""
    try:
        yield
    except Exception as error:
        error.add_note(note)
        raise


def _next_of(source: Iterator[Any], what: str) -> Any:
    with explained(f"kornia_lightning_probe was reading {what} from the front of the probe's dataset"):
        return next(source, _END)


def _collate(items: list[Any], collate_fn: Collate) -> Any:
    hint = (
        f"kornia_lightning_probe was collating {len(items)} probe images, the first being {describe(items[0])}; "
        "images must be tensors of one size here: convert and resize them in the dataset, or pass a DataLoader with a "
        "collate_fn that can join them"
    )
    with explained(hint):
        return collate_fn(items)
