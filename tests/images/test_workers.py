"""Reading in a worker process: what arrives, what the worker finds, and that nothing changes on this side."""

import multiprocessing
import os
import random

import numpy as np
import pytest
import torch
from support.datasets import LazyRaw, LazyStream, LazyZip, Marked, pixels_of, traces_of, write_raw, write_zip
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    Subset,
    get_worker_info,
    random_split,
)

from kornia_lightning_probe.images.first_images import read_first
from kornia_lightning_probe.images.probe_images import ProbeImages


def forked(dataset, **options):
    return DataLoader(dataset, **{"batch_size": 8, "num_workers": 2, "multiprocessing_context": "fork"} | options)


def values(images):
    return torch.cat([block.inputs for block in images.blocks])[:, 0, 0, 0].tolist()


def notes_of(error):
    return "\n".join(error.__notes__)


class Told(Dataset):
    """Every pixel of image i is what `tell(i)` says in the process that reads it."""

    def __init__(self, tell, count=6):
        self.tell = tell
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return torch.full((1, 2, 2), float(self.tell(index)))


@pytest.fixture(autouse=True)
def _no_worker_stays():
    before = set(multiprocessing.active_children())
    yield
    assert set(multiprocessing.active_children()) == before


WRAPPERS = {
    "alone": lambda dataset: dataset,
    "subset": lambda dataset: Subset(dataset, range(5, 45)),
    "concat": lambda dataset: ConcatDataset([dataset, dataset]),
    "split": lambda dataset: random_split(dataset, [24, 40], torch.Generator().manual_seed(0))[1],
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize(("kind", "write"), [(LazyRaw, write_raw), (LazyZip, write_zip)])
def test_a_file_that_is_opened_at_first_use_is_not_opened_here(tmp_path, kind, write, wrap):
    dataset = wrap(kind(write(tmp_path / "images", pixels_of())))
    before = traces_of(dataset)
    images = ProbeImages(forked(dataset), num_images=40)
    assert traces_of(dataset) == before
    assert ProbeImages(dataset, num_images=40).fingerprints.equal(images.fingerprints)
    assert traces_of(dataset) != before


def test_images_are_those_that_this_process_reads_and_no_stream_moves():
    dataset, loaders_own = Marked(), torch.Generator().manual_seed(1)
    before = traces_of(dataset)
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    images = ProbeImages(forked(dataset, shuffle=True, generator=loaders_own), num_images=40)
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])
    assert loaders_own.get_state().equal(torch.Generator().manual_seed(1).get_state())
    assert traces_of(dataset) == before
    assert ProbeImages(DataLoader(dataset), num_images=40).fingerprints.equal(images.fingerprints)
    assert [block.labels.tolist() for block in images.blocks] == [
        [images.image_ids[position] % 2 for position in ids] for ids in images.deal
    ]


def test_without_workers_a_loader_reads_in_this_process():
    read = []
    images = ProbeImages(DataLoader(Told(lambda index: read.append(index) or index)))
    assert read == list(images.image_ids)


def test_one_worker_reads_the_scout_and_the_blocks_of_this_rank(tmp_path):
    log = tmp_path / "log"

    def note(index):
        with log.open("a") as lines:
            lines.write(f"{os.getpid()} {index}\n")
        return index

    images = ProbeImages(forked(Told(note, count=80)), rank=2, world_size=3)
    processes, indices = zip(*(map(int, line.split()) for line in log.read_text().splitlines()), strict=True)
    assert len(set(processes) - {os.getpid()}) == len(set(processes)) == 1
    read = [*images.deal[0], *images.deal[2]]
    assert list(indices) == [images.image_ids[position] for position in read]


class Started(Dataset):
    """Every pixel is what its worker was given at its start."""

    given = 0

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return torch.full((1, 2, 2), float(self.given))


def start(worker_id):
    info = get_worker_info()
    info.dataset.given = 100 + 10 * worker_id + info.num_workers


def test_the_worker_is_started_by_the_loaders_function_and_knows_the_loaders_dataset():
    dataset = Started()
    # Worker 0 of 1.
    assert values(ProbeImages(forked(dataset, worker_init_fn=start))) == [101, 101]
    assert dataset.given == 0


class Kind(Dataset):
    """An image says whether its process was spawned."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        kind = type(multiprocessing.current_process()).__name__
        return torch.full((1, 2, 2), float(kind == "SpawnProcess"))


def test_the_worker_is_of_the_loaders_start_method():
    assert values(ProbeImages(forked(Kind()))) == [0, 0]
    assert values(ProbeImages(forked(Kind(), multiprocessing_context="spawn"))) == [1, 1]


def test_a_collate_fn_that_can_not_be_pickled_is_used_where_the_worker_is_forked():
    loader = forked(Told(float), collate_fn=lambda items: torch.stack(items) + 0.5)
    images = ProbeImages(loader)
    assert values(images) == [index + 0.5 for index in images.image_ids]


def test_what_arrives_holds_no_shared_memory():
    assert not ProbeImages(forked(Marked()), num_images=4).scout.inputs.is_shared()


class NoTextError(Exception):
    """Can't be made again from its text, as many exceptions of libraries."""

    def __init__(self, *, code):
        super().__init__(f"code {code}")


def failing(error):
    def fail(index):
        raise error

    return Told(fail)


def test_an_error_of_the_dataset_arrives_as_itself_with_the_image_and_the_place():
    dataset = failing(FileNotFoundError(2, "gone", "a.png"))
    with pytest.raises(FileNotFoundError, match="gone") as caught:
        ProbeImages(forked(dataset))
    assert (caught.value.errno, caught.value.filename) == (2, "a.png")
    first = ProbeImages(torch.rand(6, 1, 2, 2)).image_ids[0]
    notes = notes_of(caught.value)
    assert f"was reading image {first} of the probe's dataset" in notes
    assert "in fail" in notes, "the place in the worker"
    assert "in a worker process, as the DataLoader over Told does (num_workers=2)" in notes


def test_an_error_that_can_not_be_sent_arrives_as_a_text():
    with pytest.raises(RuntimeError, match=r"(?s)NoTextError.*code 7.*was reading image") as caught:
        ProbeImages(forked(failing(NoTextError(code=7))))
    assert "in a worker process" in notes_of(caught.value)


def test_an_error_of_the_loaders_function_says_that_a_worker_was_started():
    def refuse(worker_id):
        raise KeyError("no such disk")

    with pytest.raises(KeyError, match="no such disk") as caught:
        ProbeImages(forked(Marked(), worker_init_fn=refuse))
    assert "in a worker process" in notes_of(caught.value)


def test_a_worker_that_dies_is_told_of():
    with pytest.raises(RuntimeError, match=r"worker.*exited unexpectedly") as caught:
        ProbeImages(forked(Told(os._exit)))
    assert "in a worker process, as the DataLoader over Told does" in notes_of(caught.value)


def test_images_that_are_refused_here_leave_no_worker():
    class Bytes(Marked):
        def __getitem__(self, index):
            return torch.zeros(3, 4, 4, dtype=torch.uint8)

    with pytest.raises(ValueError, match="uint8"):
        ProbeImages(forked(Bytes()))


def test_where_a_process_may_have_no_children_the_error_says_whom_we_wanted_to_start(monkeypatch):
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    with pytest.raises(AssertionError, match="daemonic") as caught:
        ProbeImages(forked(Marked()))
    assert "in a worker process" in notes_of(caught.value)


@pytest.mark.parametrize(
    ("source", "read", "seconds"),
    [
        # 32 images of a block are four of the loader's batches.
        (forked(Marked(), timeout=5), ProbeImages, 20),
        (forked(Marked(), batch_size=64, timeout=5), ProbeImages, 5),
        (forked(Marked()), ProbeImages, 0),
        (forked(LazyStream(Marked()), timeout=5), lambda loader: read_first(loader, 16), 10),
        # Nobody knows how many there are.
        (forked(LazyStream(Marked()), timeout=5), read_first, 0),
    ],
)
def test_the_loaders_timeout_is_for_so_many_of_its_batches(monkeypatch, source, read, seconds):
    make, told = DataLoader.__init__, []

    def spy(self, *args, timeout=0, **options):
        told.append(timeout)
        make(self, *args, timeout=timeout, **options)

    monkeypatch.setattr(DataLoader, "__init__", spy)
    read(source)
    assert told == [seconds]


def test_a_stream_is_read_in_a_worker_as_here():
    stream = LazyStream(Marked())
    before = traces_of(stream)
    first = read_first(forked(stream), 40)
    assert traces_of(stream) == before
    here = read_first(DataLoader(stream, 8), 40)
    assert torch.equal(first.inputs, here.inputs)
    assert first.labels.tolist() == here.labels.tolist()


class Shared(IterableDataset):
    """The usual way to share a stream out among workers."""

    def __iter__(self):
        info = get_worker_info()
        for index in range(info.id, 12, info.num_workers):
            yield torch.full((1, 2, 2), float(index))


def test_a_stream_that_workers_share_is_read_in_its_plain_order_and_says_so():
    first = read_first(forked(Shared()), 8)
    assert first.inputs[:, 0, 0, 0].tolist() == list(range(8))
    assert "read by one worker process" in first.notes[1]
    assert "num_workers=2" in first.notes[1]


def test_an_endless_stream_of_batches_is_left():
    class Endless(IterableDataset):
        def __iter__(self):
            while True:
                yield torch.rand(3, 1, 2, 2)

    assert len(read_first(forked(Endless(), batch_size=None), 7).inputs) == 7


def test_loaders_without_batching_are_read_in_a_worker():
    class ByList(Told):
        def __getitem__(self, indices):
            return torch.tensor([self.tell(index) for index in indices], dtype=torch.float32).view(-1, 1, 1, 1)

    sampler = BatchSampler(SequentialSampler(range(6)), 4, drop_last=False)
    dataset = ByList(lambda index: index + 10 * (get_worker_info() is not None))
    first = read_first(forked(dataset, batch_size=None, sampler=sampler))
    assert first.inputs.flatten().tolist() == [10, 11, 12, 13, 14, 15]
