import pytest
from support.activations import estimate, normal, pair

from kornia_lightning_probe.metrics import (
    SpreadRatio,
)


def value(metric, clean, augmented, blocks=None):
    return float(estimate(metric, clean, augmented, blocks).value)


def test_images_that_move_apart_have_a_spread_ratio_above_one():
    clean = normal(32, 5) + 3
    for alpha in (0.25, 1.0, 4.0):
        assert value(SpreadRatio(), clean, alpha * clean + 9) == pytest.approx(alpha)


def test_independent_noise_adds_to_the_spread_in_squares():
    # Trace of the covariance: 6 of the clean features, 6 * 4 of the noise.
    clean, augmented = pair(4096, moved=2.0)
    found = estimate(SpreadRatio(), clean, augmented)
    assert abs(found.value - 5**0.5) < 4 * found.std_error
