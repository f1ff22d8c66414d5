import pytest
import torch
from support.datasets import Numbers, Stream
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, SequentialSampler

from kornia_lightning_probe.images.first_images import has_no_indices, read_first
from kornia_lightning_probe.images.probe_images import ProbeImages


class Batches(Dataset):
    """Item i is a batch of four images."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return torch.arange(4.0).view(4, 1, 1, 1) + 4 * index, torch.arange(4) + 4 * index


class ByList(Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, indices):
        return torch.tensor(indices, dtype=torch.float32).view(-1, 1, 1, 1)


@pytest.mark.parametrize(
    "source",
    [
        Stream(),
        DataLoader(Stream(), batch_size=3),
        DataLoader(Batches(), batch_size=None),
        DataLoader(ByList(), sampler=BatchSampler(SequentialSampler(range(10)), 4, drop_last=False), batch_size=None),
        (batch for batch in DataLoader(Numbers(), batch_size=3)),
        DataLoader([torch.rand(5, 1, 2, 2)], batch_size=None),
    ],
)
def test_a_source_without_indices_is_read_from_the_front_and_says_so(source):
    assert has_no_indices(source)
    images = ProbeImages(source, num_images=5)
    assert sorted(images.image_ids) == [0, 1, 2, 3, 4]
    assert "depends on its order" in images.notes[0]
    (block,) = images.blocks
    if block.images[0].max() > 1:
        assert block.images[0][:, 0, 0, 0].tolist() == list(images.image_ids)


@pytest.mark.parametrize(
    "source", [DataLoader(Batches(), batch_size=None), iter([Batches()[0], Batches()[1]]), Stream()]
)
def test_labels_come_along_from_the_front(source):
    first = read_first(source, 6)
    assert first.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert len(first.inputs) == 6


def test_an_unbatched_iterable_loader_hands_over_its_batches():
    class BatchStream(IterableDataset):
        def __iter__(self):
            yield from (Batches()[index] for index in range(3))

    first = read_first(DataLoader(BatchStream(), batch_size=None))
    assert first.inputs.flatten().tolist() == list(range(12))


def test_an_infinite_stream_is_read_as_far_as_asked():
    class Forever(IterableDataset):
        def __iter__(self):
            while True:
                yield torch.rand(3, 4, 4)

    assert len(read_first(Forever(), 7).inputs) == 7


def test_a_shorter_stream_is_used_up_and_says_how_many():
    images = ProbeImages(Stream(10), num_images=64)
    assert images.num_images == 10
    assert "64 images were asked for and 10 exist" in images.notes[1]


def test_a_random_stream_is_the_same_twice_and_moves_no_stream():
    before = torch.get_rng_state()
    first, second = (read_first(Stream(noisy=True), 5) for _ in range(2))
    assert torch.equal(first.inputs, second.inputs)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_one_rank_has_read_gives_the_blocks_of_any_rank():
    first = read_first(Stream(80), 70)
    whole = ProbeImages(first, num_images=70)
    shares = [ProbeImages(first, num_images=70, rank=rank, world_size=2) for rank in (0, 1)]
    assert sum(share.fingerprints for share in shares).equal(whole.fingerprints)
    assert whole.scout.labels is not None


def test_an_empty_stream_is_refused():
    with pytest.raises(ValueError, match="no image in Stream"):
        read_first(Stream(0), 5)
    with pytest.raises(ValueError, match="no image in the DataLoader over Stream"):
        read_first(DataLoader(Stream(0), batch_size=2), 5)


def test_a_stream_that_shuffles_as_it_is_opened_is_the_same_twice():
    class Shuffling(IterableDataset):
        def __iter__(self):
            return iter(torch.randperm(50).view(50, 1, 1, 1).float())

    first, second = (read_first(Shuffling(), 5) for _ in range(2))
    assert torch.equal(first.inputs, second.inputs)


def test_an_error_on_the_way_names_the_item_and_puts_the_streams_back():
    class Broken(IterableDataset):
        def __iter__(self):
            yield torch.rand(1, 2, 2)
            raise OSError("file is gone")

    before = torch.get_rng_state()
    with pytest.raises(OSError, match="file is gone") as caught:
        read_first(DataLoader(Broken()), 5)
    assert "was reading item 1 from the front" in caught.value.__notes__[0]
    with pytest.raises(OSError, match="file is gone") as caught:
        read_first(DataLoader(Broken(), batch_size=None), 5, to_inputs=lambda batch: batch[None])
    assert "was reading batch 1 from the front" in caught.value.__notes__[0]
    assert torch.equal(torch.get_rng_state(), before)


def test_a_to_inputs_that_draws_moves_no_stream_and_draws_the_same_twice():
    def noisy(batch):
        return batch[0] + torch.rand(())

    before = torch.get_rng_state()
    for source in (Stream(), Numbers()):
        first, second = (ProbeImages(source, num_images=4, to_inputs=noisy) for _ in range(2))
        assert torch.equal(first.scout.inputs, second.scout.inputs)
    assert torch.equal(torch.get_rng_state(), before)
