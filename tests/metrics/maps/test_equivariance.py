import copy
import pickle
from dataclasses import replace

import kornia.augmentation as K  # noqa: N812
import pytest
import torch
from torch import nn

from kornia_lightning_probe import AugmentationBank
from kornia_lightning_probe.activations.clean import Centre, CleanBlock
from kornia_lightning_probe.activations.layout import layout_of
from kornia_lightning_probe.functional.estimates import between_image_deviation, sensitivity
from kornia_lightning_probe.functional.warping import GridWarp, sample
from kornia_lightning_probe.metrics import About, Site
from kornia_lightning_probe.metrics.maps.equivariance import (
    EquivarianceError,
    GeometricMetric,
    InterpolationFloor,
    InvarianceError,
)
from kornia_lightning_probe.metrics.maps.grid_metric import GridMetric, grid_size

SIDE = 32
KINDS = (EquivarianceError, InvarianceError, InterpolationFloor)


def _rand(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def _smooth(count=8, side=SIDE, seed=0):
    coarse = _rand(count, 3, 6, 6, seed=seed)
    return nn.functional.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=True).clamp(0, 1)


def _matrix(rows, count=8):
    return torch.tensor(rows).repeat(count, 1, 1)


HFLIP = [[-1.0, 0.0, SIDE - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
ROT90 = [[0.0, 1.0, 0.0], [-1.0, 0.0, SIDE - 1.0], [0.0, 0.0, 1.0]]
SHIFT = [[1.0, 0.0, 4.0], [0.0, 1.0, 8.0], [0.0, 0.0, 1.0]]
# What each does to a map, pixels or cells; a shift brings zeros in.
MOVES = {
    "hflip": (HFLIP, lambda x: x.flip(-1)),
    "rot90": (ROT90, lambda x: x.rot90(1, (2, 3))),
    "shift": (SHIFT, lambda x: nn.functional.pad(x, (4, -4, 8, -8))),
}


def _about(clean, augmented, matrix, *, image_size=(SIDE, SIDE), layer="layer", **more):
    return About.of(clean, augmented, layer=layer, matrix=matrix, image_size=image_size, **more)


def _some_rows(whole, rows, start=0):
    ids = (start + rows.start, start + rows.stop)
    shown = replace(whole.shown, ids=ids, rows=rows, matrix=whole.matrix[rows])
    return replace(whole, shown=shown, augmented=whole.augmented[rows])


def _measured(metric, about):
    prepared = metric.prepare(["view"], [about.layer], about.ids[1])
    prepared.update(about.clean, about.augmented, about)
    return prepared


def _value(metric, about):
    return float(_measured(metric, about).estimates().value)


def _all_values(about, **options):
    return [_value(kind(max_images=None, **options), about) for kind in KINDS]


# Closed forms.


@pytest.mark.parametrize("move", MOVES)
def test_a_pointwise_layer_is_equivariant_to_flips_quarter_turns_and_shifts_by_whole_cells(move):
    # f acts on each pixel alone, so f(Tx) = T f(x).
    rows, apply = MOVES[move]
    layer = nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU(), nn.AvgPool2d(4))
    layer[0].weight.data, layer[0].bias.data = _rand(5, 3, 1, 1) - 0.3, _rand(5) - 0.5
    images = _rand(8, 3, SIDE, SIDE)
    with torch.no_grad():
        about = _about(layer(images), layer(apply(images)), _matrix(rows))
    error, stay, floor = _all_values(about)
    assert error == pytest.approx(0.0, abs=1e-5)
    assert floor == pytest.approx(0.0, abs=1e-5)
    assert stay > 0.5


def test_a_kernel_antisymmetric_in_width_gives_twice_the_length_of_the_map_under_a_horizontal_flip():
    # k(-x) = -k(x) makes f(Tx) = -T f(x), so |f(Tx) - T'f(x)| = 2 |f(x)|.
    kernel = _rand(4, 3, 3, 3) - 0.5
    layer = nn.Conv2d(3, 4, 3, padding=1, bias=False)
    layer.weight.data = kernel - kernel.flip(-1)
    images = _rand(8, 3, SIDE, SIDE)
    with torch.no_grad():
        clean, augmented = layer(images), layer(images.flip(-1))
    metric = _measured(EquivarianceError(max_images=None), _about(clean, augmented, _matrix(HFLIP)))
    inner = clean[..., 1:-1, 1:-1].double().square().sum((1, 2, 3))
    torch.testing.assert_close(
        metric.table[0, 0, 0] / inner, torch.full((8,), 4.0, dtype=torch.float64), rtol=1e-5, atol=0
    )


def test_a_map_that_rolls_with_the_image_is_equivariant_while_flat_sensitivity_is_large():
    maps = _rand(8, 16, 8, 8)
    about = _about(maps, maps.roll(1, 3), _matrix([[1.0, 0.0, 4.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    error, stay, _ = _all_values(about)
    flat = float(sensitivity(about.squared_distance, about.deviation).value)
    assert error == pytest.approx(0.0, abs=1e-5)
    assert flat > 0.8
    assert stay > 0.8


def test_a_map_that_is_shuffled_among_images_reads_one():
    # b is another image's carried map: by definition of e, that is the unit.
    maps = _rand(64, 16, 8, 8)
    about = _about(maps, maps.roll(1, 0).flip(-1), _matrix(HFLIP, 64))
    assert _value(EquivarianceError(max_images=None), about) == pytest.approx(1.0, abs=0.02)


def test_the_metric_is_the_formula_written_out():
    clean, augmented, matrix = _rand(6, 4, 8, 8), _rand(6, 4, 8, 8, seed=1), _matrix(ROT90, 6)
    matrix[:3] = torch.tensor(SHIFT)
    grid = GridWarp(matrix, (SIDE, SIDE), (8, 8))
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
        got = _measured(kind(max_images=None), _about(clean, augmented, matrix)).estimates()
        # The floor of these moves by whole cells is 0 up to rounding, which no relative tolerance fits.
        torch.testing.assert_close(got.value.squeeze(), expected.value, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(got.std_error.squeeze(), expected.std_error, rtol=1e-4, atol=1e-6)


def test_the_influence_of_images_carries_the_standard_error():
    # The root mean square of the influences over sqrt(N - 1) is the standard error; a missing image has none.
    matrix = _matrix(HFLIP)
    matrix[2] = torch.eye(3)
    metric = _measured(EquivarianceError(), _about(_rand(8, 4, 8, 8), _rand(8, 4, 8, 8, seed=1), matrix))
    influence = metric.estimates().influence[0, 0]
    known = influence.nan_to_num(0.0)
    assert known[2] == 0
    error = (known.square().sum() / 7 / 6).sqrt()
    torch.testing.assert_close(error, metric.estimates().std_error.squeeze())


def test_under_a_full_mask_the_deviation_is_that_of_sensitivity_without_the_rim():
    clean = _rand(8, 4, 8, 8)
    metric = _measured(EquivarianceError(max_images=None), _about(clean, clean, _matrix(HFLIP)))
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
    images = torch.nn.functional.interpolate(_smooth(), size=(32, 24), mode="bilinear")
    augmented = bank.augment(view, images, block=0)
    about = _about(images, augmented.images[0], augmented.matrix, image_size=(32, 24), layer="input")
    error, stay, floor = _all_values(about)
    if view.augmentation in {"elastic", "blur", "noise", "darken", "contrast"}:
        assert error != error  # NaN: no cell was filled
    else:
        # Kornia warps once, with the same interpolation; a matrix the wrong way round would read as `stay` or more.
        assert error < 1e-3
        assert floor < 0.05
        assert stay > 0.1


def test_a_matrix_from_destination_to_source_is_wrong():
    bank = AugmentationBank({"rotation": K.RandomRotation((15.0, 15.0), p=1.0)})
    images = _smooth()
    augmented = bank.augment(bank[0], images, block=0)
    wrong = _about(images, augmented.images[0], torch.linalg.inv(augmented.matrix), layer="input")
    assert _value(EquivarianceError(), wrong) > 0.5


def test_the_interpolation_floor_is_small_on_smooth_maps_and_large_on_noise():
    bank = AugmentationBank({"rotation": K.RandomRotation((15.0, 15.0), p=1.0)})
    floors = []
    for images in (_smooth(), _rand(8, 3, SIDE, SIDE)):
        augmented = bank.augment(bank[0], images, block=0)
        floors.append(_value(InterpolationFloor(), _about(images, augmented.images[0], augmented.matrix)))
    assert floors[0] < 0.06
    assert floors[1] > 0.4


# Phases.


def _stem(levels=3):
    """Strided 3 x 3 convolutions that smooth and mix channels: as equivariant as their grids allow."""
    binomial = torch.tensor([1.0, 2.0, 1.0]) / 4
    layers = []
    for level in range(levels):
        conv = nn.Conv2d(3, 3, 3, stride=2, padding=1, bias=False)
        mix = torch.eye(3) + 0.3 * (_rand(3, 3, seed=level) - 0.5)
        conv.weight.data = mix[:, :, None, None] * torch.outer(binomial, binomial)
        layers.append(conv)
    return nn.Sequential(*layers)


def _on_a_stem(view):
    """Errors before and after calibration, and the floor."""
    bank = AugmentationBank({"view": view})
    images, stem = _smooth(16, 64), _stem()
    augmented = bank.augment(bank[0], images, block=0)
    with torch.no_grad():
        clean, moved, flipped = stem(images), stem(augmented.images[0]), stem(images.flip(-1))
    about = _about(clean, moved, augmented.matrix, image_size=(64, 64))
    metric, floor = EquivarianceError(max_images=None), InterpolationFloor(max_images=None)
    assumed = _value(metric, about)
    for each in (metric, floor):
        each.calibrate(about.site, clean, flipped, image_size=(64, 64))
        assert each.phases == {"layer": "corner"}
    return assumed, _value(metric, replace(about)), _value(floor, replace(about))


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
    images = _rand(8, 3, SIDE, SIDE)
    pooled = nn.functional.avg_pool2d(images, 4)
    about = _about(pooled, pooled.flip(-1), _matrix(HFLIP))
    metric = EquivarianceError()
    assert metric.phases == {}
    assert _value(metric, about) == pytest.approx(0.0, abs=1e-5)
    metric.calibrate(about.site, pooled, pooled.flip(-1), image_size=(SIDE, SIDE))
    assert metric.phases == {"layer": "half-pixel"}


def test_calibration_belongs_to_the_prepared_metric_and_not_to_its_original():
    images = _smooth()
    metric = EquivarianceError()
    prepared = metric.prepare(["view"], ["layer"], 8)
    prepared.calibrate(
        Site("layer", 1, (3, 8, 8)), images[..., ::4, ::4], images.flip(-1)[..., ::4, ::4], image_size=(32, 32)
    )
    assert prepared.phases == {"layer": "corner"}
    assert metric.phases == {}


# Where it applies.


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
    maps, moved = _rand(8, 12, 4, 4), _rand(8, 12, 4, 4, seed=1)

    def values(layout):
        return _all_values(_about(layout(maps), layout(moved), _matrix(ROT90)))

    def tokens(x):
        return x.flatten(2).transpose(1, 2).contiguous()

    expected = pytest.approx(values(lambda x: x), rel=1e-6, abs=1e-6)
    assert layout_of((16, 12)).as_map(tokens(maps)).equal(maps)
    assert values(lambda x: x.permute(0, 2, 3, 1).contiguous()) == expected
    assert values(tokens) == expected
    assert values(lambda x: torch.cat([torch.full((8, 1, 12), 7.0), tokens(x)], 1)) == expected


@pytest.mark.parametrize("matrix", [None, torch.eye(3).repeat(8, 1, 1)])
def test_a_view_that_moves_no_pixel_or_does_not_say_how_leaves_cells_unfilled(matrix):
    maps = _rand(8, 3, 8, 8)
    for kind in KINDS:
        about = _about(maps, maps.flip(-1), matrix)
        assert kind().measure(about.clean, about.augmented, about) == {}
        assert not _measured(kind(), about).filled.any()


def test_without_the_size_of_the_image_nothing_is_measured():
    maps = _rand(8, 3, 8, 8)
    about = About.of(maps, maps, layer="layer", matrix=_matrix(HFLIP))
    assert EquivarianceError().measure(about.clean, about.augmented, about) == {}


def test_an_image_that_stays_put_is_missing_and_not_counted_as_zero():
    maps, matrix = _rand(8, 3, 8, 8), _matrix(HFLIP)
    matrix[::2] = torch.eye(3)
    for kind in KINDS:
        prepared = _measured(kind(max_images=None), _about(maps, maps.flip(-1), matrix))
        assert prepared.table[:, 0, 0].isnan().any(0).tolist() == [True, False] * 4
        assert prepared.estimates().num_images.item() == 4


def test_an_image_of_which_nothing_is_left_inside_is_missing():
    maps, matrix = _rand(8, 3, 8, 8), _matrix(HFLIP)
    matrix[3] = torch.tensor([[1.0, 0.0, 100.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    matrix[5] = 0.0
    for kind in KINDS:
        prepared = _measured(kind(max_images=None), _about(maps, maps.flip(-1), matrix))
        assert prepared.estimates().num_images.item() == 6
        assert prepared.estimates().value.isfinite().all()


# Which images.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_values_do_not_depend_on_how_a_block_was_cut(kind, batch_size):
    maps, moved = _rand(10, 3, 8, 8), _rand(10, 3, 8, 8, seed=1)
    matrix = torch.cat([_matrix(HFLIP, 5), _matrix(ROT90, 5)])
    whole = _about(maps, moved, matrix)
    prepared = kind().prepare(["view"], ["layer"], 10)
    for start in range(0, 10, batch_size):
        rows = slice(start, min(start + batch_size, 10))
        about = _some_rows(whole, rows)
        prepared.update(about.clean, about.augmented, about)
    for got, wanted in zip(prepared.estimates(), _measured(kind(), whole).estimates(), strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize(
    ("sizes", "max_images", "expected"),
    [
        # 64 images are 2 blocks of 32, which are reached in the fourth and the eighth of 8.
        ([32] * 8, 64, [3, 7]),
        ([32] * 8, 20, [7]),
        ([32] * 8, 256, list(range(8))),
        ([32] * 8, None, list(range(8))),
        ([27, 27, 26], 64, [0, 1, 2]),
        ([17, 16], 64, [0, 1]),
        ([4], 64, [0]),
    ],
)
def test_whole_blocks_are_looked_at_evenly_spread_until_there_are_enough_images(sizes, max_images, expected):
    prepared = EquivarianceError(max_images=max_images).prepare(["view"], ["layer"], sum(sizes))
    looked_at, start = [], 0
    for number, size in enumerate(sizes):
        maps = _rand(size, 1, 4, 4)
        whole = _about(maps, maps, _matrix(HFLIP, size))
        # A part of the block: the answer is that of the whole.
        about = _some_rows(whole, slice(1, size), start)
        looked_at += [number] if prepared.measure(about.clean, about.augmented, about) else []
        start += size
    assert looked_at == expected


def test_no_image_is_an_error():
    with pytest.raises(ValueError, match=r"max_images must be at least 1, or None for all images, got 0"):
        InterpolationFloor(max_images=0)


# Edges.


def test_a_non_finite_activation_leaves_out_its_own_image_only():
    maps, moved = _rand(8, 3, 8, 8), _rand(8, 3, 8, 8, seed=1)
    broken_before, broken_after = maps.clone(), moved.clone()
    broken_before[2, 0, 3, 3] = torch.nan
    broken_after[6, 1, 4, 4] = torch.inf
    for kind in (EquivarianceError, InvarianceError):
        prepared = _measured(kind(max_images=None), _about(broken_before, broken_after, _matrix(HFLIP)))
        assert prepared.table[:, 0, 0].isfinite().all(0).tolist() == [i not in {2, 6} for i in range(8)]
        assert prepared.estimates().value.isfinite().all()


def test_a_dead_layer_and_a_single_image_have_no_value():
    dead = torch.ones(8, 3, 8, 8)
    assert all(value != value for value in _all_values(_about(dead, dead, _matrix(HFLIP))))
    single = _rand(1, 3, 8, 8)
    assert all(value != value for value in _all_values(_about(single, single, _matrix(HFLIP, 1))))


def test_a_single_image_with_a_reference_is_measured_against_the_reference():
    # Its deviation is the share of the reference's that the image has inside of the mask.
    maps = _rand(8, 3, 8, 8)
    centre = Centre(maps.mean(0, keepdim=True), between_image_deviation(maps).mean())
    about = _about(maps[:1], maps[:1].roll(1, 3), _matrix(HFLIP, 1))
    about = replace(about, block=CleanBlock(maps[:1], centre=centre))
    prepared = _measured(EquivarianceError(), about)
    inner = (maps[0] - maps.mean(0))[..., 1:-1, 1:-1].square().sum() / (maps[0] - maps.mean(0)).square().sum()
    assert float(prepared.table[1, 0, 0, 0]) == pytest.approx(float(centre.deviation * inner), rel=1e-5)
    assert prepared.estimates().value.isfinite().all()


def test_half_precision_and_double_precision_maps_are_measured():
    maps = _rand(8, 3, 8, 8)
    for dtype in (torch.bfloat16, torch.float64):
        about = _about(maps.to(dtype), maps.to(dtype).flip(-1), _matrix(HFLIP))
        assert _value(EquivarianceError(), about) == pytest.approx(0.0, abs=1e-6)


def test_scaling_shifting_and_repeating_features_changes_nothing():
    maps, moved = _rand(8, 3, 8, 8), _rand(8, 3, 8, 8, seed=1)

    def values(change):
        return _all_values(_about(change(maps), change(moved), _matrix(SHIFT)))

    expected = values(lambda x: x)
    assert values(lambda x: 3 * x + 5) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert values(lambda x: torch.cat([x, x], 1)) == pytest.approx(expected, rel=1e-5, abs=1e-6)


# As torchmetrics.


@pytest.mark.parametrize("kind", KINDS)
def test_clones_and_pickles_measure_the_same_and_carry_no_grids(kind):
    maps = _rand(8, 3, 8, 8)
    about = _about(maps, maps.roll(1, 3), _matrix(ROT90))
    metric = kind(max_images=5)
    metric.calibrate(about.site, maps, maps.flip(-1), image_size=(SIDE, SIDE))
    measured = _measured(metric, about)
    assert measured._grids
    for other in (measured.clone(), copy.deepcopy(measured), pickle.loads(pickle.dumps(measured))):  # noqa: S301
        assert other._grids == {}
        assert (other.phases, other.max_images) == (measured.phases, 5)
        assert other.compute().value == measured.compute().value


def test_the_three_share_their_work_and_few_grids_are_kept():
    maps = _rand(8, 3, 8, 8)
    metrics = [kind() for kind in KINDS]
    for degrees in range(1, 12):
        shift = torch.tensor([[1.0, 0.0, float(degrees)], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).repeat(8, 1, 1)
        about = _about(maps, maps, shift)
        carried = {id(metric.carried(about)) for metric in metrics}
        assert len(carried) == 1
    assert [len(metric._grids) for metric in metrics] == [8, 0, 0]


def test_layers_of_one_size_share_a_grid():
    metric = EquivarianceError()

    def grid(channels, side, layer):
        maps = _rand(8, channels, side, side)
        return metric.carried(_about(maps, maps, _matrix(HFLIP), layer=layer)).grid

    first = grid(3, 8, "first")
    assert grid(5, 8, "second") is first
    assert grid(5, 4, "third") is not first


@pytest.mark.parametrize("kind", KINDS)
def test_unequal_shares_of_a_block_merge_to_the_whole(kind):
    maps, moved, matrix = _rand(9, 3, 8, 8), _rand(9, 3, 8, 8, seed=1), _matrix(ROT90, 9)
    whole = _about(maps, moved, matrix)
    shares = []
    for rows in (slice(0, 7), slice(7, 9)):
        about = _some_rows(whole, rows)
        shares.append(kind(max_images=None).prepare(["view"], ["layer"], 9))
        shares[-1].update(about.clean, about.augmented, about)
    shares[0].merge_state(shares[1])
    torch.testing.assert_close(shares[0].estimates(), _measured(kind(max_images=None), whole).estimates())


def test_names_are_those_of_the_results():
    assert [kind.name for kind in KINDS] == ["equivariance_error", "invariance_error", "interpolation_floor"]
    assert all(issubclass(kind, GeometricMetric) for kind in KINDS)
    assert issubclass(GeometricMetric, GridMetric)
