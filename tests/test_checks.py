"""Arguments of the wrong type are refused where they are given."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from kornia_lightning_probe import AugmentationBank, ProbeImages, probe_model
from kornia_lightning_probe.checks import whole_number

IMAGES = torch.rand(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))
BANK = AugmentationBank({"half": lambda images: images / 2})


def test_integers_of_any_kind_are_whole_numbers():
    assert [whole_number("seed", value) for value in (3, np.int64(3), torch.tensor(3))] == [3, 3, 3]


@pytest.mark.parametrize("value", ["3", 3.0, None, True, [3]])
def test_what_is_no_integer_is_refused(value):
    with pytest.raises(TypeError, match=r"^seed must be an integer, got "):
        whole_number("seed", value)


def test_what_is_too_small_is_refused():
    with pytest.raises(ValueError, match=r"^batch_size must be at least 1, got 0$"):
        whole_number("batch_size", 0, least=1)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch_size": "a"}, "batch_size must be an integer, got 'a'"),
        ({"batch_size": 2.5}, r"batch_size must be an integer, got 2\.5"),
        ({"seed": "x"}, "seed must be an integer, got 'x'"),
        ({"embedding": 3}, "embedding must be a layer's name, got 3"),
    ],
)
def test_probe_model_says_which_argument_is_wrong(options, text):
    with pytest.raises(TypeError, match=f"^{text}$"):
        probe_model(nn.Flatten(), IMAGES, BANK, **options)


@pytest.mark.parametrize("option", ["num_images", "seed", "block_size"])
def test_probe_images_do_so_too(option):
    with pytest.raises(TypeError, match=f"^{option} must be an integer, got 'a'$"):
        ProbeImages(IMAGES, **{option: "a"})
