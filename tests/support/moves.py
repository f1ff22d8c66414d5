"""Matrices that move an image, source to destination in pixels, and grids of its cells."""

import math

import torch

from kornia_lightning_probe.functional.grids import Grid


def tiling(pixels, cells):
    return Grid.tiling((pixels, pixels), (cells, cells))


def at_corners(cells, stride):
    """As convolutions of that stride with padding leave it: the first cell on the first pixel."""
    return Grid((cells, cells), (stride, stride), (0.0, 0.0), (0.0, 0.0))


def shift(x, y, count=1):
    return torch.tensor([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]]).repeat(count, 1, 1)


def hflip(width, count=1):
    return torch.tensor([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).repeat(count, 1, 1)


def rotation(degrees, side):
    """About the centre of a square, source to destination."""
    c, s, m = math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), (side - 1) / 2
    return torch.tensor([[[c, s, m - c * m - s * m], [-s, c, m + s * m - c * m], [0.0, 0.0, 1.0]]])


def perspective():
    return torch.tensor([[[1.05, 0.1, -0.8], [-0.05, 0.95, 1.1], [0.004, -0.003, 1.0]]])


def rand(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))
