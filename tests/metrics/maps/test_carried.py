from dataclasses import replace

import pytest
import torch
from support.maps import HFLIP, KINDS, ROT90, about_of, matrices, measured, some_rows, uniform

from kornia_lightning_probe.activations.clean import Centre, CleanBlock
from kornia_lightning_probe.functional.estimates import between_image_deviation
from kornia_lightning_probe.metrics import About
from kornia_lightning_probe.metrics.maps.equivariance import (
    EquivarianceError,
    InterpolationFloor,
    InvarianceError,
)


@pytest.mark.parametrize("matrix", [None, torch.eye(3).repeat(8, 1, 1)])
def test_a_view_that_moves_no_pixel_or_does_not_say_how_leaves_cells_unfilled(matrix):
    maps = uniform(8, 3, 8, 8)
    for kind in KINDS:
        about = about_of(maps, maps.flip(-1), matrix)
        assert kind().measure(about.clean, about.augmented, about) == {}
        assert not measured(kind(), about).filled.any()


def test_without_the_size_of_the_image_nothing_is_measured():
    maps = uniform(8, 3, 8, 8)
    about = About.of(maps, maps, layer="layer", matrix=matrices(HFLIP))
    assert EquivarianceError().measure(about.clean, about.augmented, about) == {}


def test_an_image_that_stays_put_is_missing_and_not_counted_as_zero():
    maps, matrix = uniform(8, 3, 8, 8), matrices(HFLIP)
    matrix[::2] = torch.eye(3)
    for kind in KINDS:
        prepared = measured(kind(max_images=None), about_of(maps, maps.flip(-1), matrix))
        assert prepared.table[:, 0, 0].isnan().any(0).tolist() == [True, False] * 4
        assert prepared.estimates().num_images.item() == 4


def test_an_image_of_which_nothing_is_left_inside_is_missing():
    maps, matrix = uniform(8, 3, 8, 8), matrices(HFLIP)
    matrix[3] = torch.tensor([[1.0, 0.0, 100.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    matrix[5] = 0.0
    for kind in KINDS:
        prepared = measured(kind(max_images=None), about_of(maps, maps.flip(-1), matrix))
        assert prepared.estimates().num_images.item() == 6
        assert prepared.estimates().value.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_values_do_not_depend_on_how_a_block_was_cut(kind, batch_size):
    maps, moved = uniform(10, 3, 8, 8), uniform(10, 3, 8, 8, seed=1)
    matrix = torch.cat([matrices(HFLIP, 5), matrices(ROT90, 5)])
    whole = about_of(maps, moved, matrix)
    prepared = kind().prepare(["view"], ["layer"], 10)
    for start in range(0, 10, batch_size):
        rows = slice(start, min(start + batch_size, 10))
        about = some_rows(whole, rows)
        prepared.update(about.clean, about.augmented, about)
    for got, wanted in zip(prepared.estimates(), measured(kind(), whole).estimates(), strict=True):
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
        maps = uniform(size, 1, 4, 4)
        whole = about_of(maps, maps, matrices(HFLIP, size))
        # A part of the block: the answer is that of the whole.
        about = some_rows(whole, slice(1, size), start)
        looked_at += [number] if prepared.measure(about.clean, about.augmented, about) else []
        start += size
    assert looked_at == expected


def test_no_image_is_an_error():
    with pytest.raises(ValueError, match=r"max_images must be at least 1, or None for all images, got 0"):
        InterpolationFloor(max_images=0)


def test_a_non_finite_activation_leaves_out_its_own_image_only():
    maps, moved = uniform(8, 3, 8, 8), uniform(8, 3, 8, 8, seed=1)
    broken_before, broken_after = maps.clone(), moved.clone()
    broken_before[2, 0, 3, 3] = torch.nan
    broken_after[6, 1, 4, 4] = torch.inf
    for kind in (EquivarianceError, InvarianceError):
        prepared = measured(kind(max_images=None), about_of(broken_before, broken_after, matrices(HFLIP)))
        assert prepared.table[:, 0, 0].isfinite().all(0).tolist() == [i not in {2, 6} for i in range(8)]
        assert prepared.estimates().value.isfinite().all()


def test_a_single_image_with_a_reference_is_measured_against_the_reference():
    # Its deviation is the share of the reference's that the image has inside of the mask.
    maps = uniform(8, 3, 8, 8)
    centre = Centre(maps.mean(0, keepdim=True), between_image_deviation(maps).mean())
    about = about_of(maps[:1], maps[:1].roll(1, 3), matrices(HFLIP, 1))
    about = replace(about, block=CleanBlock(maps[:1], centre=centre))
    prepared = measured(EquivarianceError(), about)
    inner = (maps[0] - maps.mean(0))[..., 1:-1, 1:-1].square().sum() / (maps[0] - maps.mean(0)).square().sum()
    assert float(prepared.table[1, 0, 0, 0]) == pytest.approx(float(centre.deviation * inner), rel=1e-5)
    assert prepared.estimates().value.isfinite().all()


def test_the_three_share_their_work_and_few_warps_are_kept():
    maps = uniform(8, 3, 8, 8)
    metrics = [kind() for kind in KINDS]
    for degrees in range(1, 12):
        shift = torch.tensor([[1.0, 0.0, float(degrees)], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).repeat(8, 1, 1)
        about = about_of(maps, maps, shift)
        carried = {id(metric.carried(about)) for metric in metrics}
        assert len(carried) == 1
    assert [len(metric._warps) for metric in metrics] == [8, 0, 0]


def test_layers_of_one_size_share_a_warp():
    metric = EquivarianceError()

    def warp(channels, side, layer):
        maps = uniform(8, channels, side, side)
        return metric.carried(about_of(maps, maps, matrices(HFLIP), layer=layer)).warp

    first = warp(3, 8, "first")
    assert warp(5, 8, "second") is first
    assert warp(5, 4, "third") is not first


@pytest.mark.parametrize("kind", KINDS)
def test_unequal_shares_of_a_block_merge_to_the_whole(kind):
    maps, moved, matrix = uniform(9, 3, 8, 8), uniform(9, 3, 8, 8, seed=1), matrices(ROT90, 9)
    whole = about_of(maps, moved, matrix)
    shares = []
    for rows in (slice(0, 7), slice(7, 9)):
        about = some_rows(whole, rows)
        shares.append(kind(max_images=None).prepare(["view"], ["layer"], 9))
        shares[-1].update(about.clean, about.augmented, about)
    shares[0].merge_state(shares[1])
    torch.testing.assert_close(shares[0].estimates(), measured(kind(max_images=None), whole).estimates())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cuts", [(8,), (5, 3), (2, 2, 4)])
@pytest.mark.parametrize(("most", "looked_at"), [(256 * 5, 5), (256, 4), (256 * 100, 8)])
def test_of_large_maps_the_first_images_of_a_block_are_looked_at_however_it_is_cut(
    kind, cuts, most, looked_at, monkeypatch
):
    # A map of 4 x 8 x 8 has 256 numbers; four images are the least.
    monkeypatch.setattr("kornia_lightning_probe.metrics.maps.equivariance._MOST_NUMBERS", most)
    # Pieces that do not end with the images.
    monkeypatch.setattr("kornia_lightning_probe.functional.memory._CACHED", 3 * 256)
    clean, augmented = uniform(8, 4, 8, 8), uniform(8, 4, 8, 8, seed=1)
    whole = about_of(clean, augmented, matrices(ROT90))
    every, few = measured(kind(max_images=None), whole), kind().prepare(["view"], ["layer"], 8)
    start = 0
    for count in cuts:
        about = some_rows(whole, slice(start, start + count))
        few.update(about.clean, about.augmented, about)
        start += count
    expected = every.table.clone()
    expected[..., looked_at:] = torch.nan
    torch.testing.assert_close(few.table, expected, equal_nan=True)
    assert few.estimates().num_images.item() == looked_at
