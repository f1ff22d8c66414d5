import torch

from kornia_lightning_probe.activations.cells import Cells
from kornia_lightning_probe.activations.site import Site
from kornia_lightning_probe.functional.grids import Grid

TILING = Grid.tiling((8, 8), (4, 4))


def test_cells_are_those_of_a_map_unless_they_are_brought_into_order():
    maps = torch.rand(2, 3, 4, 4)
    assert Cells(TILING).as_map(maps) is maps
    assert torch.equal(Cells(TILING, lambda x: x.movedim(3, 1)).as_map(maps.movedim(1, 3)), maps)


def test_cells_are_equal_where_they_lie_alike_in_whatever_order():
    # Processes compare the text of their sites, which may not hold an address.
    turned = Cells(TILING, lambda x: x.movedim(3, 1))
    assert turned == Cells(TILING)
    assert (hash(turned), repr(turned)) == (hash(Cells(TILING)), repr(Cells(TILING)))
    assert turned != Cells(Grid.tiling((9, 8), (4, 4)))


def test_a_site_has_a_grid_where_its_cells_are_those_of_a_map():
    volume = Grid((2, 4, 4), (1.0,) * 3, (0.0,) * 3, (0.0,) * 3)
    grids = [Site("layer", 1, (3, 4, 4), cells=cells).grid for cells in (Cells(TILING), Cells(volume), "lost", None)]
    assert grids == [TILING, None, None, None]
