# ruff: noqa: S311, NPY002 - global and legacy streams are what is tested

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from kornia_lightning_probe.images.probe_images import ProbeImages

COUNTED = torch.arange(80.0).view(80, 1, 1, 1)


class Noisy(Dataset):
    """Draws from all three global streams and from one of its own."""

    def __init__(self):
        self.own = np.random.default_rng(3)

    def __len__(self):
        return 90

    def __getitem__(self, index):
        noise = torch.rand(2, 4, 4) + random.random() + np.random.rand() + self.own.random()
        return {"image": noise + index, "label": index % 10}


def values(images):
    return {position: value for block in images.blocks for position, value in zip(block.ids, block.inputs, strict=True)}


@pytest.mark.parametrize("num_images", [1, 2, 4, 31, 33, 80])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_the_ranks_hold_together_what_one_holds(num_images, world_size):
    whole = ProbeImages(Noisy(), num_images=num_images)
    shares = [
        ProbeImages(Noisy(), num_images=num_images, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    merged = [values(share) for share in shares]
    assert sum(len(share) for share in merged) == num_images
    together = {position: value for share in merged for position, value in share.items()}
    assert all(torch.equal(together[position], value) for position, value in values(whole).items())
    assert sum(share.fingerprints for share in shares).equal(whole.fingerprints)
    assert all(torch.equal(share.scout.inputs, whole.scout.inputs) for share in shares)
    assert all(share.image_ids == whole.image_ids for share in shares)


def test_block_b_belongs_to_rank_b_modulo_the_world():
    images = ProbeImages(COUNTED.repeat(3, 1, 1, 1), rank=1, world_size=3)
    assert images.num_blocks == 8
    assert [block.index for block in images.blocks] == [1, 4, 7]
    assert [block.ids for block in images.blocks] == images.deal[1::3]


def test_only_owned_blocks_and_the_scout_are_read():
    read = []

    class Counting(Noisy):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    images = ProbeImages(Counting(), num_images=80, rank=2, world_size=3)
    assert read == [images.image_ids[position] for block in (images.scout, *images.blocks) for position in block.ids]


def test_an_idle_rank_holds_the_scout_only():
    images = ProbeImages(COUNTED[:4], rank=1, world_size=2)
    assert images.blocks == []
    assert len(images.scout) == 4
    assert images.fingerprints.tolist() == [0, 0, 0, 0]


def test_reading_moves_no_stream():
    dataset = Noisy()
    own = dataset.own.bit_generator.state
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    ProbeImages(DataLoader(dataset, shuffle=True), num_images=40)
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])
    assert dataset.own.bit_generator.state == own


def test_random_transforms_give_the_same_images_whatever_was_drawn_before():
    dataset = Noisy()
    first = ProbeImages(dataset, num_images=40)
    torch.rand(5), random.random(), np.random.rand(), dataset.own.random()
    second = ProbeImages(dataset, num_images=40)
    assert torch.equal(first.fingerprints, second.fingerprints)


def test_an_image_is_read_alike_in_any_block():
    # Block size changes the neighbours of an image, not the image.
    small, large = (ProbeImages(Noisy(), num_images=40, block_size=size) for size in (8, 32))
    assert torch.equal(small.fingerprints, large.fingerprints)


def test_a_smaller_choice_is_the_front_of_a_larger_one():
    small, large = (ProbeImages(COUNTED, num_images=n) for n in (10, 60))
    assert large.image_ids[:10] == small.image_ids
    assert ProbeImages(COUNTED, num_images=10, seed=1).image_ids != small.image_ids


def test_a_set_sorted_by_class_is_mixed():
    labels = torch.arange(320) // 32
    images = ProbeImages(torch.rand(320, 1, 2, 2), labels=labels)
    # Unmixed, each block of 32 would hold one class of the ten.
    assert all(len(block.labels.unique()) >= 7 for block in images.blocks)
    assert sorted(images.image_ids) == list(range(320))


def test_table_positions_point_at_the_sources_images():
    images = ProbeImages(COUNTED, num_images=70)
    assert all(value.item() == images.image_ids[position] for position, value in values(images).items())


def test_labels_and_images_of_dict_batches_are_found():
    images = ProbeImages(Noisy(), num_images=6)
    assert images.scout.labels is not None
    assert images.image_keys == ()
    assert images.scout.labels.tolist() == [index % 10 for index in images.image_ids]


def test_dict_inputs_keep_their_other_entries():
    inputs = {"image": COUNTED[:4], "age": torch.arange(4), "scale": 2.0}
    images = ProbeImages(inputs)
    (block,) = images.blocks
    assert images.image_keys == ("image",)
    assert block.inputs["age"].tolist() == list(images.image_ids)
    replaced = block.with_images([block.images[0] + 1])
    assert torch.equal(replaced["image"], block.inputs["image"] + 1)
    assert replaced["scale"] == 2.0
    assert block.rows(1, 3, inputs=replaced)["age"].tolist() == list(images.image_ids[1:3])
    assert block.rows(0, 1)["image"].shape == (1, 1, 1, 1)


def test_named_entries_are_the_images_of_tuple_inputs():
    images = ProbeImages((COUNTED, COUNTED + 100), image_keys=[1, 0])
    right, left = images.scout.images
    assert torch.equal(right, left + 100)


def test_to_inputs_gives_the_model_what_it_wants_and_labels_are_still_found():
    images = ProbeImages(Noisy(), num_images=4, to_inputs=lambda batch: {"pixels": batch["image"], "text": "a cat"})
    assert images.image_keys == ("pixels",)
    assert images.scout.labels is not None


def test_one_image_is_one_block():
    images = ProbeImages(torch.rand(3, 8, 8))
    assert len(images) == 1
    assert images.scout.inputs.shape == (1, 3, 8, 8)


def test_blocks_are_plain_copies_without_graph_or_inference_mode():
    source = COUNTED.clone().requires_grad_()
    with torch.inference_mode():
        images = ProbeImages(source)
    assert not images.scout.inputs.is_inference()
    assert not images.scout.inputs.requires_grad
    before = images.scout.inputs.clone()
    source.data.zero_()
    assert torch.equal(images.scout.inputs, before)


def test_the_content_hash_by_number_notices_pixels_and_numbers_and_not_the_order():
    changed = COUNTED.clone()
    changed[7] += 1e-3
    shuffled = ProbeImages(COUNTED, seed=1)
    sets = [ProbeImages(COUNTED), shuffled, ProbeImages(changed), ProbeImages(COUNTED.flip(0))]
    hashes = [images.content_hash_by_number(images.fingerprints) for images in sets]
    assert shuffled.image_ids != sets[0].image_ids
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3
    assert hashes[0] == shuffled.content_hash_by_number(shuffled.fingerprints.double())


def test_fewer_images_than_asked_are_used_and_counted():
    images = ProbeImages(COUNTED, num_images=256)
    assert images.num_images == 80
    assert images.notes == ["256 images were asked for and 80 exist: all 80 are used"]
    assert ProbeImages(COUNTED, num_images=80).notes == []


@pytest.mark.parametrize("source", [torch.rand(0, 3, 4, 4), [], DataLoader([], batch_size=2)])
def test_zero_images_are_refused(source):
    with pytest.raises(ValueError, match="no images to probe"):
        ProbeImages(source)


def test_uint8_images_are_refused_with_the_conversion():
    with pytest.raises(ValueError, match=r"uint8.*float\(\) / 255"):
        ProbeImages([torch.zeros(3, 4, 4, dtype=torch.uint8)] * 3)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_images": 0}, "num_images=0: at least 1"),
        ({"block_size": 1}, "block_size=1: a block needs at least 2"),
        ({"rank": 2, "world_size": 2}, "rank=2 is not below world_size=2"),
    ],
)
def test_impossible_numbers_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        ProbeImages(COUNTED, **options)
