import math

import pytest
import torch
from torch import nn

from kornia_lightning_probe.functional.grids import grid_to_image, stride_of, unpadded_stride


@pytest.mark.parametrize(("pixels", "cells"), [(8, 4), (8, 8), (224, 7), (30, 4)])
def test_half_pixel_cells_tile_the_image(pixels, cells):
    # The edges of the grid, -1/2 and cells - 1/2, lie on those of the image, -1/2 and pixels - 1/2.
    edges = torch.tensor([[-0.5, -0.5, 1.0], [cells - 0.5, cells - 0.5, 1.0]], dtype=torch.float64).T
    x, y, _ = grid_to_image((pixels, pixels), (cells, cells)) @ edges
    torch.testing.assert_close(x, torch.tensor([-0.5, pixels - 0.5], dtype=torch.float64))
    torch.testing.assert_close(y, x)


def test_each_axis_has_a_scale_of_its_own():
    matrix = grid_to_image((32, 48), (8, 6), phase="corner")
    assert matrix.diagonal().tolist() == [8.0, 4.0, 1.0]
    assert matrix[:2, 2].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("pixels", [9, 12, 28, 33, 64, 225])
@pytest.mark.parametrize("levels", [0, 1, 2, 3])
def test_the_stride_of_a_chain_of_stride_2_convolutions_is_a_power_of_two(pixels, levels):
    cells = pixels
    for _ in range(levels):
        cells = math.ceil(cells / 2)
    assert stride_of(pixels, cells) == 2.0**levels


def test_a_stride_that_is_no_power_of_two_is_the_ratio_of_the_sides():
    assert stride_of(12, 4) == 3.0
    assert stride_of(8, 16) == 0.5
    assert stride_of(28, 24) == pytest.approx(28 / 24)


@pytest.mark.parametrize("pixels", [28, 32, 64, 224])
@pytest.mark.parametrize("kernel", [3, 5])
def test_the_stride_of_unpadded_convolutions_and_poolings_is_a_power_of_two(pixels, kernel):
    layers, image = nn.Sequential(), torch.empty(1, 1, pixels, pixels)
    for level in range(2):
        layers.extend([nn.Conv2d(1, 1, kernel), nn.MaxPool2d(2)])
        cells = layers(image).shape[-1]
        assert unpadded_stride(pixels, cells) == 2.0 ** (level + 1)


def test_the_cells_of_unpadded_layers_lie_in_the_middle_of_their_receptive_fields():
    # A 5 x 5 convolution starts at pixel 2, pooling of 2 half a cell later, the next convolution 2 cells of 2 pixels
    # later, and the next pooling half of such a cell: 2 + .5 + 4 + 1.
    matrix = grid_to_image((32, 32), (5, 5), phase="unpadded")
    assert (matrix[0, 0], matrix[0, 2]) == (4.0, 7.5)
    assert (matrix[1, 1], matrix[1, 2]) == (4.0, 7.5)
