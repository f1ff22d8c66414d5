import pickle

import pytest
import torch
from support.datasets import Marked, Numbers
from torch.utils.data import default_collate

from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.images.reading import BlocksByIndex, Numbered


def test_what_a_worker_is_sent_reads_the_same_there():
    batches = BlocksByIndex(Marked(), default_collate, 5, [Numbered(0, [3, 1]), Numbered(1, [2])])
    sent = pickle.loads(pickle.dumps(batches))  # noqa: S301 - our own bytes
    for (here, _), (there, _) in zip(batches, sent, strict=True):
        assert torch.equal(here, there)


def test_between_two_batches_the_streams_are_as_they_were():
    before = torch.get_rng_state()
    for _ in BlocksByIndex(Marked(), default_collate, 5, [Numbered(0, [3]), Numbered(1, [2])]):
        assert torch.equal(torch.get_rng_state(), before)


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
