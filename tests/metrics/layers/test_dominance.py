import math
import warnings

import pytest
import torch
from support.activations import LAYER, estimate, measured, normal, pair, prepared, record_of, update
from support.probing import images_of, said
from torch import nn

from kornia_lightning_probe import AugmentationBank, probe_model
from kornia_lightning_probe.activations.clean import Centre, CleanBlock
from kornia_lightning_probe.metrics import (
    Distances,
    ImageDominance,
    PositionDominance,
    SensitivityPositions,
    Site,
)
from kornia_lightning_probe.metrics import FlatSensitivity as Sensitivity

TOKENS = 16


def value(metric, clean, augmented, blocks=None):
    return float(estimate(metric, clean, augmented, blocks).value)


def with_register(count=64, width=50):
    """Sixteen tokens: fifteen of variance 1 that move by .78, and one that holds brightness and stands still.

    S^2 = 15 .78^2 / (15 + K) is .090^2 for a variance K = 1112 of the one.
    """
    clean = normal(count, TOKENS, width)
    augmented = clean + 0.78 * 2**0.5 * normal(count, TOKENS, width, seed=1)
    clean[:, 5] *= 1112**0.5
    augmented[:, 5] = clean[:, 5]
    return clean, augmented


# Images.


def test_equal_shares_are_one_of_all_images():
    # Orthonormal images lie equally far from their mean, and move equally far when they are swapped.
    clean = torch.eye(8, dtype=torch.float64)
    assert value(ImageDominance(), clean, clean.roll(1, 0)) == pytest.approx(1 / 8)


def test_the_share_is_the_larger_one_of_movement_and_distance():
    # Deviations of 0, 0, 0, 4 from their mean 1: 1, 1, 1 and 9 of 12.
    clean = torch.tensor([[0.0], [0.0], [0.0], [4.0]])
    assert value(ImageDominance(), clean, clean + 1) == pytest.approx(0.75)
    assert value(ImageDominance(), clean, clean + torch.tensor([[9.0], [0.0], [0.0], [0.0]])) == 1


@pytest.mark.parametrize("moved", [0.0, 1e-7], ids=["not at all", "rounding"])
def test_movement_that_is_rounding_has_no_share(moved):
    clean = torch.eye(8, dtype=torch.float64)
    augmented = clean.clone()
    augmented[2, 2] += moved
    assert value(ImageDominance(), clean, augmented) == pytest.approx(1 / 8)


@pytest.mark.parametrize("count", [1, 8])
def test_dead_layers_and_single_images_have_no_share_of_any_distance(count):
    dead = torch.full((count, 3), 2.0)
    assert math.isnan(value(ImageDominance(), dead, dead))


class Loud(nn.Module):
    """Identity, but for images whose first pixel is white: those are a hundred times as loud."""

    def forward(self, x):
        return torch.where(x[:, :1, :1, :1] > 0.99, 100.0, 1.0) * x


def probed(white, **options):
    images = images_of(96) * 0.9
    images[white, :, 0, 0] = 1.0
    bank = AugmentationBank({"darken": [lambda x: 0.9 * x + 0.1 * (x > 0.95), lambda x: 0.8 * x + 0.2 * (x > 0.95)]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return probe_model(nn.Sequential(Loud(), nn.Flatten()), images, bank, layers=["0", "1"], **options)


@pytest.mark.parametrize(
    ("white", "named"), [([17], "image 17 of the source holds"), ([41, 3], "images 3, 41 of the source hold")]
)
def test_images_that_speak_for_all_are_named_in_one_sentence_over_all_views_and_layers(white, named):
    result = probed(white, metrics=["sensitivity", "image_dominance"])
    (sentence,) = [each for each in result.metadata["warnings"] if "hold" in each]
    by_number = sorted(white)
    first = sentence.partition(" more than half")[0]
    assert sorted(int(word.strip(",")) for word in first.split() if word.strip(",").isdigit()) == by_number
    assert named.split()[0] == first.split()[0]
    assert "more than half of the movement or of the distance between images at 0 (" in sentence
    assert sentence.endswith("sensitivity there is mostly theirs; sensitivity_median is of the typical image")
    assert "input" not in sentence


def test_at_most_eight_images_are_named():
    # Nine of 96 hold a ninth of nearly all each, more than ten times 1/96.
    sentence = next(each for each in probed(list(range(9)), metrics="image_dominance").metadata["warnings"])
    assert " and 1 more of the source hold" in sentence


def test_images_that_are_alike_are_not_named():
    assert not said(probed([], metrics="image_dominance"))


# Positions.


def test_equal_positions_share_the_variance():
    # Each of four tokens has the same columns.
    clean = normal(8, 1, 5).expand(8, 4, 5)
    assert value(PositionDominance(), clean, clean) == pytest.approx(1 / 4)


def test_one_outlier_token_hides_what_all_others_do():
    clean, augmented = with_register()
    assert value(Sensitivity(), clean, augmented) == pytest.approx(0.090, rel=0.03)
    assert value(SensitivityPositions(), clean, augmented) == pytest.approx(0.78, rel=0.03)
    # K / (15 + K)
    assert value(PositionDominance(), clean, augmented) == pytest.approx(1112 / 1127, rel=0.01)


def test_positions_that_move_alike_read_as_sensitivity():
    # b - m = alpha (a - m): S = |1 - alpha| sqrt((n - 1)/(2n)), of each position as of all.
    clean = normal(8, 6, 4)
    mean = clean.mean(0)
    found = value(SensitivityPositions(), clean, mean + 0.5 * (clean - mean), [range(8)])
    assert found == pytest.approx(0.5 * (7 / 16) ** 0.5)
    assert value(SensitivityPositions(), clean, clean) == 0


@pytest.mark.parametrize("metric", [PositionDominance(), SensitivityPositions()], ids=lambda metric: metric.name)
def test_none_has_an_error_and_an_image_that_is_not_finite_is_as_if_it_were_not_there(metric):
    clean, augmented = pair(9, 4, 3)
    kept = [row for row in range(9) if row != 3]
    expected = value(metric, clean[kept], augmented[kept])
    clean[3, 1] = math.nan
    found = estimate(metric, clean, augmented)
    assert found.value == pytest.approx(expected)
    assert found.std_error.isnan()
    assert found.num_images == 8


def test_an_image_that_is_not_finite_under_the_view_moves_no_position():
    clean, augmented = pair(9, 4, 3)
    kept = torch.arange(9) != 3
    moved = (augmented - clean)[kept].square().sum(2).mean(0)
    augmented[3] = math.inf
    expected = (moved / (2 * clean.var(0).sum(1))).sqrt().quantile(0.5)
    assert value(SensitivityPositions(), clean, augmented) == pytest.approx(expected.item())


@pytest.mark.parametrize("metric", [PositionDominance(), SensitivityPositions()], ids=lambda metric: metric.name)
def test_dead_layers_single_images_and_a_reference_leave_no_value(metric):
    dead = torch.full((8, 4, 3), 0.1)
    assert math.isnan(value(metric, dead, normal(8, 4, 3, dtype=torch.float32)))
    assert math.isnan(value(metric, *pair(1, 4, 3)))
    centre = Centre(torch.zeros(1, 4, 3), torch.tensor(12.0, dtype=torch.float64))
    block = CleanBlock(normal(2, 4, 3), centre=centre)
    record = record_of(block, normal(2, 4, 3, seed=1))
    ready = prepared(metric, 2)
    ready.update(record.clean, record.augmented, record)
    assert ready.compute().value.isnan()


def test_rows_of_a_block_may_come_apart_and_in_any_order():
    clean, augmented = pair(9, 4, 3)
    whole = measured(SensitivityPositions(), clean, augmented, [range(9)])
    apart = prepared(SensitivityPositions(), 9)
    block = CleanBlock(clean)
    for rows in (slice(5, 9), slice(0, 5)):
        record = record_of(block, augmented[rows], rows=rows)
        apart.update(record.clean, record.augmented, record)
    torch.testing.assert_close(apart.compute().value, whole.compute().value, rtol=1e-12, atol=0)


def test_it_needs_to_know_where_the_positions_are():
    block = CleanBlock(normal(4, 4, 3))
    with pytest.raises(ValueError, match="needs the site that distances are of"):
        PositionDominance().measure_distances(Distances(block, slice(0, 4), torch.ones(4)))


@pytest.mark.parametrize(
    ("site", "applies"),
    [
        (Site(LAYER, 1, (8, 4, 4)), True),
        (Site(LAYER, 1, (16, 8)), True),
        (Site(LAYER, 1, (8,)), False),
        (Site("input", 0, (3, 4, 4), kind="input"), False),
        (Site(LAYER, 1, (8,), representation="pooled", source=(8, 4, 4)), False),
    ],
)
def test_they_are_of_maps_and_sequences(site, applies):
    assert PositionDominance().applies_to(site) is applies
    assert SensitivityPositions().applies_to(site) is applies


class Shining(nn.Module):
    """A map one cell of which is far brighter, and tokens one of which is."""

    def __init__(self):
        super().__init__()
        self.cells, self.tokens = nn.Identity(), nn.Identity()

    def forward(self, x):
        mask = torch.ones(12, 12)
        mask[2, 7] = 1000.0
        maps = self.cells(x * mask)
        return self.tokens(maps.flatten(2).transpose(1, 2)).mean((1, 2))


def test_positions_that_speak_for_all_are_named_once_with_their_layers():
    result_options = {"layers": ["cells", "tokens"], "metrics": ["position_dominance", "sensitivity_positions"]}
    bank = AugmentationBank({"halve": lambda x: x / 2, "mirror": lambda x: x.flip(3)})
    with pytest.warns(UserWarning, match="single positions hold more than half") as told:
        result = probe_model(Shining(), images_of(40), bank, **result_options)
    (sentence,) = [str(warning.message) for warning in told]
    # 2 * 12 + 7
    assert "at cells (cell 2 7: 100%), tokens (token 31: 100%): sensitivity_flat there is mostly theirs" in sentence
    assert result.table("position_dominance").layers == ("cells", "tokens")
    assert result.tensor("position_dominance").min() > 0.99


@pytest.mark.parametrize("batch_size", [7, 100])
def test_the_batch_size_does_not_matter(batch_size):
    net, images = nn.Sequential(nn.Conv2d(3, 4, 3)), images_of(33)
    bank = AugmentationBank({"halve": lambda x: x / 2, "mirror": lambda x: x.flip(3)})
    names = ["sensitivity_positions", "position_dominance", "image_dominance", "sensitivity_median"]
    expected = probe_model(net, images, bank, layers=["0"], metrics=names)
    found = probe_model(net, images, bank, layers=["0"], metrics=names, batch_size=batch_size)
    for name in names:
        torch.testing.assert_close(found.tensor(name), expected.tensor(name), rtol=1e-5, atol=0, equal_nan=True)
        assert torch.equal(found.table(name).num_images, expected.table(name).num_images)


def test_the_same_images_twice_are_named():
    clean, augmented = pair(8, 4, 3)
    metric = measured(SensitivityPositions(), clean, augmented, [range(8)])
    update(metric, clean, augmented, [3, 4])
    with pytest.raises(RuntimeError, match="holds images 3, 4 more than once"):
        metric.compute()
