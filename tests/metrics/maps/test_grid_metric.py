from dataclasses import replace

import kornia.augmentation as K  # noqa: N812
import pytest
import torch
from support.maps import HFLIP, KINDS, ROT90, SIDE, about_of, all_values, matrices, smooth, uniform, value
from torch import nn

from kornia_lightning_probe import AugmentationBank
from kornia_lightning_probe.activations.cells import Cells
from kornia_lightning_probe.activations.layout import layout_of
from kornia_lightning_probe.functional.grids import Grid
from kornia_lightning_probe.metrics import Site
from kornia_lightning_probe.metrics.maps.equivariance import EquivarianceError, InterpolationFloor
from kornia_lightning_probe.metrics.maps.grid_metric import has_grid

# Where three convolutions of stride 2 and padding 1 leave the 8 x 8 cells of an image of 64 pixels.
STEM = Grid((8, 8), (8.0, 8.0), (0.0, 0.0), (0.0, 0.0))


def _stem(levels=3):
    """Strided 3 x 3 convolutions that smooth and mix channels: as equivariant as their grids allow."""
    binomial = torch.tensor([1.0, 2.0, 1.0]) / 4
    layers = []
    for level in range(levels):
        conv = nn.Conv2d(3, 3, 3, stride=2, padding=1, bias=False)
        mix = torch.eye(3) + 0.3 * (uniform(3, 3, seed=level) - 0.5)
        conv.weight.data = mix[:, :, None, None] * torch.outer(binomial, binomial)
        layers.append(conv)
    return nn.Sequential(*layers)


def _on_a_stem(view):
    """Errors on a grid that would tile the image and on the true one, and the floor of that."""
    bank = AugmentationBank({"view": view})
    images, stem = smooth(16, 64), _stem()
    augmented = bank.augment(bank[0], images, block=0)
    with torch.no_grad():
        clean, moved = stem(images), stem(augmented.images[0])
    wrong, true = (
        about_of(clean, moved, augmented.matrix, image_size=(64, 64), grid=grid)
        for grid in (Grid.tiling((64, 64), (8, 8)), STEM)
    )
    error, floor = EquivarianceError(max_images=None), InterpolationFloor(max_images=None)
    return value(error, wrong), value(error, true), value(floor, true)


@pytest.mark.parametrize(
    "view", [K.RandomHorizontalFlip(p=1.0), K.RandomVerticalFlip(p=1.0), K.RandomRotation((90.0, 90.0), p=1.0)]
)
def test_on_a_strided_stem_a_wrong_grid_errs_ten_times_as_much_as_the_true_one(view):
    # A cell of 8 pixels is mirrored 7/8 of a cell off.
    wrong, true, floor = _on_a_stem(view)
    assert true < floor < 0.1
    assert wrong > 10 * true


@pytest.mark.parametrize("view", [K.RandomRotation((15.0, 15.0), p=1.0), K.RandomPerspective(0.4, p=1.0)])
def test_on_a_strided_stem_the_error_lies_below_the_floor(view):
    wrong, true, floor = _on_a_stem(view)
    assert true < wrong
    assert true < floor


def test_a_layer_that_stands_alone_is_taken_to_tile_the_image():
    pooled = nn.functional.avg_pool2d(uniform(8, 3, SIDE, SIDE), 4)
    about = about_of(pooled, pooled.flip(-1), matrices(HFLIP))
    assert about.site.grid == Grid.tiling((SIDE, SIDE), (8, 8))
    assert value(EquivarianceError(), about) == pytest.approx(0.0, abs=1e-5)


def test_a_layer_whose_grid_is_unknown_is_not_measured():
    maps = uniform(8, 3, 8, 8)
    known = about_of(maps, maps.flip(-1), matrices(HFLIP))
    for cells in (None, "_fft_c2c: no rule for this operator"):
        about = replace(known, site=replace(known.site, cells=cells))
        for kind in KINDS:
            assert not kind().applies_to(about.site)
            assert kind().measure(about.clean, about.augmented, about) == {}


@pytest.mark.parametrize(
    ("size", "measured"),
    [((4, 6), True), ((3, 3), True), ((2, 9), False), ((9, 2), False), ((4, 4, 4), False), ((9,), False)],
)
def test_maps_of_three_cells_or_more_are_measured(size, measured):
    # Volumes have a third axis, and no matrix.
    grid = Grid(size, (1.0,) * len(size), (0.0,) * len(size), (0.0,) * len(size))
    site = Site("layer", 1, (5, *size), cells=Cells(grid))
    assert has_grid(site) is measured
    for kind in KINDS:
        assert kind().applies_to(site) is measured


def test_outputs_and_pooled_features_are_not_measured():
    cells = Cells(Grid.tiling((8, 8), (8, 8)))
    assert not EquivarianceError().applies_to(Site("output", 3, (4, 8, 8), "output", cells=cells))
    assert not EquivarianceError().applies_to(Site("layer", 1, (4, 8, 8), representation="pooled", cells=cells))


def test_all_layouts_of_one_grid_give_the_same_numbers():
    maps, moved = uniform(8, 12, 4, 4), uniform(8, 12, 4, 4, seed=1)

    def values(layout):
        return all_values(about_of(layout(maps), layout(moved), matrices(ROT90)))

    def tokens(x):
        return x.flatten(2).transpose(1, 2).contiguous()

    expected = pytest.approx(values(lambda x: x), rel=1e-6, abs=1e-6)
    assert layout_of((16, 12)).as_map(tokens(maps)).equal(maps)
    assert values(lambda x: x.permute(0, 2, 3, 1).contiguous()) == expected
    assert values(tokens) == expected
    assert values(lambda x: torch.cat([torch.full((8, 1, 12), 7.0), tokens(x)], 1)) == expected


def test_tokens_in_any_order_are_brought_into_that_of_a_map():
    maps, moved = uniform(8, 12, 4, 4), uniform(8, 12, 4, 4, seed=1)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))

    def shuffled(x):
        return x.flatten(2).transpose(1, 2)[:, order]

    def as_map(x):
        return x[:, order.argsort()].transpose(1, 2).unflatten(2, (4, 4))

    about = about_of(shuffled(maps), shuffled(moved), matrices(ROT90))
    site = replace(about.site, cells=Cells(Grid.tiling((SIDE, SIDE), (4, 4)), as_map))
    expected = all_values(about_of(maps, moved, matrices(ROT90)))
    assert all_values(replace(about, site=site)) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    # Read row by row they are another map.
    assert all_values(about) != pytest.approx(expected, rel=1e-2)
