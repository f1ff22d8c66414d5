import math

import pytest
import torch
from support.activations import LAYER, estimate, normal, pair

from kornia_lightning_probe.metrics import (
    About,
    SharedShift,
)


def value(metric, clean, augmented, blocks=None):
    return float(estimate(metric, clean, augmented, blocks).value)


def test_shared_shift_is_the_mean_product_of_two_images_movements():
    clean, augmented = pair(9)
    moved = augmented - clean
    products = moved @ moved.T
    shared = (products.sum() - products.trace()) / (9 * 8)
    assert value(SharedShift(), clean, augmented) == pytest.approx((shared / (products.trace() / 9)).item())


@pytest.mark.parametrize("count", [2, 4, 32])
def test_shared_shift_of_independent_movement_is_zero_in_the_mean_whatever_the_block(count):
    # |mean(b - a)|^2 / mean |b - a|^2 would read 1/n. Products of two images are 0 in expectation, of variance 1/d
    # for normal movement of length 1 in d dimensions; a block's mean of n(n-1)/2 of them has variance 2/(d n(n-1)).
    # The estimate is a mean over 2048 / n blocks, and 4 standard deviations of it are allowed.
    features, images = 8, 2048
    clean = normal(images, features)
    moved = clean + normal(images, features, seed=7)
    blocks = [range(start, start + count) for start in range(0, images, count)]
    bound = 4 * (2 / (features * count * (count - 1)) / len(blocks)) ** 0.5
    assert abs(value(SharedShift(), clean, moved, blocks)) < bound


def test_half_shared_and_half_own_movement_reads_one_half():
    # |E s|^2 = 6 of a shift by 1 in 6 features, and 6 more of noise of standard deviation 1.
    clean = normal(4096, 6)
    found = estimate(SharedShift(), clean, clean + 1 + normal(4096, 6, seed=3))
    assert abs(found.value - 0.5) < 4 * found.std_error
    assert found.std_error < 0.02


def test_the_error_of_shared_shift_is_from_above_where_nothing_is_shared():
    # Each product counts for two images; where the projection on single images vanishes this is the root of 2 too much.
    ready = SharedShift().prepare(range(300), [LAYER], 32)
    for view in range(300):
        clean = normal(32, 6, seed=2 * view)
        augmented = clean + normal(32, 6, seed=2 * view + 1)
        ready.update(clean, augmented, About.of(clean, augmented, layer=LAYER, view_index=view))
    found = ready.estimates()
    # 300 draws know a spread to 1/sqrt(600) = 4 %, of which 3 are allowed.
    assert found.std_error.mean() / found.value.std() == pytest.approx(2**0.5, rel=0.12)


@pytest.mark.parametrize("own", [0.1, 0.5, 1.0])
def test_the_error_of_shared_shift_is_the_spread_over_draws_where_something_is_shared(own):
    # One shift by 1 in each of 6 features, and noise of each image's own: from nearly all shared to one half.
    blocks = [range(start, start + 16) for start in range(0, 64, 16)]
    ready = SharedShift().prepare(range(400), [LAYER], 64)
    for view in range(400):
        clean = normal(64, 6, seed=2 * view)
        augmented = clean + 1 + own * normal(64, 6, seed=2 * view + 1)
        for block in blocks:
            rows = slice(block.start, block.stop)
            about = About.of(clean[rows], augmented[rows], layer=LAYER, view_index=view, ids=block)
            ready.update(clean[rows], augmented[rows], about)
    found = ready.estimates()
    # 400 draws know a spread to 1/sqrt(800) = 3.5 %; a sixteenth of the variance is counted twice.
    assert found.std_error.square().mean().sqrt() / found.value.std() == pytest.approx(1.03, abs=0.12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_movement_that_is_rounding_only_is_not_shared_and_not_apart(dtype):
    clean = 1 + normal(8, 64, dtype=dtype)
    eps = torch.finfo(dtype).eps
    rounded = clean * (1 + 8 * eps * normal(8, 64, seed=1, dtype=dtype))
    assert math.isnan(value(SharedShift(), clean, rounded))
    # One image that moves is movement.
    rounded[2] += 1
    assert math.isfinite(value(SharedShift(), clean, rounded))
