"""Datasets on disk that open their file at first use, the usual advice for workers, and others that leave traces."""

import random
import zipfile

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset

SHAPE = (3, 8, 8)
BYTES = 3 * 8 * 8


def pixels_of(count=64, *, seed=0):
    """Images (count, 3, 8, 8) of bytes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, *SHAPE), generator=generator, dtype=torch.uint8)


def write_raw(path, pixels):
    """One file of all pixels."""
    path.write_bytes(pixels.numpy().tobytes())
    return path


def write_zip(path, pixels):
    """A zip with a file for each image."""
    with zipfile.ZipFile(path, "w") as archive:
        for index, image in enumerate(pixels):
            archive.writestr(f"{index}.raw", image.numpy().tobytes())
    return path


def image_of(content):
    """An image in [0, 1] of its bytes."""
    pixels = np.frombuffer(content, dtype=np.uint8).copy()
    return torch.from_numpy(pixels).view(SHAPE) / 255


class Numbers(Dataset):
    """Image i is filled with i; its label is i."""

    def __init__(self, total=40):
        self.total = total

    def __len__(self):
        return self.total

    def __getitem__(self, index):
        if not 0 <= index < self.total:
            raise IndexError(index)
        return torch.full((1, 2, 2), float(index)), index


class Stream(IterableDataset):
    """The same as a stream, under noise where asked."""

    def __init__(self, total=10, *, noisy=False):
        self.total = total
        self.noisy = noisy

    def __iter__(self):
        for index in range(self.total):
            yield torch.full((1, 2, 2), float(index)) + (torch.rand(()) if self.noisy else 0), index


class LazyRaw(Dataset):
    """Images in one file, which is opened at first use and read in two steps."""

    def __init__(self, path, count=64):
        self.path = path
        self.count = count
        self.file = None

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if self.file is None:
            # Without a buffer, so that processes which share the file's offset are sure to be seen.
            self.file = self.path.open("rb", buffering=0)
        self.file.seek(index * BYTES)
        content = b"".join(self.file.read(1) for _ in range(BYTES))
        return image_of(content), index % 2

    def __del__(self):
        if self.file is not None:
            self.file.close()


class DuckTyped:
    """Such images in a dataset that is of no class of PyTorch's."""

    def __init__(self, path):
        self.raw = LazyRaw(path)

    def __len__(self):
        return len(self.raw)

    def __getitem__(self, index):
        return self.raw[index]


class LazyZip(Dataset):
    """Images in a zip, which is opened at first use."""

    def __init__(self, path, count=64):
        self.path = path
        self.count = count
        self.archive = None

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if self.archive is None:
            self.archive = zipfile.ZipFile(self.path)
        return image_of(self.archive.read(f"{index}.raw")), index % 2

    def __del__(self):
        if self.archive is not None:
            self.archive.close()


class LazyStream(IterableDataset):
    """The same as a stream."""

    def __init__(self, indexed):
        self.indexed = indexed
        self.passes = 0

    def __iter__(self):
        self.passes += 1
        yield from (self.indexed[index] for index in range(len(self.indexed)))


class Marked(Dataset):
    """Counts, caches, and draws from all streams and from a generator of its own."""

    def __init__(self, count=64):
        self.count = count
        self.calls = 0
        self.cache = {}
        self.own = np.random.default_rng(3)

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.calls += 1
        noise = torch.rand(SHAPE) + random.random() + np.random.rand() + self.own.random()  # noqa: S311, NPY002
        self.cache[index] = noise / 4
        return self.cache[index], index % 2


def traces_of(value):
    """All that can be seen of a dataset's state, as a text."""
    if isinstance(value, Dataset):
        return f"{type(value).__name__}({traces_of(vars(value))})"
    if isinstance(value, dict):
        return repr({key: traces_of(entry) for key, entry in value.items()})
    if isinstance(value, list):
        return repr([traces_of(entry) for entry in value])
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    return repr(value)
