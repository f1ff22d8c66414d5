"""What the pages say about the number and its traps, each on a model that hands its images on."""

import pytest
import torch
from support.nets import HuggingViT, ResNet, UNet, ViT
from torch import nn

from kornia_lightning_probe import AugmentationBank, presets, probe_model


def images_of(count=64, *, channels=3, side=32):
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(0))


def measured(change, *, images=None, scale=1.0):
    """All measures of a layer that is the images, times `scale`, under a change of them."""
    images = images_of(32) if images is None else images
    bank = AugmentationBank({"change": change})
    model = nn.Sequential(nn.Identity())
    return probe_model(model, images, bank, layers="0", forward=lambda model, x: model(scale * x)).value


@pytest.mark.filterwarnings("ignore:.*change.* no pixel:UserWarning")
def test_zero_is_unmoved_and_one_is_another_image():
    assert measured(lambda x: x)("sensitivity", "0") == 0
    # The next image in place of each one: n/(n-1) in expectation, and exactly so over all rolls of a block.
    assert measured(lambda x: x.roll(1, 0))("sensitivity", "0") == pytest.approx(1, abs=0.02)


def test_it_grows_in_proportion_to_the_severity():
    bank = AugmentationBank({"towards grey": {a: lambda x, a=a: x + a * (0.5 - x) for a in (0.1, 0.2)}})
    torch.manual_seed(0)
    curve = probe_model(ResNet(), images_of(32), bank, layers="conv1", metrics="sensitivity").tensor("sensitivity")
    assert torch.allclose(curve[1] / curve[0], torch.tensor(2.0).double(), rtol=1e-4)


def test_erasure_reads_seven_tenths_and_its_spread_ratio_is_zero():
    value = measured(lambda x: x.mean(0, keepdim=True).expand_as(x))
    # d = |m - a|^2 and e = n/(n-1) |a - m|^2: S = sqrt((n-1) / 2n), n = 32.
    assert value("sensitivity", "0") == pytest.approx((31 / 64) ** 0.5, rel=1e-4)
    assert value("spread_ratio", "0") == pytest.approx(0, abs=1e-5)


def test_one_shift_for_all_has_a_shared_shift_of_one():
    value = measured(lambda x: x + 0.3, images=images_of(32) * 0.5)
    assert value("sensitivity", "0") > 0.7
    assert value("shared_shift", "0") == pytest.approx(1, abs=1e-3)


def test_a_loss_of_contrast_has_a_cosine_of_one():
    value = measured(lambda x: x.mean(0, keepdim=True) + 0.5 * (x - x.mean(0, keepdim=True)))
    # b - m = (a - m) / 2: S = (1 - 1/2) / sqrt 2, but for n/(n-1).
    assert value("sensitivity", "0") == pytest.approx(0.5 * (31 / 64) ** 0.5, rel=1e-4)
    assert value("cosine", "0") == pytest.approx(1, abs=1e-5)


def test_spread_knows_the_scale_that_sensitivity_does_not():
    one, ten = (measured(lambda x: x.flip(3), scale=scale) for scale in (1.0, 10.0))
    assert ten("sensitivity", "0") == pytest.approx(one("sensitivity", "0"), rel=1e-5)
    assert ten("spread", "0") == pytest.approx(10 * one("spread", "0"), rel=1e-5)


def test_a_channel_that_holds_the_variance_hides_the_others():
    images = 0.5 + 0.01 * (images_of(32, channels=16) - 0.5)
    images[:, 0] = torch.arange(32).view(-1, 1, 1) / 31

    def swap_the_others(x):
        return torch.cat([x[:, :1], x[:, 1:].roll(1, 0)], dim=1)

    with pytest.warns(UserWarning, match="one channel holds more than half of the variance"):
        value = probe_model(
            nn.Sequential(nn.Identity()), images, AugmentationBank({"swap": swap_the_others}), layers="0"
        ).value
    assert value("channel_dominance", "0") > 0.5
    assert value("sensitivity", "0") < 0.1
    assert value("channel_median", "0") == pytest.approx(1, abs=0.2)


def test_a_map_that_moves_with_the_image_is_equivariant_and_its_pooled_features_stand_still():
    bank = AugmentationBank({"hflip": presets.hflip()})
    value = probe_model(nn.Sequential(nn.Identity()), images_of(32), bank, layers="0").value
    assert value("sensitivity_flat", "0") > 0.9
    assert value("sensitivity", "0") == pytest.approx(0, abs=1e-3)
    assert value("sensitivity_pooled", "0") == pytest.approx(0, abs=1e-3)
    assert value("equivariance_error", "0") == pytest.approx(0, abs=1e-3)
    # The pixels are compared whole.
    assert value("sensitivity", "input") == value("sensitivity_flat", "input") > 0.9


def test_a_map_that_keeps_its_mean_and_stays_behind_has_a_large_equivariance_error():
    bank, images = AugmentationBank({"hflip": presets.hflip()}), images_of(32)
    width = images.shape[-1]
    # Each cell sees all of its row, so that the sums of rows are there, whichever side they were seen from; times a
    # slope of the layer's own, which doesn't turn with the image.
    sums = nn.Conv2d(3, 3, (1, 2 * width - 1), padding=(0, width - 1), groups=3, bias=False)
    nn.init.ones_(sums.weight)
    model = nn.Sequential(sums, nn.Identity())
    slope = torch.arange(float(width))
    result = probe_model(
        model,
        images,
        bank,
        layers="1",
        metrics=["sensitivity", "equivariance_error"],
        forward=lambda m, x: m[1](m[0](x) * slope),
    )
    value = result.value
    assert value("sensitivity", "1") == pytest.approx(0, abs=1e-3)
    assert value("equivariance_error", "1") > 0.5


def test_a_callable_moves_pixels_where_one_says_so():
    layer = nn.Sequential(nn.Identity())
    read = {}
    for declared in ((), ("roll",)):
        bank = AugmentationBank({"roll": lambda x: x.roll(1, 3)}, moves_pixels=declared)
        result = probe_model(layer, images_of(32), bank, layers="0")
        read[declared] = result.value("sensitivity", "0")
        assert result.value("sensitivity_flat", "0") > 0.9
    # Pixels that know nothing of each other: the next one is as far as another image's, and the mean is the same.
    assert read[()] == pytest.approx(1, abs=0.05)
    assert read["roll",] == pytest.approx(0, abs=1e-3)


def test_retrieval_is_one_where_nothing_moves_and_half_by_chance():
    bank = AugmentationBank({"hardly": lambda x: 0.99 * x + 0.005, "other image": lambda x: x.roll(1, 0)})
    model = nn.Sequential(nn.Sequential(nn.AvgPool2d(8), nn.Flatten()), nn.Linear(48, 2))
    value = probe_model(model, images_of(512), bank, layers=["0", "1"]).value
    assert value("retrieval_auc", augmentation="hardly") == pytest.approx(1, abs=1e-3)
    assert value("retrieval_auc", augmentation="other image") == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("net", "metric"),
    [(ResNet, "flip_rate"), (ViT, "flip_rate"), (HuggingViT, "flip_rate"), (UNet, "sensitivity_pooled")],
)
def test_the_kinds_of_models_that_the_pages_name_are_measured(net, metric):
    torch.manual_seed(0)
    result = probe_model(net(), images_of(8, side=16), AugmentationBank({"hflip": presets.hflip()}))
    assert 6 <= len(result.layers) <= 24
    assert result.tensor("sensitivity").isfinite().all()
    assert metric in result.metrics
    if net is ViT:
        assert {"blocks.0:cls", "blocks.0:patch"} <= set(result.table("spread").layers)
