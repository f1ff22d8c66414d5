import math

import pytest
import torch
from support.activations import LAYER, estimate, normal, pair, record_of
from support.plain_measures import OUTPUT, PLAIN, POOLED

from kornia_lightning_probe.activations.clean import CleanBlock
from kornia_lightning_probe.metrics import About, BlockMetric, Distances, resolve_metrics

every_measure = pytest.mark.parametrize("name", PLAIN)


def metric_of(name):
    return resolve_metrics([name])[0]


# Without two images of one class it has no value.
WITHIN = "sensitivity_within"
WITHOUT_ERROR = ("channel_dominance", "channel_median", "image_dominance")
WITH_ERROR = [name for name in PLAIN if name not in WITHOUT_ERROR]


@every_measure
@pytest.mark.parametrize("count", [4, 31, 33])
def test_a_measure_is_what_its_definition_says(name, count):
    clean, augmented = pair(count, 5, moved=0.8)
    found = estimate(metric_of(name), clean, augmented, [range(count)])
    # n/(n-1) is in float32.
    expected = PLAIN[name](clean, augmented).item()
    assert found.value == pytest.approx(expected, rel=1e-7, abs=1e-12, nan_ok=name == WITHIN)
    # Of 4 images each has a class of its own, and of 5 classes in 31 every image has another one.
    assert found.num_images == (0 if name == WITHIN and count == 4 else count)


@every_measure
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mean", [0, 10, 100, 1000])
@pytest.mark.parametrize("width", [2, 1000])
def test_activations_of_low_precision_on_a_large_mean_lose_no_digits(name, width, mean, dtype):
    clean, augmented = ((x + mean).to(dtype) for x in pair(31, width))
    found = estimate(metric_of(name), clean, augmented, [range(31)])
    # Differences of numbers that are close are exact, of others rounded to 6e-8 of themselves; the mean is rounded to
    # 6e-8 of 1000 spreads, which enters distances from it in second order: 2e-6 is above all of it.
    expected = PLAIN[name](clean.double(), augmented.double()).item()
    # In bfloat16 numbers around 1000 are 4 apart: two features may not move at all, and share nothing then.
    assert found.value == pytest.approx(
        expected, rel=2e-6, abs=2e-6, nan_ok=(width, mean) == (2, 1000) or name == WITHIN
    )


@every_measure
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_hundred_thousand_features_lose_no_digits(name, dtype):
    clean, augmented = ((x + 1000).to(dtype) for x in pair(4, 100_000))
    found = estimate(metric_of(name), clean, augmented, [range(4)])
    expected = PLAIN[name](clean.double(), augmented.double()).item()
    assert found.value == pytest.approx(expected, rel=2e-6, abs=2e-6, nan_ok=name == WITHIN)


@pytest.mark.parametrize("name", [name for name in PLAIN if name not in OUTPUT])
def test_a_single_feature_is_a_representation_too(name):
    clean, augmented = pair(31, 1)
    found = estimate(metric_of(name), clean, augmented, [range(31)])
    assert found.value == pytest.approx(PLAIN[name](clean, augmented).item(), rel=1e-7)


@pytest.mark.parametrize("name", ["sensitivity_pooled", *POOLED])
@pytest.mark.parametrize("broken", [None, "clean", "augmented"])
def test_several_views_at_once_are_one_view_at_a_time(name, broken):
    clean = normal(9, 20)
    views = [clean + shift * normal(9, 20, seed=seed) for seed, shift in ((1, 0.1), (2, 1.0), (3, 10.0))]
    if broken == "clean":
        clean[2, 1] = math.nan
    elif broken == "augmented":
        views[1][5] = math.inf
    block = CleanBlock(clean)
    block.mask_non_finite()
    alone, together = (metric_of(name).prepare(range(4), [LAYER], 9) for _ in range(2))
    for index, augmented in enumerate(views, start=1):
        record = record_of(block, augmented, view_index=index)
        alone.update(record.clean, record.augmented, record)
    record = record_of(block, torch.stack(views), view_index=1, num_views=3)
    if isinstance(together, BlockMetric):
        statistics = together.measure_block(record.clean, record.augmented, record)
    else:
        movement = record.movement.squared_length
        statistics = together.measure_distances(Distances(block, slice(0, 9), movement))
    together.write({LAYER: statistics}, range(1, 4), (0, 9), record.valid)
    # Without a finite distance it is infinite or none at all, which is the same to all that reads it.
    finite = alone.table.isfinite()
    assert torch.equal(together.table.isfinite(), finite)
    torch.testing.assert_close(together.table[finite], alone.table[finite], rtol=1e-12, atol=0)
    assert torch.equal(together.filled, alone.filled)
    assert not together.filled[0].any()


def population(count, seed):
    """Images of unequal channels that shrink, move by unequal amounts and share a shift, and their labels."""
    clean = normal(count, 6, seed=seed) * torch.linspace(0.5, 2, 6)
    own = normal(count, 6, seed=seed + 1) * normal(count, 1, seed=seed + 2)
    labels = (clean + own.flip(0)).argmax(1)
    return clean, 0.8 * clean + own + 0.3, labels


@pytest.mark.parametrize("name", WITH_ERROR)
def test_the_standard_error_is_the_spread_over_draws_of_the_images(name):
    draws, count = 300, 64
    ready = metric_of(name).prepare(range(draws), [LAYER], count)
    for draw in range(draws):
        clean, augmented, labels = population(count, seed=3 * draw)
        for start in (0, 32):
            rows = slice(start, start + 32)
            record = About.of(
                clean[rows],
                augmented[rows],
                layer=LAYER,
                view_index=draw,
                ids=range(start, start + 32),
                labels=labels[rows],
            )
            ready.update(record.clean, record.augmented, record)
    found = ready.estimates()
    # 300 draws know a spread to 1/sqrt(600) = 4 %, of which 3 are allowed, and the claim's own error is of order 1/N.
    assert found.std_error.mean() / found.value.std() == pytest.approx(1, abs=0.15)
