from itertools import product

import pytest
import torch

from kornia_lightning_probe.images.blocks import Block, deal_blocks

IMAGES = torch.arange(4.0).view(4, 1, 1, 1)


@pytest.mark.parametrize(
    ("num_images", "sizes"), [(1, [1]), (2, [2]), (4, [4]), (31, [31]), (33, [17, 16]), (80, [27, 27, 26])]
)
def test_blocks_are_of_nearly_equal_size_and_cover_every_image(num_images, sizes):
    blocks = deal_blocks(num_images)
    assert [len(block) for block in blocks] == sizes
    assert [position for block in blocks for position in block] == list(range(num_images))


def test_no_block_is_of_one_image():
    for size, num_images in product(range(2, 9), range(2, 70)):
        assert min(map(len, deal_blocks(num_images, size))) > 1


def test_a_block_moves_with_everything_it_holds():
    inputs = {"image": IMAGES, "scale": 2.0}
    block = Block(0, range(4), inputs, torch.arange(4), ("image",)).to("meta")
    assert block.inputs["image"].is_meta
    assert block.inputs["scale"] == 2.0
    assert block.labels.is_meta
    assert block.ids == range(4)


def test_the_first_images_of_a_block_keep_their_labels_and_numbers():
    block = Block(1, range(10, 14), (IMAGES, "text"), torch.tensor([3, 2, 1, 0]), (0,))
    first = block.first(2)
    assert first.images[0].flatten().tolist() == [0, 1]
    assert first.labels.tolist() == [3, 2]
    assert (first.index, first.ids, first.inputs[1]) == (1, range(10, 12), "text")
    assert block.first(4) is block


def test_other_images_take_the_place_of_a_blocks_and_rows_are_taken_of_them():
    block = Block(0, range(4), {"image": IMAGES, "age": torch.arange(4)}, image_keys=("image",))
    inputs = block.with_images([IMAGES + 10])
    assert block.rows(1, 3, inputs=inputs)["image"].flatten().tolist() == [11, 12]
    assert block.rows(1, 3)["image"].flatten().tolist() == [1, 2]
    assert block.rows(1, 3)["age"].tolist() == [1, 2]
