import math

import pytest
import torch
from support.activations import estimate, measured, normal, numbers, pair, prepared, record_of

from kornia_lightning_probe.activations.clean import Centre, CleanBlock
from kornia_lightning_probe.functional import error_of_influence
from kornia_lightning_probe.metrics import CentredCosine

# One block, whatever its size.
WHOLE = [range(32)]


def cosine(clean, augmented, blocks=None):
    return float(estimate(CentredCosine(), clean, augmented, blocks).value)


def test_a_view_that_changes_nothing_reads_one_without_an_error():
    clean = normal(33, 5)
    value, error, count = numbers(estimate(CentredCosine(), clean, clean))
    assert value == pytest.approx(1, abs=1e-12)
    assert error == pytest.approx(0, abs=1e-12)
    assert count == 33


@pytest.mark.parametrize("alpha", [1e-3, 0.5, 1.0, 40.0])
def test_shrinking_or_growing_about_the_mean_keeps_the_direction(alpha):
    # b - m = alpha (a - m) is parallel to a - m.
    clean = normal(32, 5) + 7
    mean = clean.mean(0)
    assert cosine(clean, mean + alpha * (clean - mean), WHOLE) == pytest.approx(1, abs=1e-9)


def test_mirroring_at_the_mean_reads_minus_one():
    clean = normal(32, 5) + 7
    assert cosine(clean, 2 * clean.mean(0) - clean, WHOLE) == pytest.approx(-1, abs=1e-12)


@pytest.mark.parametrize("count", [2, 4, 31])
def test_unrelated_images_of_a_block_read_minus_one_over_its_size_less_one(count):
    # (a_i - m) sum to 0, so over j != i the products with a_i - m sum to -|a_i - m|^2; here all have one length.
    clean = torch.eye(count, dtype=torch.float64)
    assert cosine(clean, clean.roll(1, 0), [range(count)]) == pytest.approx(-1 / (count - 1), abs=1e-12)


def test_movement_at_a_right_angle_reads_the_angle_that_it_makes():
    # From (1, 0) and (-1, 0), about the mean 0, to (1, 1) and (-1, -1): 45 degrees.
    clean = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    augmented = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    assert cosine(clean, augmented) == pytest.approx(math.cos(math.pi / 4), abs=1e-7)


def test_scaling_rotating_shifting_and_repeating_features_changes_nothing():
    clean, augmented = pair(32)
    rotation = torch.linalg.qr(normal(6, 6, seed=5)).Q
    expected = cosine(clean, augmented)
    changed = [(3 * x @ rotation + 20).repeat(1, 4) for x in (clean, augmented)]
    assert cosine(*changed) == pytest.approx(expected, abs=1e-12)


def test_it_is_the_mean_of_torchs_own_cosine_about_the_blocks_mean():
    clean, augmented = pair(33, 4, 3, moved=1.0)
    blocks = [range(17), range(17, 33)]
    centred = [(x - clean[list(ids)].mean(0))[None] for ids in blocks for x in (clean[list(ids)], augmented[list(ids)])]
    parts = [
        torch.cosine_similarity(a.flatten(2), b.flatten(2), dim=2).flatten()
        for a, b in zip(centred[::2], centred[1::2], strict=True)
    ]
    found = estimate(CentredCosine(), clean, augmented, blocks)
    values = torch.cat(parts)
    assert found.value == pytest.approx(values.mean().item(), abs=1e-12)
    assert found.std_error == pytest.approx((values.std() / 33**0.5).item(), abs=1e-12)


def test_raw_cosine_is_blind_where_this_is_not():
    # Unrelated images on top of a mean of 100: raw cosine says .9999.
    clean, other = normal(32, 6) + 100, normal(32, 6, seed=9) + 100
    assert torch.cosine_similarity(clean, other).mean() > 0.9998
    assert abs(cosine(clean, other)) < 0.2


def test_an_image_on_the_mean_has_no_direction_and_is_left_out():
    # Clean: -1, 0, 1, so the middle one lies on the mean; the others keep their direction.
    clean = torch.tensor([[-1.0], [0.0], [1.0]])
    found = estimate(CentredCosine(), clean, clean * 2)
    assert found.value == 1
    assert found.num_images == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_images_wiped_to_their_mean_have_no_direction_even_where_rounding_gives_them_one(dtype, offset):
    clean = normal(32, 50, dtype=dtype) + offset
    mean = clean.mean(0, keepdim=True).expand_as(clean)
    noise = torch.finfo(dtype).eps * normal(32, 50, seed=3, dtype=dtype)
    found = estimate(CentredCosine(), clean, mean + noise, WHOLE)
    assert found.value.isnan()
    assert found.num_images == 0


def test_rounding_never_leaves_the_range():
    clean = normal(32, 9, dtype=torch.float32)
    for alpha in (1e-2, 1e-3, 1e-4):
        ready = measured(CentredCosine(), clean, clean.mean(0) + alpha * (clean - clean.mean(0)), WHOLE)
        assert ready.compute().value <= 1
        # Distances of relative error 1e-7 are subtracted from one another: 1e-7 / alpha.
        assert ready.compute().value == pytest.approx(1, abs=4e-7 / alpha)


@pytest.mark.parametrize("activation", [torch.full((8, 3), 5.0), torch.full((8, 3), 0.1)], ids=["5", "0.1"])
def test_a_dead_layer_and_a_single_image_are_not_a_number(activation):
    assert math.isnan(cosine(activation, activation + normal(8, 3, dtype=torch.float32)))
    assert math.isnan(cosine(activation[:1], activation[:1] + 1))


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_non_finite_activation_is_left_out_and_no_other_image_moves(broken):
    clean, augmented = pair(8)
    whole = measured(CentredCosine(), clean, augmented).table.flatten(1)
    augmented[3, 1] = broken
    table = measured(CentredCosine(), clean, augmented).table.flatten(1)
    finite = table.isfinite().all(0)
    assert (~finite).nonzero().flatten().tolist() == [3]
    assert torch.equal(table[:, finite], whole[:, torch.arange(8) != 3])


def test_a_reference_gives_the_mean_for_a_single_image():
    # About the mean (0, 0) of the reference, (1, 0) turns to (0, 1): a right angle.
    reference = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    centre = Centre(reference.mean(0, keepdim=True), torch.tensor(2.0, dtype=torch.float64))
    block = CleanBlock(torch.tensor([[1.0, 0.0]]), centre=centre)
    record = record_of(block, torch.tensor([[0.0, 1.0]]))
    ready = prepared(CentredCosine(), 1)
    ready.update(record.clean, record.augmented, record)
    assert ready.compute().value == pytest.approx(0, abs=1e-7)
    assert ready.compute().std_error.isnan()


@pytest.mark.parametrize(
    ("view", "claimed"),
    [
        (lambda x: x + 0.5 * normal(*x.shape, seed=1), 0.95),
        (lambda x: 0.5 * x + 1, 1.9),
        (lambda x: 0.5 * x + 0.25, math.nan),
        (lambda x: -x + 0.25, math.nan),
    ],
    ids=["noise", "a shift", "less contrast", "an inversion"],
)
def test_the_error_takes_the_blocks_mean_as_given_and_is_none_where_that_makes_it_too_small(view, claimed):
    # 1000 draws of 32 images know their spread to 1/sqrt(2000) = 2 %; the docstring says how far off the claim is.
    drawn = over_draws(view)
    ratio = drawn.std_error.mean() / drawn.value.std()
    assert ratio.item() == pytest.approx(claimed, rel=0.1, nan_ok=True)


@pytest.mark.parametrize("view", [lambda x: 0.5 * x + 0.25, lambda x: -x + 0.25], ids=["less contrast", "an inversion"])
def test_an_error_that_is_left_out_would_have_been_too_small(view):
    drawn = over_draws(view)
    claimed = error_of_influence(drawn.influence).mean() / drawn.value.std()
    assert claimed < 0.6
    assert drawn.influence.isfinite().all()


def over_draws(view):
    """The estimates of 1000 blocks of 32 images."""
    clean = normal(32000, 8)
    blocks = [range(i, i + 32) for i in range(0, 32000, 32)]
    ready = measured(CentredCosine(), clean, view(clean), blocks)
    return ready.reduce(
        {name: table.view(1000, 1, 32) for name, table in zip(ready.statistics, ready.table, strict=True)}
    )
