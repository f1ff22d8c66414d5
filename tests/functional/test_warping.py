import torch
from support.moves import at_corners, hflip, rand, shift, tiling

from kornia_lightning_probe.functional.warping import (
    carried_to_grid,
    eroded,
    inside,
    masked_squared_distance,
    moves,
    sample,
    transform_cells,
)


def test_a_grid_that_tiles_the_image_is_mirrored_exactly_and_one_at_a_corner_is_half_a_cell_off():
    # Pixel 2 x_f goes to 7 - 2 x_f, which is cell 3.5 - x_f; half-pixel: 2 x_f + .5 to 6.5 - 2 x_f, cell 3 - x_f.
    half = carried_to_grid(hflip(8), tiling(8, 4).to_image())
    corner = carried_to_grid(hflip(8), at_corners(4, 2.0).to_image())
    assert half[0, 0].tolist() == [-1.0, 0.0, 3.0]
    assert corner[0, 0].tolist() == [-1.0, 0.0, 3.5]


def test_points_behind_the_camera_and_matrices_that_are_not_finite_are_outside():
    # w = x - 1 is negative for x = 0, zero for x = 1 and positive for x = 2.
    behind = torch.tensor([[[1.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, -1.0]]])
    broken = torch.full((1, 3, 3), torch.nan)
    seen = inside(transform_cells(torch.cat([behind, broken]), (3, 3)), (3, 3))
    assert not seen[0, :, :2].any()
    assert seen[0, :, 2].any()
    assert not seen[1].any()
    assert sample(rand(2, 1, 3, 3), transform_cells(torch.cat([behind, broken]), (3, 3))).isfinite().all()


def test_erosion_takes_the_rim_of_the_grid_and_all_neighbours_of_a_hole():
    mask = torch.ones(1, 5, 6, dtype=torch.bool)
    mask[0, 1, 1] = False
    expected = torch.tensor([[0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 0], [0, 1, 1, 1, 1, 0], [0] * 6])
    assert eroded(mask)[0].int().equal(expected.int())


def test_rounding_moves_nothing_and_a_small_perspective_does():
    # RandomRotation(0) leaves 1e-5; a perspective term of 1e-4 moves pixel 223 by about 5.
    rounded = shift(1e-5, -1e-5)
    tilted = shift(0.0, 0.0)
    tilted[0, 2, 0] = 1e-4
    assert moves(torch.cat([rounded, tilted, torch.full((1, 3, 3), torch.nan)]), (224, 224)).tolist() == [
        False,
        True,
        True,
    ]


def test_a_map_that_is_not_finite_anywhere_has_no_masked_norm():
    maps = torch.ones(3, 2, 2, 2)
    maps[1, 0, 0, 1], maps[2, 0, 0, 1] = torch.inf, torch.nan
    mask = torch.tensor([[[True, False], [True, False]]]).repeat(3, 1, 1)
    norms = masked_squared_distance(maps, torch.zeros(1, 2, 2, 2), mask, buffer=torch.empty_like(maps))
    assert norms[0] == 4.0
    assert norms[1:].isnan().all()
