from collections import namedtuple

import pytest
import torch

from kornia_lightning_probe.images.batches import (
    describe,
    find_image_keys,
    find_inputs,
    find_labels,
    join_rows,
    map_tensors,
    replace_images,
    take_rows,
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


def test_rows_are_taken_of_everything_that_has_one_per_image():
    pair = namedtuple("Pair", "first second")
    inputs = {"x": IMAGES, "names": ["a", "b", "c", "d"], "scale": torch.tensor(2.0), "pair": pair(CLASSES, "all")}
    rows = take_rows(inputs, torch.tensor([3, 1]), num_rows=4)
    assert torch.equal(rows["x"], IMAGES[[3, 1]])
    assert rows["names"] == ["d", "b"]
    assert rows["scale"] == 2.0
    assert rows["pair"].first.tolist() == [0, 1]
    assert rows["pair"].second == "all"
    assert take_rows(inputs, slice(1, 3), num_rows=4)["names"] == ["b", "c"]


def test_joined_slices_are_the_whole():
    inputs = (IMAGES, {"names": ["a", "b", "c", "d"], "scale": torch.tensor(2.0)}, "text")
    parts = [take_rows(inputs, slice(start, start + 2), num_rows=4) for start in (0, 2)]
    images, others, text = join_rows(parts)
    assert torch.equal(images, IMAGES)
    assert others == {"names": ["a", "b", "c", "d"], "scale": torch.tensor(2.0)}
    assert text == "text"


def test_tensors_are_mapped_wherever_they_are_nested():
    doubled = map_tensors({"a": [CLASSES], "b": "text"}, lambda tensor: tensor * 2)
    assert doubled["a"][0].tolist() == [6, 2, 4, 0]
    assert doubled["b"] == "text"


def test_images_are_replaced_and_the_inputs_stay_as_they_were():
    pair = namedtuple("Pair", "image age")
    inputs = pair(IMAGES, CLASSES)
    replaced = replace_images(inputs, (0,), [IMAGES + 1])
    assert isinstance(replaced, pair)
    assert torch.equal(replaced.image, IMAGES + 1)
    assert inputs.image is IMAGES
    assert replace_images({"image": IMAGES, "age": CLASSES}, ("image",), [CLASSES])["image"] is CLASSES
    assert replace_images(IMAGES, (), [CLASSES]) is CLASSES


def test_the_number_of_replaced_images_must_fit():
    with pytest.raises(ValueError, match="2 image tensors came for 1 image entries"):
        replace_images(IMAGES, (), [IMAGES, IMAGES])


def test_long_lists_and_empty_things_are_described_shortly():
    assert describe([1, 2, 3, 4, 5]) == "a list of int, int, int, int, ..."
    assert describe({}) == "a dict of nothing"
    assert describe(()) == "a tuple of nothing"
