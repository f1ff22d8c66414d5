import pytest
import torch
from support.activations import normal

from kornia_lightning_probe.metrics import CleanBlock, Movements, mask_non_finite

VIEWS = 3


def blocks_of(number, count=6, width=4):
    """Clean features of several layers, and the same layers' features under views."""
    clean = [normal(count, width, seed=2 * layer).float() for layer in range(number)]
    augmented = [normal(VIEWS, count, width, seed=2 * layer + 1).float() for layer in range(number)]
    return clean, augmented


def expected(clean, augmented, keep):
    """The four quantities of one view from their definitions, in float64, over the images that are kept."""
    a, b = clean[keep].double(), augmented[keep].double()
    moved, n = b - a, len(a)
    products = moved @ moved.T
    return (
        products.diagonal(),
        (products.sum(1) - products.diagonal()) / (n - 1),
        n / (n - 1) * (b - b.mean(0)).square().sum(1),
        moved.square().mean(0),
    )


def close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


def test_each_layer_of_several_has_the_movement_of_its_definition():
    clean, augmented = blocks_of(3)
    movements = Movements([CleanBlock(features) for features in clean], augmented)
    for layer in range(3):
        movement = movements[layer]
        for view in range(VIEWS):
            for found, wanted in zip(
                movement, expected(clean[layer], augmented[layer][view], slice(None)), strict=True
            ):
                assert found.dtype == torch.float64
                close(found[view], wanted)


@pytest.mark.parametrize("spoilt", ["clean", "augmented"])
@pytest.mark.parametrize("entry", [torch.nan, torch.inf])
def test_an_image_that_is_not_finite_is_left_out_where_it_is_and_nowhere_else(spoilt, entry):
    clean, augmented = blocks_of(2)
    if spoilt == "clean":
        clean[1][2, 0] = entry
    else:
        augmented[1][1, 2, 0] = entry
    blocks = [CleanBlock(features) for features in clean]
    mask_non_finite(blocks)
    movements = Movements(blocks, augmented)
    others = torch.tensor([0, 1, 3, 4, 5])
    for layer, view in ((0, 0), (0, 1), (1, 0), (1, 1)):
        is_spoilt = layer == 1 and (spoilt == "clean" or view == 1)
        keep = others if is_spoilt else torch.arange(6)
        wanted = expected(clean[layer], augmented[layer][view], keep)
        for found, one in zip(movements[layer][:3], wanted, strict=False):
            close(found[view][keep], one)
            assert found[view].isnan().tolist() == [is_spoilt and image == 2 for image in range(6)]
        close(movements[layer].change[view], wanted[3])


def test_a_single_image_has_a_length_and_shares_nothing():
    movement = Movements([CleanBlock(torch.zeros(1, 2))], [torch.tensor([[[3.0, 4.0]]])])[0]
    assert movement.squared_length.tolist() == [[25.0]]
    assert movement.change.tolist() == [[9.0, 16.0]]
    assert movement.shared.isnan().all()
    assert movement.deviation.isnan().all()


def test_autocast_around_it_changes_nothing():
    clean, augmented = blocks_of(2)
    plain = Movements([CleanBlock(features) for features in clean], augmented)[1]
    with torch.autocast("cpu", torch.bfloat16):
        cast = Movements([CleanBlock(features) for features in clean], augmented)[1]
    assert all(torch.equal(one, other) for one, other in zip(plain, cast, strict=True))


def test_a_mean_that_is_large_beside_the_spread_costs_no_digit():
    # Features that float32 holds exactly, a thousand deviations from zero.
    clean = torch.arange(8.0).view(4, 2) / 4 + 1000
    augmented = (clean + torch.tensor([0.25, -0.5])).unsqueeze(0)
    movement = Movements([CleanBlock(clean)], [augmented])[0]
    assert movement.squared_length.tolist() == [[0.3125] * 4]
    assert movement.shared.tolist() == [[0.3125] * 4]
    close(movement.deviation[0], expected(clean, augmented[0], slice(None))[2])


@pytest.mark.parametrize("scale", [1e-21, 1e25])
def test_features_whose_squares_float32_cannot_hold_move_as_others(scale):
    clean, augmented = blocks_of(1)
    block = CleanBlock(scale * clean[0])
    mask_non_finite([block])
    movement = Movements([block], [scale * augmented[0]])[0]
    for found, wanted in zip(movement, expected(clean[0], augmented[0][0], slice(None)), strict=True):
        close(found[0] / scale**2, wanted)


def test_some_rows_of_a_block_move_by_themselves():
    clean, augmented = blocks_of(1)
    rows = slice(2, 5)
    movement = Movements([CleanBlock(clean[0])], [augmented[0][:, rows]], rows=rows)[0]
    close(movement.squared_length[0], expected(clean[0], augmented[0][0], rows)[0])
