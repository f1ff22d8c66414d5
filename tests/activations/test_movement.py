from dataclasses import astuple

import pytest
import torch
from support.activations import normal

from kornia_lightning_probe.activations.clean import CleanBlock, mask_non_finite
from kornia_lightning_probe.activations.movement import Movement

VIEWS = 3


def features(count=6, width=4):
    """Clean features, and the same images' features under views."""
    return normal(count, width).float(), normal(VIEWS, count, width, seed=1).float()


def expected(clean, augmented, keep=slice(None)):
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


def test_it_is_what_its_definitions_say():
    clean, augmented = features()
    movement = Movement.of(CleanBlock(clean), augmented)
    for view in range(VIEWS):
        for found, wanted in zip(astuple(movement), expected(clean, augmented[view]), strict=True):
            assert found.dtype == torch.float64
            close(found[view], wanted)


@pytest.mark.parametrize("spoilt", ["clean", "augmented"])
@pytest.mark.parametrize("entry", [torch.nan, torch.inf])
def test_an_image_that_is_not_finite_is_left_out_where_it_is_and_nowhere_else(spoilt, entry):
    clean, augmented = features()
    if spoilt == "clean":
        clean[2, 0] = entry
    else:
        augmented[1, 2, 0] = entry
    block = CleanBlock(clean)
    mask_non_finite([block])
    movement = Movement.of(block, augmented)
    others = torch.tensor([0, 1, 3, 4, 5])
    for view in (0, 1):
        is_spoilt = spoilt == "clean" or view == 1
        keep = others if is_spoilt else torch.arange(6)
        squared_length, shared, deviation, change = expected(clean, augmented[view], keep)
        per_image = (movement.squared_length, movement.shared, movement.deviation)
        for found, wanted in zip(per_image, (squared_length, shared, deviation), strict=True):
            close(found[view][keep], wanted)
            assert found[view].isnan().tolist() == [is_spoilt and image == 2 for image in range(6)]
        close(movement.change[view], change)


def test_a_single_image_has_a_length_and_shares_nothing():
    movement = Movement.of(CleanBlock(torch.zeros(1, 2)), torch.tensor([[[3.0, 4.0]]]))
    assert movement.squared_length.tolist() == [[25.0]]
    assert movement.change.tolist() == [[9.0, 16.0]]
    assert movement.shared.isnan().all()
    assert movement.deviation.isnan().all()


def test_autocast_around_it_changes_nothing():
    clean, augmented = features()
    plain = Movement.of(CleanBlock(clean), augmented)
    with torch.autocast("cpu", torch.bfloat16):
        cast = Movement.of(CleanBlock(clean), augmented)
    for one, other in zip(astuple(plain), astuple(cast), strict=True):
        assert torch.equal(one, other)


def test_a_mean_that_is_large_beside_the_spread_costs_no_digit():
    # Features that float32 holds exactly, a thousand deviations from zero.
    clean = torch.arange(8.0).view(4, 2) / 4 + 1000
    augmented = (clean + torch.tensor([0.25, -0.5])).unsqueeze(0)
    movement = Movement.of(CleanBlock(clean), augmented)
    assert movement.squared_length.tolist() == [[0.3125] * 4]
    assert movement.shared.tolist() == [[0.3125] * 4]
    close(movement.deviation[0], expected(clean, augmented[0])[2])


@pytest.mark.parametrize("scale", [1e-21, 1e25])
def test_features_whose_squares_float32_cannot_hold_move_as_others(scale):
    clean, augmented = features()
    block = CleanBlock(scale * clean)
    mask_non_finite([block])
    movement = Movement.of(block, scale * augmented)
    for found, wanted in zip(astuple(movement), expected(clean, augmented[0]), strict=True):
        close(found[0] / scale**2, wanted)


def test_features_of_several_axes_move_as_their_flattened_ones():
    clean, augmented = features()
    flat = Movement.of(CleanBlock(clean), augmented)
    folded = Movement.of(CleanBlock(clean.view(6, 2, 2)), augmented.view(VIEWS, 6, 2, 2))
    for one, other in zip(astuple(flat), astuple(folded), strict=True):
        close(one, other)
