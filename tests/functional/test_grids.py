import json

import pytest
import torch

from kornia_lightning_probe.functional.grids import Grid


@pytest.mark.parametrize(("pixels", "cells"), [(8, 4), (8, 8), (224, 7), (30, 4)])
def test_cells_that_tile_an_image_end_where_it_ends(pixels, cells):
    # The edges of the grid, -1/2 and cells - 1/2, lie on those of the image, -1/2 and pixels - 1/2.
    edges = torch.tensor([[-0.5, -0.5, 1.0], [cells - 0.5, cells - 0.5, 1.0]], dtype=torch.float64).T
    x, y, _ = Grid.tiling((pixels, pixels), (cells, cells)).to_image() @ edges
    torch.testing.assert_close(x, torch.tensor([-0.5, pixels - 0.5], dtype=torch.float64))
    torch.testing.assert_close(y, x)


def test_axes_run_down_and_right_and_points_are_right_and_down():
    matrix = Grid((4, 8), (8.0, 4.0), (1.0, 2.0), (0.0, 0.0)).to_image()
    # Column 3 lies at 2 + 4 * 3, row 2 at 1 + 8 * 2.
    assert (matrix @ torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)).tolist() == [14.0, 17.0, 1.0]


def test_its_facts_are_plain_numbers_for_each_axis():
    facts = Grid((4, 8), (8.0, 4.0), (1.0, 2.5), (0.0, 0.5)).facts()
    assert facts == {"size": [4, 8], "stride": [8.0, 4.0], "offset": [1.0, 2.5], "spread": [0.0, 0.5]}
    assert json.loads(json.dumps(facts)) == facts
