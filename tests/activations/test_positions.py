import pytest
import torch

from kornia_lightning_probe.activations.positions import by_position, positions_of
from kornia_lightning_probe.activations.site import Site


@pytest.mark.parametrize(
    ("shape", "options", "expected"),
    [
        ((64, 7, 7), {}, (7, 7)),
        ((7, 7, 64), {"image_size": (28, 28)}, (7, 7)),
        ((50, 768), {}, (50,)),
        ((4, 64, 7, 7), {"image_size": (28, 28), "depth": 4, "is_folded": True}, (4, 7, 7)),
        ((64, 4, 7, 7), {"image_size": (28, 28), "depth": 8}, (4, 7, 7)),
        ((64,), {}, ()),
    ],
    ids=["map", "channels last", "tokens", "slices first", "volume", "vector"],
)
def test_positions_are_what_is_left_of_the_axes_without_channels(shape, options, expected):
    site = Site("layer", 1, shape, **options)
    assert tuple(positions_of(site)) == expected
    found = by_position(torch.ones(3, *shape), site)
    assert found.shape == (3, positions_of(site).numel())
    # Each position holds its channels.
    assert set(found.flatten().tolist()) == {float(torch.tensor(shape).prod() / positions_of(site).numel())}
