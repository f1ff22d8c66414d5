from collections import namedtuple

import pytest
import torch

from kornia_lightning_probe.images.batches import (
    describe,
    find_image_keys,
    find_inputs,
    find_labels,
)

IMAGES = torch.rand(4, 3, 8, 8)
CLASSES = torch.tensor([3, 1, 2, 0])


@pytest.mark.parametrize(
    "batch",
    [
        IMAGES,
        [IMAGES],
        (IMAGES, CLASSES),
        namedtuple("Sample", "picture number")(IMAGES, CLASSES),
        {"image": IMAGES},
        {"images": IMAGES, "y": CLASSES},
        {"input_ids": CLASSES, "pixel_values": IMAGES},
        {"id": ["a"], "x": IMAGES},
        {"input": IMAGES},
    ],
)
def test_the_image_is_found_in_the_usual_batches(batch):
    assert find_inputs(batch) is IMAGES


def test_a_dict_as_first_entry_is_the_models_input():
    inputs = {"image": IMAGES, "mask": IMAGES[:, :1]}
    assert find_inputs([inputs, CLASSES]) is inputs


@pytest.mark.parametrize("to_inputs", ["left", lambda batch: batch["left"]])
def test_to_inputs_overrides_the_search(to_inputs):
    assert find_inputs({"image": None, "left": IMAGES}, to_inputs) is IMAGES


def test_to_inputs_may_be_an_index_and_a_list_becomes_a_tuple():
    assert find_inputs([CLASSES, IMAGES], 1) is IMAGES
    assert isinstance(find_inputs([[IMAGES, IMAGES]], 0), tuple)


def test_a_dict_without_an_image_is_refused_with_its_keys_and_to_inputs():
    with pytest.raises(ValueError, match=r"'left': float32 \(4, 3, 8, 8\), 'right': int64 \(4,\).*to_inputs"):
        find_inputs({"left": IMAGES, "right": CLASSES})


@pytest.mark.parametrize("batch", ["text", ["text"], [], None, 3.0])
def test_a_batch_of_anything_else_is_refused(batch):
    with pytest.raises(ValueError, match="No image was found in the batch"):
        find_inputs(batch)


def test_a_list_of_views_is_refused_with_the_lambda_that_chooses_one():
    with pytest.raises(ValueError, match=r"list of 2 views.*to_inputs=lambda batch: batch\[0\]\[0\]"):
        find_inputs([[IMAGES, IMAGES], CLASSES])


@pytest.mark.parametrize("to_inputs", ["missing", 7])
def test_to_inputs_that_is_not_in_the_batch_says_what_is(to_inputs):
    with pytest.raises(ValueError, match=r"to_inputs=.*image"):
        find_inputs({"image": IMAGES}, to_inputs)
    with pytest.raises(ValueError, match=r"to_inputs=.*float32"):
        find_inputs([IMAGES], to_inputs)


@pytest.mark.parametrize("batch", [(IMAGES, CLASSES), {"target": CLASSES}, {"label": "text", "y": CLASSES}])
def test_labels_are_integers_beside_the_image(batch):
    assert find_labels(batch, 4) is CLASSES


def test_a_mask_of_integers_is_a_label():
    mask = torch.zeros(4, 8, 8, dtype=torch.int32)
    assert find_labels((IMAGES, mask), 4) is mask


def test_a_column_of_labels_or_of_masks_loses_its_axis_of_one():
    column = CLASSES.view(4, 1)
    assert torch.equal(find_labels((IMAGES, column), 4), CLASSES)
    masks = torch.arange(4 * 64).view(4, 1, 8, 8)
    assert torch.equal(find_labels({"target": masks}, 4), masks[:, 0])
    assert find_labels((IMAGES, column.float()), 4) is None


@pytest.mark.parametrize(
    "batch",
    [IMAGES, (IMAGES,), (IMAGES, CLASSES.float()), (IMAGES, CLASSES > 1), (IMAGES, CLASSES[:3]), (IMAGES, "text")],
)
def test_anything_else_is_no_label(batch):
    assert find_labels(batch, 4) is None


def test_the_only_float_entry_with_four_dimensions_is_the_image():
    assert find_image_keys(IMAGES) == ()
    assert find_image_keys({"image": IMAGES, "mask": IMAGES > 0, "age": torch.rand(4)}) == ("image",)
    assert find_image_keys((CLASSES, IMAGES)) == (1,)


def test_named_image_entries_are_taken_in_the_given_order():
    assert find_image_keys({"left": IMAGES, "right": IMAGES}, ["right", "left"]) == ("right", "left")
    assert find_image_keys((IMAGES, IMAGES), 1) == (1,)


def test_several_possible_images_are_refused_by_name():
    with pytest.raises(ValueError, match=r"'left', 'right'.*image_keys="):
        find_image_keys({"left": IMAGES, "right": IMAGES})


def test_inputs_without_an_image_are_refused():
    with pytest.raises(ValueError, match=r"No entry is a float tensor.*'age': float32 \(4,\)"):
        find_image_keys({"age": torch.rand(4)})


def test_an_image_key_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(ValueError, match=r"image_keys='left'.*'image'"):
        find_image_keys({"image": IMAGES}, "left")
    with pytest.raises(ValueError, match="one tensor"):
        find_image_keys(IMAGES, "image")


@pytest.mark.parametrize("inputs", [IMAGES.byte(), {"image": IMAGES.byte()}])
def test_uint8_is_refused_with_the_conversion(inputs):
    with pytest.raises(ValueError, match=r"uint8.*images.float\(\) / 255"):
        find_image_keys(inputs)


def test_grey_images_without_a_channel_are_refused_with_the_way_to_add_it():
    with pytest.raises(ValueError, match=r"float32 \(4, 8, 8\).*unsqueeze\(1\)"):
        find_image_keys(IMAGES[:, 0])
    with pytest.raises(ValueError, match=r"'age': float32 \(4,\)"):
        find_image_keys({"image": IMAGES, "age": torch.rand(4)}, "age")


def test_long_lists_and_empty_things_are_described_shortly():
    assert describe([1, 2, 3, 4, 5]) == "a list of int, int, int, int, ..."
    assert describe({}) == "a dict of nothing"
    assert describe(()) == "a tuple of nothing"
