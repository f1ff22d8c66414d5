import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, SequentialSampler, TensorDataset

from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.images.sources import has_no_indices, read_first


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
    def __init__(self, total=10, *, noisy=False):
        self.total = total
        self.noisy = noisy

    def __iter__(self):
        for index in range(self.total):
            yield torch.full((1, 2, 2), float(index)) + (torch.rand(()) if self.noisy else 0), index


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
    assert whole.has_labels


def test_an_empty_stream_is_refused():
    with pytest.raises(ValueError, match="no image in Stream"):
        read_first(Stream(0), 5)
    with pytest.raises(ValueError, match="no image in the DataLoader over Stream"):
        read_first(DataLoader(Stream(0), batch_size=2), 5)


def test_a_loader_gives_dataset_and_collate_fn_but_never_its_sampler():
    class Trap(torch.utils.data.Sampler):
        def __iter__(self):
            raise AssertionError("the sampler was used")

        def __len__(self):
            return 40

    def doubled(items):
        return torch.stack([image for image, _ in items]) * 2

    images = ProbeImages(DataLoader(Numbers(), sampler=Trap(), collate_fn=doubled, batch_size=8), num_images=6)
    assert images.blocks[0].inputs[:, 0, 0, 0].tolist() == [2 * index for index in images.image_ids]


def test_a_collate_fn_of_ones_own_wins():
    images = ProbeImages(DataLoader(Numbers()), num_images=2, collate_fn=lambda items: torch.zeros(len(items), 1, 4, 4))
    assert images.blocks[0].inputs.shape == (2, 1, 4, 4)


def test_a_list_of_images_is_a_dataset():
    images = ProbeImages([torch.full((1, 2, 2), float(index)) for index in range(5)])
    assert images.blocks[0].inputs[:, 0, 0, 0].tolist() == list(images.image_ids)


def test_a_dataset_of_one_tensor_is_found_in_its_tuple():
    assert ProbeImages(TensorDataset(torch.rand(4, 3, 2, 2))).blocks[0].inputs.shape == (4, 3, 2, 2)


def test_an_error_in_the_dataset_names_the_image_and_puts_the_streams_back():
    class Broken(Numbers):
        def __getitem__(self, index):
            torch.rand(3)
            raise OSError("file is gone")

    before = torch.get_rng_state()
    with pytest.raises(OSError, match="file is gone") as caught:
        ProbeImages(Broken())
    assert "was reading image" in caught.value.__notes__[0]
    assert torch.equal(torch.get_rng_state(), before)


def test_images_of_several_sizes_are_refused_with_a_hint():
    with pytest.raises(RuntimeError, match="stack") as caught:
        ProbeImages([torch.rand(3, size, size) for size in (4, 5)])
    assert "tensors of one size" in caught.value.__notes__[0]


def test_a_collate_fn_that_loses_or_adds_rows_is_refused():
    with pytest.raises(ValueError, match=r"4 images were read.*\(8, 3, 2, 2\)"):
        ProbeImages(list(torch.rand(4, 3, 2, 2)), collate_fn=lambda items: torch.stack(items * 2))


@pytest.mark.parametrize("source", [3, object(), Dataset()])
def test_anything_else_is_refused_with_what_is_possible(source):
    with pytest.raises(TypeError, match=r"came as images, expected a \(N, C, H, W\) tensor"):
        ProbeImages(source)


def test_entries_that_disagree_in_number_are_refused():
    with pytest.raises(ValueError, match=r"same number of images.*\(3, 3, 4, 4\).*\(2,\)"):
        ProbeImages({"image": torch.rand(3, 3, 4, 4), "age": torch.rand(2)})


def test_labels_follow_their_images():
    images = ProbeImages(torch.arange(6.0).view(6, 1, 1, 1), labels=[0, 1, 2, 3, 4, 5])
    assert images.blocks[0].labels.tolist() == list(images.image_ids)
    images = ProbeImages(Numbers(6), labels=torch.arange(10, 16))
    assert images.blocks[0].labels.tolist() == [10 + index for index in images.image_ids]


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"int64 \(5,\) came, expected 6 integers"):
        ProbeImages(torch.rand(6, 1, 1, 1), labels=torch.arange(5))


EXPECTED = (
    ", expected 6 integers, one per image, masks (6, H, W) of integers, or targets (6, K) of K > 1 labels for each "
    "image; number the classes, or leave labels= out where the targets are others"
)


@pytest.mark.parametrize(
    ("labels", "came"),
    [
        (["a"] * 6, "a list of str, str, str, str, ... came ("),
        ([None] * 6, "a list of NoneType, NoneType, NoneType, NoneType, ... came ("),
        ([[0], [1, 2]], "a list of a list of int, a list of int, int came ("),
        ("cat", "str came ("),
        ({"label": 0}, "a dict of 'label': int came ("),
        ([2**70] * 6, "a list of int, int, int, int, ... came ("),
        (3, "int64 () came"),
        ([0.5] * 6, "float32 (6,) came"),
        ([[1]] * 6, "int64 (6, 1) came"),
        ([[0, 1]] * 5, "int64 (5, 2) came"),
        (torch.zeros(6, 2, 2), "float32 (6, 2, 2) came"),
        (torch.zeros(6, 1, 2, 2, dtype=torch.long), "int64 (6, 1, 2, 2) came"),
    ],
    ids=["texts", "nothing", "ragged", "one text", "dict", "too large", "one", "floats", "column", "few", "maps", "4D"],
)
def test_what_is_no_labels_is_refused_with_what_came_and_what_is_possible(labels, came):
    with pytest.raises(ValueError, match=r"^labels: ") as caught:
        ProbeImages(torch.rand(6, 1, 1, 1), labels=labels)
    assert str(caught.value).startswith(f"labels: {came}")
    assert str(caught.value).endswith(EXPECTED)


@pytest.mark.parametrize("source", [torch.rand(6, 1, 2, 2), Numbers(6), Stream(6)], ids=["tensor", "dataset", "stream"])
def test_targets_of_several_labels_take_the_place_of_labels(source):
    images = ProbeImages(source, labels=torch.eye(6)[:, :3])
    assert (images.other_targets, images.has_labels, images.labels_given) == ("float32 (6, 3)", False, True)


@pytest.mark.parametrize(("labels", "given"), [(None, False), (range(6), True)])
@pytest.mark.parametrize("source", [Numbers(6), Stream(6)], ids=["dataset", "stream"])
def test_labels_that_came_along_are_told_from_those_that_were_given(source, labels, given):
    images = ProbeImages(source, labels=labels)
    assert (images.labels_given, images.has_labels, images.other_targets) == (given, True, "")
