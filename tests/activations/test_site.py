from dataclasses import replace

import pytest

from kornia_lightning_probe.activations.layout import layout_of
from kornia_lightning_probe.activations.readouts import readouts_of
from kornia_lightning_probe.activations.site import Site


@pytest.mark.parametrize(
    ("shape", "has_cells"),
    [((), False), ((5,), False), ((10, 4), True), ((3, 8, 8), True), ((8, 8, 3), True), ((3, 4, 5, 6), True)],
)
def test_cells_are_what_a_layer_of_more_than_one_axis_has_in_every_form_in_which_it_is_read(shape, has_cells):
    for readout in readouts_of(Site("layer", 1, shape)):
        assert readout.site.has_cells is has_cells


@pytest.mark.parametrize("kind", ["input", "output"])
def test_pixels_and_predictions_have_none_that_move_along(kind):
    # The pixels are what is moved, and scores of pixels are compared by what is predicted.
    for readout in readouts_of(Site(kind, 0, (3, 8, 8), kind)):
        assert not readout.site.has_cells


def test_the_layout_is_that_of_the_shape_beside_the_images_size():
    site = Site("layer", 1, (12, 20, 32), image_size=(96, 160))
    assert site.layout == layout_of((12, 20, 32), image_size=(96, 160))
    assert replace(site, image_size=None).layout == layout_of((12, 20, 32))
