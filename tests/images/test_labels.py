import pytest
import torch
from torch.utils.data import TensorDataset

from kornia_lightning_probe.images.labels import Targets
from kornia_lightning_probe.images.probe_images import ProbeImages

MASKS = torch.tensor([[[0, 1], [255, -100]]])


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([torch.tensor([0, 4]), torch.tensor([9, 2])], Targets((), 0, 9)),
        # 255 is a class of images, and none in masks; -100 is none anywhere.
        ([torch.tensor([0, 255, -100])], Targets((), 0, 255)),
        ([MASKS], Targets((2, 2), 0, 1)),
        ([torch.full((1, 2, 2), 255)], Targets((2, 2), 0, -1)),
        ([torch.tensor([-1, 1])], Targets((), -1, 1)),
        ([None, None], Targets()),
    ],
    ids=str,
)
def test_labels_say_their_shape_and_their_range(labels, expected):
    assert Targets.of(labels) == expected


def test_labels_are_binary_where_all_are_0_and_1():
    assert Targets((), 0, 1).are_binary
    assert Targets((2, 2), 0, 0).are_binary
    assert not Targets((), -1, 1).are_binary
    assert not Targets((), 0, 2).are_binary
    assert not Targets((), 0, -1).are_binary
    assert not Targets().are_binary


def test_those_of_several_processes_are_joined_and_travel_as_text():
    parts = [Targets((), 0, 3), Targets((), -1, 7), Targets(), Targets(others="float32 (4, 2)")]
    joined = Targets.joined(Targets.from_text(part.to_text()) for part in parts)
    assert joined == Targets((), -1, 7, "float32 (4, 2)")
    assert Targets.from_text(Targets((8, 9), 0, 1).to_text()) == Targets((8, 9), 0, 1)


def test_images_know_what_they_are_labelled_with():
    images = torch.zeros(40, 3, 4, 4)
    assert ProbeImages(TensorDataset(images, torch.arange(40))).targets == Targets((), 0, 39)
    assert ProbeImages(images).targets == Targets()


def test_floats_are_labels_where_all_of_them_are_0_and_1():
    images = torch.zeros(40, 3, 4, 4)
    binary = (torch.arange(40) % 2).float()
    assert ProbeImages(TensorDataset(images, binary)).targets == Targets((), 0, 1)
    # One number among them, in whatever block, and they are targets of another kind.
    for place in (0, 39):
        others = binary.clone()
        others[place] = 0.5
        probe_images = ProbeImages(TensorDataset(images, others))
        assert probe_images.targets.shape is None
        assert probe_images.targets.others.startswith("float32")
        assert all(block.labels is None for block in probe_images.blocks)
