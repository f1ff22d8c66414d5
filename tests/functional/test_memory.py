import pytest
import torch

from kornia_lightning_probe.functional.memory import Scratch, Temporaries


def test_a_buffer_is_used_again_where_it_is_large_enough():
    scratch = Scratch()
    large = scratch.like(torch.empty(4, 5))
    small = scratch.like(torch.empty(2, 3))
    assert small.data_ptr() == large.data_ptr()
    assert small.shape == (2, 3)


@pytest.mark.parametrize("x", [torch.empty(9, 9), torch.empty(2, 2, dtype=torch.float64), torch.empty(0, 3)])
def test_a_buffer_has_the_shape_and_dtype_asked_for(x):
    scratch = Scratch()
    scratch.like(torch.empty(4, 4))
    assert scratch.like(x).shape == x.shape
    assert scratch.like(x).dtype == x.dtype


def test_each_shape_of_an_image_has_a_buffer_of_its_own():
    temporaries = Temporaries()
    large = temporaries.like(torch.empty(4, 5))
    assert temporaries.like(torch.empty(3, 5)).data_ptr() == large.data_ptr()
    assert temporaries.like(torch.empty(4, 6)).data_ptr() != large.data_ptr()
