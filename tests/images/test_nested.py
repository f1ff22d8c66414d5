from collections import namedtuple

import pytest
import torch

from kornia_lightning_probe.images.nested import join_rows, map_tensors, replace_images, take_rows

IMAGES = torch.rand(4, 3, 8, 8)
CLASSES = torch.tensor([3, 1, 2, 0])


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
