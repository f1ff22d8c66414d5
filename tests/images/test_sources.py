import pytest
import torch
from support.datasets import Numbers, Stream
from torch.utils.data import DataLoader, Dataset, TensorDataset

from kornia_lightning_probe.images.probe_images import ProbeImages


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
    images = ProbeImages(torch.arange(6.0).view(6, 1, 1, 1), labels=[[0], [1], [2], [3], [4], [5]])
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
        ([[0, 1]] * 5, "int64 (5, 2) came"),
        (torch.full((6, 2, 2), 0.5), "float32 (6, 2, 2) came"),
        (torch.zeros(6, 3, 2, 2, dtype=torch.long), "int64 (6, 3, 2, 2) came"),
    ],
    ids=["texts", "nothing", "ragged", "one text", "dict", "too large", "one", "floats", "few", "maps", "4D"],
)
def test_what_is_no_labels_is_refused_with_what_came_and_what_is_possible(labels, came):
    with pytest.raises(ValueError, match=r"^labels: ") as caught:
        ProbeImages(torch.rand(6, 1, 1, 1), labels=labels)
    assert str(caught.value).startswith(f"labels: {came}")
    assert str(caught.value).endswith(EXPECTED)


@pytest.mark.parametrize("source", [torch.rand(6, 1, 2, 2), Numbers(6), Stream(6)], ids=["tensor", "dataset", "stream"])
def test_targets_of_several_labels_take_the_place_of_labels(source):
    images = ProbeImages(source, labels=torch.eye(6)[:, :3])
    assert (images.other_targets, images.scout.labels is not None, images.labels_given) == (
        "float32 (6, 3)",
        False,
        True,
    )


@pytest.mark.parametrize(("labels", "given"), [(None, False), (range(6), True)])
@pytest.mark.parametrize("source", [Numbers(6), Stream(6)], ids=["dataset", "stream"])
def test_labels_that_came_along_are_told_from_those_that_were_given(source, labels, given):
    images = ProbeImages(source, labels=labels)
    assert (images.labels_given, images.scout.labels is not None, images.other_targets) == (given, True, "")
