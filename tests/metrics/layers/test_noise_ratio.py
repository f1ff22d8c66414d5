import math

import pytest
import torch
from support.activations import LAYER, normal
from support.nets import SmallCNN
from support.probing import images_of
from torch import nn

from kornia_lightning_probe import AugmentationBank, presets, probe_model
from kornia_lightning_probe.metrics import About, NoiseRatio, resolve_metrics
from kornia_lightning_probe.randomness import isolated_rng


def ratio_of(clean, moved, noisy):
    """The estimate of one view and its twin."""
    ready = NoiseRatio().prepare(["view", "twin"], [LAYER], len(clean))
    for index, augmented in enumerate((moved, noisy)):
        ready.update(clean, augmented, About.of(clean, augmented, layer=LAYER, view_index=index))
    return ready.estimates()


def random_noise(images):
    """Isotropic noise from the global stream, of a length that differs from image to image."""
    return images + 0.05 * (0.5 + torch.rand(len(images), 1, 1, 1)) * torch.randn_like(images)


def small_cnn():
    with isolated_rng(3):
        return SmallCNN()


@pytest.fixture(scope="module")
def turned():
    bank = AugmentationBank({"turn": presets.rotation((5, 30)), "dark": presets.darken()}, mean=0.5, std=0.25)
    images = (images_of(96) - 0.5) / 0.25
    return bank, images, probe_model(small_cnn(), images, bank, metrics=["sensitivity", "noise_ratio"])


def test_it_is_the_root_of_the_ratio_of_squared_movements():
    clean = normal(9, 5)
    moved, noisy = clean + normal(9, 5, seed=1), clean + 0.3 * normal(9, 5, seed=2)
    expected = (moved - clean).square().sum(1).mean() / (noisy - clean).square().sum(1).mean()
    assert ratio_of(clean, moved, noisy).value.item() == pytest.approx(expected.sqrt().item(), rel=1e-12)


def test_the_pixels_themselves_read_exactly_one(turned):
    # eps is as long as Tx - x for each image, in the model's own input.
    _, _, result = turned
    values = [result.value("noise_ratio", "input", view.augmentation, view.level) for view in result.views]
    assert values == pytest.approx([1.0] * len(values), rel=1e-6)


def test_an_augmentation_that_is_such_noise_reads_one_in_every_layer():
    bank = AugmentationBank({"noise": random_noise}, value_range=(-1.0, 2.0), seed=1)
    result = probe_model(small_cnn(), images_of(512), bank, metrics=["noise_ratio"])
    assert len(result.layers) > 2
    for layer in result.layers:
        value, error = result.value("noise_ratio", layer), result.std_error("noise_ratio", layer)
        assert abs(value - 1) < 4 * error < 0.2


def test_a_layer_that_projects_the_direction_out_reads_nothing():
    def brighter(images):
        return images + 0.1

    class Centred(nn.Module):
        def forward(self, images):
            return images.flatten(1) - images.flatten(1).mean(1, keepdim=True)

    net = nn.Sequential(Centred(), nn.Linear(3 * 8 * 8, 4, bias=False)).eval()
    bank = AugmentationBank({"brighter": brighter}, value_range=(-5.0, 5.0))
    result = probe_model(net, images_of(64, size=8), bank, layers=["0", "1"], metrics=["noise_ratio"])
    for layer in ("0", "1"):
        assert result.value("noise_ratio", layer) < 1e-5
    assert result.value("noise_ratio", "input") == pytest.approx(1, rel=1e-6)


def test_the_error_is_the_spread_over_draws_of_images():
    # 400 draws of 64 images; they know a spread to 1/sqrt(800), 3.5 %, of which three are allowed.
    ready = NoiseRatio().prepare(range(800), [LAYER], 64)
    for draw in range(400):
        clean = normal(64, 6, seed=3 * draw)
        lengths = normal(64, 1, seed=3 * draw + 2).abs() + 0.5
        moved, noisy = (
            clean + factor * lengths * normal(64, 6, seed=3 * draw + k) for k, factor in ((1, 2), (5001, 1))
        )
        for index, augmented in ((draw, moved), (400 + draw, noisy)):
            ready.update(clean, augmented, About.of(clean, augmented, layer=LAYER, view_index=index))
    found = ready.estimates()
    claimed = found.std_error.square().mean().sqrt() / found.value.std()
    assert claimed.item() == pytest.approx(1, abs=0.11)
    assert found.value.median().item() == pytest.approx(2, rel=0.05)


def test_where_noise_moves_nothing_there_is_no_ratio():
    clean = normal(4, 3)
    assert math.isnan(ratio_of(clean, clean + 1, clean).value)
    assert math.isnan(ratio_of(clean, clean, clean).value)


def test_the_batch_size_and_the_other_metrics_change_nothing(turned):
    bank, images, expected = turned
    alone = probe_model(small_cnn(), images, bank, metrics=["noise_ratio"], batch_size=500)
    cut = probe_model(small_cnn(), images, bank, metrics=["noise_ratio", "sensitivity"], batch_size=5)
    for result in (alone, cut):
        torch.testing.assert_close(result.tensor("noise_ratio"), expected.tensor("noise_ratio"), rtol=1e-5, atol=0)
    without = probe_model(small_cnn(), images, bank, metrics=["sensitivity"])
    torch.testing.assert_close(without.tensor("sensitivity"), expected.tensor("sensitivity"), rtol=1e-6, atol=0)
    assert result.tensor("noise_ratio").shape == (len(bank), 1 + len(result.layers))


def test_twins_are_no_views_of_the_result_and_are_not_looked_at(turned):
    bank, _, result = turned
    assert [view.augmentation for view in result.views] == [view.augmentation for view in bank]
    assert result.metadata["warnings"] == []
    assert result.metadata.get("unchanged_views", []) == []


def test_it_is_measured_only_where_it_is_asked_for_and_seen_for_twice_the_views():
    net, images = small_cnn(), images_of(8)
    bank = AugmentationBank({"dark": presets.darken()})
    calls = []

    def forward(model, batch):
        calls.append(len(batch))
        return model(batch)

    probe_model(net, images, bank, metrics=["sensitivity"], forward=forward)
    plain = len(calls)
    calls.clear()
    probe_model(net, images, bank, metrics=["noise_ratio"], forward=forward)
    assert "noise_ratio" not in [metric.name for metric in resolve_metrics(None)]
    # One block and three views, merged four at a time: one pass more.
    assert (plain, len(calls)) == (4, 5)


def test_several_entries_get_noise_as_long_as_each_moves():
    class TwoImages(nn.Module):
        def forward(self, left, right):
            return torch.cat([left.flatten(1), right.flatten(1)], 1)

    left, right = images_of(16, size=8), images_of(16, size=4)
    bank = AugmentationBank({"dark": presets.darken((-0.1, -0.2))})
    net = nn.ModuleDict({"both": TwoImages()})
    result = probe_model(
        net, (left, right), bank, layers=["both"], image_keys=[0, 1], metrics=["noise_ratio"],
        forward=lambda model, inputs: model["both"](*inputs),
    )  # fmt: skip
    # All entries side by side: the lengths of both are those of both.
    assert result.value("noise_ratio", "both") == pytest.approx(1, rel=1e-6)


def test_a_view_without_its_twin_is_refused():
    with pytest.raises(ValueError, match=r"needs each view and behind them their twins.*got 3 of them"):
        NoiseRatio().prepare(["a", "b", "twin of a"], [LAYER], 4)


def test_two_images_of_one_size_get_noise_of_their_own():
    class Difference(nn.Module):
        def forward(self, left, right):
            return (left - right).flatten(1)

    def pushed(batch):
        return batch + 0.05 * torch.randn(batch.shape)

    images = images_of(256, size=8)
    bank = AugmentationBank({"push": pushed}, value_range=(-1.0, 2.0))
    net = nn.ModuleDict({"difference": Difference()})

    def forward(model, inputs):
        return model["difference"](*inputs)

    result = probe_model(
        net,
        (images, images.flip(0)),
        bank,
        layers=["difference"],
        image_keys=[0, 1],
        metrics=["noise_ratio"],
        forward=forward,
    )
    # A bank draws alike for both, so that the difference stays; noises of their own don't cancel.
    assert result.value("noise_ratio", "difference") == pytest.approx(0.0, abs=1e-5)
