import math

import pytest
import torch
from support.activations import LAYER, estimate, normal, pair, prepared, record_of
from torch import nn

from kornia_lightning_probe import AugmentationBank, probe_model
from kornia_lightning_probe.activations.clean import Centre, CleanBlock
from kornia_lightning_probe.metrics import ChannelDominance, ChannelMedian, Site
from kornia_lightning_probe.metrics import FlatSensitivity as Sensitivity


def value(metric, clean, augmented, blocks=None):
    return float(estimate(metric, clean, augmented, blocks).value)


def loud(clean, factor, channel=3):
    """The same with one channel scaled."""
    scaled = clean.clone()
    scaled[:, channel] *= factor
    return scaled


def test_equal_channels_share_the_variance():
    # 8 Hadamard columns have one variance each.
    pairs = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    hadamard = torch.kron(torch.kron(pairs, pairs), pairs)
    clean = hadamard[:, 1:]
    assert value(ChannelDominance(), clean, clean) == pytest.approx(1 / 7)


def test_the_share_is_that_of_the_loudest_channel():
    clean = normal(32, 20)
    variance = loud(clean, 30).var(0)
    assert value(ChannelDominance(), loud(clean, 30), clean, [range(32)]) == pytest.approx(
        (variance[3] / variance.sum()).item()
    )


def test_the_share_does_not_see_units_shifts_or_the_view():
    clean, augmented = pair(33, 20)
    expected = value(ChannelDominance(), clean, augmented)
    assert value(ChannelDominance(), 7 * clean + 3, clean) == pytest.approx(expected)


def test_neither_has_an_error_over_images():
    for metric in (ChannelDominance(), ChannelMedian()):
        assert estimate(metric, *pair(33, 20)).std_error.isnan()


def test_the_median_of_channels_that_move_alike_is_sensitivity():
    # S^2 is the mean of the channels' squares, weighted by their variances; with equal ones it is any of them.
    clean = normal(32, 20)
    mean = clean.mean(0)
    shrunk = mean + 0.5 * (clean - mean)
    # (1 - alpha) / sqrt 2, with d = (1 - alpha)^2 (n-1)/n e.
    expected = 0.5 * 0.5**0.5 * (31 / 32) ** 0.5
    assert value(ChannelMedian(), clean, shrunk, [range(32)]) == pytest.approx(expected)
    assert value(Sensitivity(), clean, shrunk, [range(32)]) == pytest.approx(expected)


@pytest.mark.parametrize(("still", "hides"), [(True, True), (False, False)], ids=["hides", "fakes"])
def test_one_loud_channel_hides_or_fakes_movement_in_sensitivity_and_not_in_the_median(still, hides):
    clean, augmented = pair(33, 20, moved=0.5)
    quiet = value(Sensitivity(), clean, augmented)
    before, after = loud(clean, 100), loud(augmented, 100)
    after[:, 3] = before[:, 3] if still else 100 * normal(33, seed=8)
    found = value(Sensitivity(), before, after)
    assert found < quiet / 5 if hides else found > 2 * quiet
    assert value(ChannelMedian(), before, after) == pytest.approx(quiet, rel=0.2)


def test_the_median_of_an_even_number_of_channels_is_between_the_middle_two():
    # Images 2 apart in each channel; the channels move by 0, 1, 2 and 5, so their sensitivities are 0, 1/2, 1 and 5/2.
    clean = torch.tensor([[0.0] * 4, [2.0] * 4])
    assert value(ChannelMedian(), clean, clean + torch.tensor([0.0, 1.0, 2.0, 5.0])) == pytest.approx(0.75)


def test_channels_that_are_the_same_for_all_images_are_left_out_of_the_median():
    clean = torch.tensor([[0.0, 0.0, 9.0, 9.0], [2.0, 2.0, 9.0, 9.0]])
    assert value(ChannelMedian(), clean, clean + torch.tensor([1.0, 1.0, 7.0, 0.0])) == pytest.approx(0.5)


@pytest.mark.parametrize("metric", [ChannelDominance(), ChannelMedian()], ids=lambda metric: metric.name)
def test_dead_layers_and_single_images_are_not_a_number(metric):
    assert math.isnan(value(metric, torch.full((8, 20), 0.1), normal(8, 20, dtype=torch.float32)))
    assert math.isnan(value(metric, *pair(1, 20)))


@pytest.mark.parametrize("metric", [ChannelDominance(), ChannelMedian()], ids=lambda metric: metric.name)
def test_an_image_that_is_not_finite_is_as_if_it_were_not_there(metric):
    clean, augmented = pair(9, 20)
    kept = [row for row in range(9) if row != 3]
    expected = value(metric, clean[kept], augmented[kept])
    clean[3, 1] = math.nan
    found = estimate(metric, clean, augmented)
    assert found.value == pytest.approx(expected)
    assert found.num_images == 8


def test_an_image_that_is_not_finite_under_the_view_does_not_move_the_median():
    # Clean variances keep all 9 images, the mean movement has the other 8.
    clean, augmented = pair(9, 20)
    kept = torch.arange(9) != 3
    change = (augmented - clean)[kept].square().mean(0)
    augmented[3] = math.inf
    assert value(ChannelMedian(), clean, augmented) == pytest.approx(
        (change / (2 * clean.var(0))).sqrt().quantile(0.5).item()
    )


def test_one_image_beside_a_reference_does_not_read_as_standing_still():
    centre = Centre(torch.zeros(1, 20), torch.tensor(20.0, dtype=torch.float64))
    block = CleanBlock(normal(1, 20), centre=centre)
    record = record_of(block, normal(1, 20, seed=1))
    ready = prepared(ChannelMedian(), 1)
    ready.update(record.clean, record.augmented, record)
    assert ready.compute().value != 0


@pytest.mark.parametrize(("shape", "applies"), [((16,), True), ((15,), False), ((1,), False), ((), False)])
def test_few_channels_are_no_news(shape, applies):
    site = Site(LAYER, 1, shape, representation="pooled", source=shape)
    assert ChannelDominance().applies_to(site) is applies
    assert ChannelMedian().applies_to(site) is applies


# In a probe.


class TwoLayers(nn.Module):
    """Two layers of 16 channels, in the second of which one is a thousand times louder."""

    def __init__(self):
        super().__init__()
        self.even, self.uneven = nn.Identity(), nn.Identity()

    def forward(self, x):
        features = self.even(x.flatten(2)[:, 0, :16])
        return self.uneven(features * torch.tensor([1000.0] + [1.0] * 15)).sum(1)


def shifted(x):
    return (x + 0.1).clamp(max=1)


def test_a_dominant_channel_is_said_once_with_the_median_beside_it():
    images = torch.rand(40, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    bank = AugmentationBank({"brighter": [shifted, shifted]})
    with pytest.warns(UserWarning, match="one channel") as said:
        result = probe_model(TwoLayers(), images, bank, layers=["even", "uneven"])
    (sentence,) = [str(warning.message) for warning in said]
    assert sentence == (
        "one channel holds more than half of the variance between images at uneven (100%): sensitivity there is mostly "
        "that channel's; channel_median gives the typical channel"
    )
    assert sentence in result.metadata["warnings"]
    assert result.table("channel_dominance").layers == result.table("channel_median").layers == ("even", "uneven")
    assert result.value("channel_dominance", "even") < 0.2
    # A channel's own sensitivity does not see its unit.
    assert result.value("channel_median", "uneven") == pytest.approx(result.value("channel_median", "even"))
