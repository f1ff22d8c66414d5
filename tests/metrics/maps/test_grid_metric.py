from dataclasses import replace

import kornia.augmentation as K  # noqa: N812
import pytest
import torch
from support.maps import HFLIP, KINDS, ROT90, SIDE, about_of, all_values, matrices, smooth, uniform, value
from torch import nn

from kornia_lightning_probe import AugmentationBank
from kornia_lightning_probe.activations.layout import layout_of
from kornia_lightning_probe.metrics import Site
from kornia_lightning_probe.metrics.maps.equivariance import (
    EquivarianceError,
    InterpolationFloor,
)
from kornia_lightning_probe.metrics.maps.grid_metric import grid_size


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
    """Errors before and after calibration, and the floor."""
    bank = AugmentationBank({"view": view})
    images, stem = smooth(16, 64), _stem()
    augmented = bank.augment(bank[0], images, block=0)
    with torch.no_grad():
        clean, moved, flipped = stem(images), stem(augmented.images[0]), stem(images.flip(-1))
    about = about_of(clean, moved, augmented.matrix, image_size=(64, 64))
    metric, floor = EquivarianceError(max_images=None), InterpolationFloor(max_images=None)
    assumed = value(metric, about)
    for each in (metric, floor):
        each.calibrate(about.site, clean, flipped, image_size=(64, 64))
        assert each.phases == {"layer": "corner"}
    return assumed, value(metric, replace(about)), value(floor, replace(about))


@pytest.mark.parametrize(
    "view", [K.RandomHorizontalFlip(p=1.0), K.RandomVerticalFlip(p=1.0), K.RandomRotation((90.0, 90.0), p=1.0)]
)
def test_on_a_strided_stem_the_wrong_phase_errs_ten_times_as_much_as_the_calibrated_one(view):
    # A cell of 8 pixels is mirrored 7/8 of a cell off.
    assumed, calibrated, floor = _on_a_stem(view)
    assert calibrated < floor < 0.1
    assert assumed > 10 * calibrated


@pytest.mark.parametrize("view", [K.RandomRotation((15.0, 15.0), p=1.0), K.RandomPerspective(0.4, p=1.0)])
def test_on_a_strided_stem_the_calibrated_error_lies_below_the_floor(view):
    assumed, calibrated, floor = _on_a_stem(view)
    assert calibrated < assumed
    assert calibrated < floor


def test_a_layer_that_was_not_calibrated_is_taken_to_tile_the_image():
    images = uniform(8, 3, SIDE, SIDE)
    pooled = nn.functional.avg_pool2d(images, 4)
    about = about_of(pooled, pooled.flip(-1), matrices(HFLIP))
    metric = EquivarianceError()
    assert metric.phases == {}
    assert value(metric, about) == pytest.approx(0.0, abs=1e-5)
    metric.calibrate(about.site, pooled, pooled.flip(-1), image_size=(SIDE, SIDE))
    assert metric.phases == {"layer": "half-pixel"}


def test_calibration_belongs_to_the_prepared_metric_and_not_to_its_original():
    images = smooth()
    metric = EquivarianceError()
    prepared = metric.prepare(["view"], ["layer"], 8)
    prepared.calibrate(
        Site("layer", 1, (3, 8, 8)), images[..., ::4, ::4], images.flip(-1)[..., ::4, ::4], image_size=(32, 32)
    )
    assert prepared.phases == {"layer": "corner"}
    assert metric.phases == {}


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((5, 4, 6), (4, 6)),
        ((7, 7, 12), (7, 7)),
        ((16, 8), (4, 4)),
        ((17, 8), (4, 4)),
        ((15, 8), None),
        ((5, 8), None),
        ((8,), None),
        ((4, 2, 9), None),
        ((3, 4, 5, 6), None),
    ],
)
def test_maps_and_token_grids_of_three_cells_or_more_are_measured(shape, size):
    assert grid_size(Site("layer", 1, shape)) == size
    for kind in KINDS:
        assert kind().applies_to(Site("layer", 1, shape)) == (size is not None)


def test_outputs_and_pooled_features_are_not_measured():
    assert not EquivarianceError().applies_to(Site("output", 3, (4, 8, 8), "output"))
    assert not EquivarianceError().applies_to(Site("layer", 1, (4, 8, 8), representation="pooled"))


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
