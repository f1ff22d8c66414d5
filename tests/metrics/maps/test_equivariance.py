import copy
import pickle

import kornia.augmentation as K  # noqa: N812
import pytest
import torch
from support.maps import (
    HFLIP,
    KINDS,
    MOVES,
    ROT90,
    SHIFT,
    SIDE,
    about_of,
    all_values,
    matrices,
    measured,
    smooth,
    uniform,
    value,
)
from torch import nn

from kornia_lightning_probe import AugmentationBank
from kornia_lightning_probe.functional.estimates import between_image_deviation, sensitivity
from kornia_lightning_probe.functional.grid_warp import GridWarp
from kornia_lightning_probe.functional.grids import Grid
from kornia_lightning_probe.functional.warping import sample
from kornia_lightning_probe.metrics.maps.equivariance import (
    EquivarianceError,
    GeometricMetric,
    InterpolationFloor,
    InvarianceError,
)
from kornia_lightning_probe.metrics.maps.grid_metric import GridMetric

# Closed forms.


@pytest.mark.parametrize("move", MOVES)
def test_a_pointwise_layer_is_equivariant_to_flips_quarter_turns_and_shifts_by_whole_cells(move):
    # f acts on each pixel alone, so f(Tx) = T f(x).
    rows, apply = MOVES[move]
    layer = nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU(), nn.AvgPool2d(4))
    layer[0].weight.data, layer[0].bias.data = uniform(5, 3, 1, 1) - 0.3, uniform(5) - 0.5
    images = uniform(8, 3, SIDE, SIDE)
    with torch.no_grad():
        about = about_of(layer(images), layer(apply(images)), matrices(rows))
    error, stay, floor = all_values(about)
    assert error == pytest.approx(0.0, abs=1e-5)
    assert floor == pytest.approx(0.0, abs=1e-5)
    assert stay > 0.5


def test_a_kernel_antisymmetric_in_width_gives_twice_the_length_of_the_map_under_a_horizontal_flip():
    # k(-x) = -k(x) makes f(Tx) = -T f(x), so |f(Tx) - T'f(x)| = 2 |f(x)|.
    kernel = uniform(4, 3, 3, 3) - 0.5
    layer = nn.Conv2d(3, 4, 3, padding=1, bias=False)
    layer.weight.data = kernel - kernel.flip(-1)
    images = uniform(8, 3, SIDE, SIDE)
    with torch.no_grad():
        clean, augmented = layer(images), layer(images.flip(-1))
    metric = measured(EquivarianceError(max_images=None), about_of(clean, augmented, matrices(HFLIP)))
    inner = clean[..., 1:-1, 1:-1].double().square().sum((1, 2, 3))
    torch.testing.assert_close(
        metric.table[0, 0, 0] / inner, torch.full((8,), 4.0, dtype=torch.float64), rtol=1e-5, atol=0
    )


def test_a_map_that_rolls_with_the_image_is_equivariant_while_flat_sensitivity_is_large():
    maps = uniform(8, 16, 8, 8)
    about = about_of(maps, maps.roll(1, 3), matrices([[1.0, 0.0, 4.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    error, stay, _ = all_values(about)
    flat = float(sensitivity(about.squared_distance, about.deviation).value)
    assert error == pytest.approx(0.0, abs=1e-5)
    assert flat > 0.8
    assert stay > 0.8


def test_a_map_that_is_shuffled_among_images_reads_one():
    # b is another image's carried map: by definition of e, that is the unit.
    maps = uniform(64, 16, 8, 8)
    about = about_of(maps, maps.roll(1, 0).flip(-1), matrices(HFLIP, 64))
    assert value(EquivarianceError(max_images=None), about) == pytest.approx(1.0, abs=0.02)


def test_the_metric_is_the_formula_written_out():
    clean, augmented, matrix = uniform(6, 4, 8, 8), uniform(6, 4, 8, 8, seed=1), matrices(ROT90, 6)
    matrix[:3] = torch.tensor(SHIFT)
    grid = GridWarp(matrix, (SIDE, SIDE), Grid.tiling((SIDE, SIDE), (8, 8)))
    mask, mask_back = grid.mask.unsqueeze(1).double(), grid.mask_back.unsqueeze(1).double()
    a, b, m = clean.double(), augmented.double(), clean.double().mean(0)
    carried = sample(a, grid.sources)
    back = sample(carried, grid.targets)
    for kind, difference, cells in (
        (EquivarianceError, b - carried, mask),
        (InvarianceError, b - a, mask),
        (InterpolationFloor, back - a, mask_back),
    ):
        distance = (cells * difference).square().sum((1, 2, 3))
        deviation = 6 / 5 * (cells * (a - m)).square().sum((1, 2, 3))
        expected = sensitivity(distance, deviation)
        got = measured(kind(max_images=None), about_of(clean, augmented, matrix)).estimates()
        # The floor of these moves by whole cells is 0 up to rounding, which no relative tolerance fits.
        torch.testing.assert_close(got.value.squeeze(), expected.value, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(got.std_error.squeeze(), expected.std_error, rtol=1e-4, atol=1e-6)


def test_the_influence_of_images_carries_the_standard_error():
    # The root mean square of the influences over sqrt(N - 1) is the standard error; a missing image has none.
    matrix = matrices(HFLIP)
    matrix[2] = torch.eye(3)
    metric = measured(EquivarianceError(), about_of(uniform(8, 4, 8, 8), uniform(8, 4, 8, 8, seed=1), matrix))
    influence = metric.estimates().influence[0, 0]
    known = influence.nan_to_num(0.0)
    assert known[2] == 0
    error = (known.square().sum() / 7 / 6).sqrt()
    torch.testing.assert_close(error, metric.estimates().std_error.squeeze())


def test_under_a_full_mask_the_deviation_is_that_of_sensitivity_without_the_rim():
    clean = uniform(8, 4, 8, 8)
    metric = measured(EquivarianceError(max_images=None), about_of(clean, clean, matrices(HFLIP)))
    expected = between_image_deviation(clean[..., 1:-1, 1:-1])
    torch.testing.assert_close(metric.table[1, 0, 0], expected, rtol=1e-5, atol=0)


# The pixels: T'x is what the augmentation made of x.


def _bank_views():
    geometric, default = AugmentationBank.preset("geometric"), AugmentationBank.preset("default")
    single = {
        "rotation_range": K.RandomRotation(30.0, p=1.0),
        "affine": K.RandomAffine(20.0, (0.1, 0.1), (0.8, 1.2), 10.0, p=1.0),
        "affine_corners": K.RandomAffine(20.0, (0.1, 0.1), (0.8, 1.2), 10.0, align_corners=True, p=1.0),
        "perspective": K.RandomPerspective(0.5, p=1.0),
        "sometimes": K.RandomRotation(30.0, p=0.5),
        "chain": K.AugmentationSequential(
            K.RandomHorizontalFlip(p=0.5), K.RandomBrightness((1.0, 1.0)), K.RandomPerspective(0.3, p=1.0)
        ),
    }
    for bank in (geometric, default, AugmentationBank(single)):
        for view in bank:
            yield pytest.param(bank, view, id=f"{len(bank)}-{view.label}")


@pytest.mark.parametrize(("bank", "view"), list(_bank_views()))
def test_the_pixels_are_equivariant_under_every_view_with_a_matrix(bank, view):
    images = torch.nn.functional.interpolate(smooth(), size=(32, 24), mode="bilinear")
    augmented = bank.augment(view, images, block=0)
    about = about_of(images, augmented.images[0], augmented.matrix, image_size=(32, 24), layer="input")
    error, stay, floor = all_values(about)
    if view.augmentation in {"elastic", "blur", "noise", "darken", "contrast"}:
        assert error != error  # NaN: no cell was filled
    else:
        # Kornia warps once, with the same interpolation; a matrix the wrong way round would read as `stay` or more.
        assert error < 1e-3
        assert floor < 0.05
        assert stay > 0.1


def test_a_matrix_from_destination_to_source_is_wrong():
    bank = AugmentationBank({"rotation": K.RandomRotation((15.0, 15.0), p=1.0)})
    images = smooth()
    augmented = bank.augment(bank[0], images, block=0)
    wrong = about_of(images, augmented.images[0], torch.linalg.inv(augmented.matrix), layer="input")
    assert value(EquivarianceError(), wrong) > 0.5


def test_the_interpolation_floor_is_small_on_smooth_maps_and_large_on_noise():
    bank = AugmentationBank({"rotation": K.RandomRotation((15.0, 15.0), p=1.0)})
    floors = []
    for images in (smooth(), uniform(8, 3, SIDE, SIDE)):
        augmented = bank.augment(bank[0], images, block=0)
        floors.append(value(InterpolationFloor(), about_of(images, augmented.images[0], augmented.matrix)))
    assert floors[0] < 0.06
    assert floors[1] > 0.4


# Edges.


def test_a_dead_layer_and_a_single_image_have_no_value():
    dead = torch.ones(8, 3, 8, 8)
    assert all(value != value for value in all_values(about_of(dead, dead, matrices(HFLIP))))
    single = uniform(1, 3, 8, 8)
    assert all(value != value for value in all_values(about_of(single, single, matrices(HFLIP, 1))))


def test_half_precision_and_double_precision_maps_are_measured():
    maps = uniform(8, 3, 8, 8)
    for dtype in (torch.bfloat16, torch.float64):
        about = about_of(maps.to(dtype), maps.to(dtype).flip(-1), matrices(HFLIP))
        assert value(EquivarianceError(), about) == pytest.approx(0.0, abs=1e-6)


def test_scaling_shifting_and_repeating_features_changes_nothing():
    maps, moved = uniform(8, 3, 8, 8), uniform(8, 3, 8, 8, seed=1)

    def values(change):
        return all_values(about_of(change(maps), change(moved), matrices(SHIFT)))

    expected = values(lambda x: x)
    assert values(lambda x: 3 * x + 5) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert values(lambda x: torch.cat([x, x], 1)) == pytest.approx(expected, rel=1e-5, abs=1e-6)


# As torchmetrics.


@pytest.mark.parametrize("kind", KINDS)
def test_clones_and_pickles_measure_the_same_and_carry_no_warps(kind):
    maps = uniform(8, 3, 8, 8)
    about = about_of(maps, maps.roll(1, 3), matrices(ROT90))
    metric = kind(max_images=5)
    whole = measured(metric, about)
    assert whole._warps
    for other in (whole.clone(), copy.deepcopy(whole), pickle.loads(pickle.dumps(whole))):  # noqa: S301
        assert other._warps == {}
        assert other.max_images == 5
        assert other.compute().value == whole.compute().value


def test_names_are_those_of_the_results():
    assert [kind.name for kind in KINDS] == ["equivariance_error", "invariance_error", "interpolation_floor"]
    assert all(issubclass(kind, GeometricMetric) for kind in KINDS)
    assert issubclass(GeometricMetric, GridMetric)
