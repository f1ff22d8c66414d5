import pytest
import torch
from kornia.geometry.transform import warp_perspective
from support.moves import at_corners, hflip, perspective, rand, rotation, shift, tiling

from kornia_lightning_probe.functional.grid_warp import GridWarp
from kornia_lightning_probe.functional.grids import Grid
from kornia_lightning_probe.functional.warping import inside, sample


def _warped(maps, matrix):
    """What maps show, moved by a matrix on their own grid."""
    height, width = maps.shape[2:]
    return sample(maps, GridWarp(matrix, (height, width), Grid.tiling((height, width), (height, width))).sources)


@pytest.mark.parametrize("singular", [torch.zeros(1, 3, 3), torch.arange(9.0).view(1, 3, 3), torch.ones(1, 3, 3)])
def test_a_singular_matrix_leaves_nothing_that_can_tell(singular):
    grid = GridWarp(singular, (8, 8), tiling(8, 4))
    assert not grid.mask.any()
    assert not grid.mask_back.any()
    assert sample(rand(1, 2, 4, 4), grid.sources).isfinite().all()


def test_a_matrix_moves_what_a_map_shows_from_source_to_destination():
    # x -> x + 1, y -> y + 2: what was at (0, 0) is at (1, 2) now.
    maps = torch.zeros(1, 1, 4, 4)
    maps[0, 0, 0, 0] = 1.0
    moved = _warped(maps.roll((1, 1), (2, 3)), shift(1.0, 2.0))
    assert (moved[0, 0] > 0.5).nonzero().tolist() == [[3, 2]]


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_rotation_by_quarter_turns_is_exact(quarters):
    maps = rand(1, 2, 7, 7)
    torch.testing.assert_close(_warped(maps, rotation(90 * quarters, 7)), maps.rot90(quarters, (2, 3)))


@pytest.mark.parametrize("matrix", [perspective(), rotation(20, 12), shift(1.3, -0.6), hflip(12)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_warp_is_that_of_kornia_wherever_the_source_is_inside(matrix, dtype):
    maps = rand(1, 3, 12, 12).to(dtype)
    ours, theirs = _warped(maps, matrix), warp_perspective(maps, matrix.to(dtype), (12, 12))
    mask = inside(GridWarp(matrix, (12, 12), tiling(12, 12)).sources, (12, 12)).unsqueeze(1)
    assert mask.float().mean() > 0.6
    assert ours.dtype == dtype
    torch.testing.assert_close(ours * mask, theirs * mask, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("matrix", "grid", "expected"),
    [
        # Nothing leaves the grid: only its rim goes.
        (hflip(8), tiling(8, 4), [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]),
        # Sources 3.5, 2.5, 1.5, .5: the first column is outside, and its neighbour goes with it.
        (hflip(8), at_corners(4, 2.0), [[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]),
        # Sources -.5, .5, 1.5, 2.5 in both directions.
        (shift(1.0, 1.0), tiling(8, 4), [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]),
        # Two cells: sources -2, -1, 0, 1, and what is inside is all rim.
        (shift(4.0, 0.0), tiling(8, 4), [[0] * 4] * 4),
        # The identity: an image that stays put is not looked at.
        (shift(0.0, 0.0), tiling(8, 4), [[0] * 4] * 4),
    ],
)
def test_the_mask_of_a_small_grid_is_as_counted_by_hand(matrix, grid, expected):
    assert GridWarp(matrix, (8, 8), grid).mask[0].int().tolist() == expected


def test_the_mask_of_the_way_back_leaves_out_what_was_lost_on_the_way_there():
    # One cell to the right: columns 0 to 3 go to 1 to 4, and on a grid of 5 column 4 is lost.
    expected = torch.zeros(5, 5)
    expected[1:4, 1:3] = 1
    assert GridWarp(shift(2.0, 0.0), (10, 10), tiling(10, 5)).mask_back[0].float().equal(expected)


def test_what_leaves_the_frame_on_the_way_through_a_chain_is_masked():
    # Two cells to the right and back: a whole that moves down by one cell only, but columns 3 and 4 of 5 were lost.
    there, whole = shift(4.0, 0.0), shift(0.0, 2.0)
    direct = GridWarp(whole, (10, 10), tiling(10, 5)).mask[0].int()
    chained = GridWarp(whole, (10, 10), tiling(10, 5), through=there.unsqueeze(1)).mask[0].int()
    assert direct.tolist() == [[0] * 5, [0] * 5, *[[0, 1, 1, 1, 0]] * 2, [0] * 5]
    assert chained.tolist() == [[0] * 5, [0] * 5, *[[0, 1, 0, 0, 0]] * 2, [0] * 5]


# A crop of 12 pixels to the 8 from pixel 2 on: what was at x is at x - 2. Then a pad to 12, that moves nothing.
CROP = shift(-2.0, -2.0).unsqueeze(1)


def test_a_pixel_that_a_crop_has_cut_off_does_not_come_back_with_a_pad():
    # Pixels 2 to 9 are 0 to 7 now, and what comes behind is made up: of the 12, 0 to 7 are known, 1 to 6 eroded.
    mask = GridWarp(shift(-2.0, -2.0), (12, 12), tiling(12, 12), through=CROP, frames=[(8, 8)]).mask[0].int()
    expected = torch.zeros(12, 12, dtype=torch.int)
    expected[1:7, 1:7] = 1
    assert mask.equal(expected)


def test_a_cell_of_several_pixels_is_lost_with_any_of_them():
    # Cells of 3 pixels: 0 and 1 are pixels 0 to 5, and cell 2 holds pixels 6 to 8, of which 8 was cut off.
    warp = GridWarp(shift(-2.0, -2.0), (12, 12), tiling(12, 4), through=CROP, frames=[(8, 8)])
    assert warp.kept[0, 0].tolist() == [True, True, False, False]
    # Of one pixel more in the frame it is whole.
    wider = GridWarp(shift(-2.0, -2.0), (12, 12), tiling(12, 4), through=CROP, frames=[(9, 9)])
    assert wider.kept[0, 0].tolist() == [True, True, True, False]


def test_a_frame_that_grows_on_the_way_loses_nothing():
    # A pad to 20 pixels, then the crop of the 12 from pixel 4 on: pixels 4 to 11 are 0 to 7.
    there = shift(0.0, 0.0).unsqueeze(1)
    padded = GridWarp(shift(-4.0, 0.0), (12, 12), tiling(12, 12), through=there, frames=[(20, 20)])
    assert padded.kept.all()
    assert padded.mask.equal(GridWarp(shift(-4.0, 0.0), (12, 12), tiling(12, 12)).mask)
    # In a frame of the images' size nothing of it would be lost either: pixel 11 was the last.
    assert GridWarp(shift(-4.0, 0.0), (12, 12), tiling(12, 12), through=there).mask.equal(padded.mask)


def test_each_frame_has_its_own_size_also_where_images_are_resized_in_between():
    # A crop to the 6 from pixel 0 on, those enlarged to 11 (x -> 2 x), and a pad to 12: pixels 0 to 10 are known.
    twice = torch.diag(torch.tensor([2.0, 2.0, 1.0]))
    through = torch.stack([shift(0.0, 0.0)[0], twice]).unsqueeze(0)
    warp = GridWarp(twice.unsqueeze(0), (12, 12), tiling(12, 12), through=through, frames=[(6, 6), (11, 11)])
    assert warp.kept[0, 0].tolist() == [True] * 11 + [False]


def test_a_frame_of_one_row_holds_that_row_alone():
    through = shift(0.0, 0.0).unsqueeze(1)
    warp = GridWarp(shift(1.0, 0.0), (12, 12), tiling(12, 12), through=through, frames=[(1, 12)])
    # A column further right than its source: column 0 comes from nowhere.
    assert warp.kept[0].nonzero().tolist() == [[0, column] for column in range(1, 12)]


@pytest.mark.parametrize(
    "matrix",
    [hflip(12, 3), rotation(90, 12).repeat(3, 1, 1), shift(2.0, -4.0, 3), torch.cat([hflip(12), shift(0, 0, 2)])],
)
@pytest.mark.parametrize("cells", [12, 6])
def test_moves_by_whole_cells_are_exact(matrix, cells):
    maps = rand(3, 2, cells, cells)
    warp = GridWarp(matrix, (12, 12), tiling(12, cells))
    carried = warp.carried(maps)
    torch.testing.assert_close(carried, sample(maps, warp.sources), rtol=0, atol=1e-5)
    # Cells there and back are the same bits; those at the border of the mask may come from outside.
    returned = warp.carried_back(carried)
    kept = warp.mask_back.unsqueeze(1).expand_as(maps)
    assert torch.equal(returned[kept], maps[kept])
    # Every value is one of the map's.
    assert all(torch.isin(image, own).all() for image, own in zip(carried, maps, strict=True))
    assert torch.equal(warp.carried(maps[1:], slice(1, 3)), carried[1:])


@pytest.mark.parametrize("matrix", [rotation(20, 12), shift(0.5, 0.0), torch.cat([hflip(12), shift(1.0, 0.0)])])
def test_what_lies_between_cells_is_interpolated(matrix):
    # A pixel to the right is half a cell of two.
    maps = rand(len(matrix), 2, 6, 6)
    warp = GridWarp(matrix, (12, 12), tiling(12, 6))
    assert torch.equal(warp.carried(maps), sample(maps, warp.sources))


def test_a_grid_says_whether_anything_moves():
    assert not GridWarp(shift(0.0, 0.0, 3), (8, 8), tiling(8, 4)).moves_any
    assert GridWarp(torch.cat([shift(0.0, 0.0), shift(0.0, 1.0)]), (8, 8), tiling(8, 4)).moves_any
