import math

import pytest
import torch
from support.activations import LAYER, estimate, normal, pair, prepared, record_of
from support.nets import SmallCNN
from support.probing import images_of, plain_bank

from kornia_lightning_probe import AugmentationBank, ProbeResult, probe_model
from kornia_lightning_probe.activations.clean import CleanBlock, MeanOfBlocks, mask_non_finite
from kornia_lightning_probe.metrics import About, Distances, SensitivityMedian, SensitivityWithin, Site
from kornia_lightning_probe.metrics import FlatSensitivity as Sensitivity


def value(metric, clean, augmented, blocks=None):
    return float(estimate(metric, clean, augmented, blocks).value)


def test_identity_reads_zero():
    clean = normal(40, 6)
    assert value(SensitivityMedian(), clean, clean) == 0
    assert float(estimate(SensitivityMedian(), clean, clean).std_error) == 0


def test_orthonormal_images_rolled_by_one_read_exactly_one():
    # |a_i - a_j|^2 = 2 for every pair, and each image moves to another one.
    clean = torch.eye(32, dtype=torch.float64)
    assert value(SensitivityMedian(), clean, clean.roll(1, 0)) == pytest.approx(1, rel=1e-14)


def test_two_outliers_of_96_do_not_speak_for_the_typical_image():
    # d = 2 s^2 D and |a_i - a_j|^2 = 2 D in D features, so each typical image is at s = .23. The outliers' features are
    # a hundred times as large and swap their signs: d = 4e4 D where e = 1e4 D, so S tends to sqrt(2).
    clean = normal(96, 400)
    augmented = clean + 0.23 * 2**0.5 * normal(96, 400, seed=1)
    outliers = [5, 70]
    clean[outliers] *= 100
    augmented[outliers] = -clean[outliers]
    assert value(Sensitivity(), clean, augmented) > 1.3
    found = estimate(SensitivityMedian(), clean, augmented)
    assert float(found.value) == pytest.approx(0.23, rel=0.02)
    assert 0 < float(found.std_error) < 0.01


def test_two_outliers_in_one_block_spoil_its_mean_and_not_the_typical_image():
    clean, augmented = pair(32, 400, moved=0.3)
    expected = value(SensitivityMedian(), clean, augmented)
    for outlier in (3, 4):
        clean[outlier] *= 100
        augmented[outlier] *= 100
    assert value(SensitivityMedian(), clean, augmented) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("size", [1e-30, 1e-10, 1e10, 1e30])
def test_the_scale_and_a_shift_of_float32_images_change_nothing(size):
    def scaled(model, images):
        return probe_model(model, images, bank, metrics=metrics, layers=["0"], labels=[0, 1] * 20)

    metrics = ["sensitivity_median", "sensitivity_within"]
    images, bank = images_of(40), AugmentationBank({"halve": lambda x: x / 2})
    expected = scaled(torch.nn.Sequential(torch.nn.Identity()), images)

    class Scaled(torch.nn.Module):
        def forward(self, x):
            return size * (x + 3)

    found = scaled(torch.nn.Sequential(Scaled()), images)
    for metric in metrics:
        torch.testing.assert_close(found.tensor(metric), expected.tensor(metric), rtol=1e-4, atol=0)


def test_one_class_reads_as_sensitivity():
    clean, augmented = pair(32, 1)  # one feature: one label
    assert value(SensitivityWithin(), clean, augmented, [range(32)]) == pytest.approx(
        value(Sensitivity(), clean, augmented, [range(32)]), rel=1e-6
    )


def two_clouds(apart):
    """Images of two classes, in every block as many, and the same moved by .23 of what a class spreads by."""
    clean = normal(64, 200)
    augmented = clean + 0.23 * 2**0.5 * normal(64, 200, seed=1)
    side = torch.arange(64) % 2
    shift = apart * (2 * side.double() - 1).unsqueeze(1)
    return clean + shift, augmented + shift, side


def with_labels(metric, clean, augmented, labels):
    ready = metric.prepare(["view"], [LAYER], len(clean))
    for start in range(0, len(clean), 32):
        rows = slice(start, start + 32)
        ids = range(start, start + 32)
        record = About.of(clean[rows], augmented[rows], layer=LAYER, ids=ids, labels=labels[rows])
        ready.update(record.clean, record.augmented, record)
    return ready.compute()


def test_two_classes_far_apart_read_as_one_cloud_within_the_class():
    # Each class lies at +-c in every feature of variance 1: e grows by 32/31 c^2 D, so S = .23 / sqrt(1 + 1.03 c^2),
    # which is .149 for c^2 = 1.33.
    clean, augmented, labels = two_clouds(apart=1.33**0.5)
    assert float(with_labels(Sensitivity(), clean, augmented, labels).value) == pytest.approx(0.149, rel=0.02)
    assert float(with_labels(SensitivityWithin(), clean, augmented, labels).value) == pytest.approx(0.23, rel=0.02)


def test_images_without_a_class_mate_in_their_block_do_not_count():
    clean, augmented, labels = two_clouds(apart=0)
    labels[0], labels[40], labels[41] = 7, 8, -100
    found = with_labels(SensitivityWithin(), clean, augmented, labels)
    assert found.num_images == 61


def test_labels_are_asked_for():
    block = CleanBlock(normal(8, 3))
    told = Distances(block, slice(0, 8), torch.ones(8))
    with pytest.raises(ValueError, match="no labels came for metric 'sensitivity_within'"):
        SensitivityWithin().measure_distances(told)
    record = record_of(CleanBlock(normal(8, 3)), normal(4, 3), rows=slice(0, 4), labels=torch.zeros(4))
    with pytest.raises(ValueError, match="4 labels of a block of 8 images"):
        SensitivityWithin().measure(record.clean, record.augmented, record)


@pytest.mark.parametrize(("label_shape", "applies"), [((), True), (None, False), ((8, 8), False)])
def test_it_is_measured_where_each_image_has_one_class(label_shape, applies):
    assert SensitivityWithin().applies_to(Site(LAYER, 1, (5,), label_shape=label_shape)) is applies


def test_of_many_classes_and_few_images_nothing_is_left():
    labels = list(range(10))
    with pytest.warns(UserWarning, match="sensitivity_within has no value: no block of about 32 probe images"):
        result = probe_model(SmallCNN(), images_of(10), plain_bank(), metrics="sensitivity_within", labels=labels)
    assert result.tensor("sensitivity_within").isnan().all()
    assert not result.table("sensitivity_within").num_images.any()


@pytest.mark.parametrize("metric", [SensitivityMedian(), SensitivityWithin()], ids=lambda metric: metric.name)
def test_an_image_that_is_not_finite_is_as_if_it_were_not_there(metric):
    clean, augmented = pair(9, 3)
    labels = torch.arange(9) % 2
    clean[3, 1] = math.nan
    kept = [row for row in range(9) if row != 3]
    found, expected = (measured_with(metric, clean[rows], augmented[rows], labels[rows]) for rows in (range(9), kept))
    assert found.value == pytest.approx(expected.value.item(), rel=1e-9)
    assert found.num_images == 8


def measured_with(metric, clean, augmented, labels):
    ready = prepared(metric, len(clean))
    record = About.of(clean, augmented, layer=LAYER, labels=labels)
    ready.update(record.clean, record.augmented, record)
    return ready.compute()


def test_beside_a_reference_the_typical_distance_is_the_references():
    reference = MeanOfBlocks()
    blocks = [CleanBlock(normal(20, 6, seed=seed)) for seed in (1, 2)]
    mask_non_finite(blocks)
    for block in blocks:
        reference.add(block)
    one = CleanBlock(normal(1, 6), centre=reference.value())
    expected = torch.cat([block.separation for block in blocks]).quantile(0.5)
    assert one.separation.item() == pytest.approx(expected.item())


def test_the_typical_image_survives_a_file(tmp_path):
    metrics = ["sensitivity_median", "sensitivity_within", "image_dominance", "channel_median", "position_dominance"]
    result = probe_model(SmallCNN(width=16), images_of(40, size=16), plain_bank(), metrics=metrics, labels=[0, 1] * 20)
    result.to_json(tmp_path / "result.json")
    read = ProbeResult.from_json(tmp_path / "result.json")
    assert read.metrics == result.metrics
    for metric in metrics:
        for part in ("value", "std_error"):
            found, expected = (getattr(each.table(metric), part) for each in (read, result))
            torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
        assert read.table(metric).quantity == result.table(metric).quantity


def test_of_the_default_set_that_is_only_noted():
    result = probe_model(SmallCNN(), images_of(10), plain_bank(), labels=[0, 1, 2, 3, 4] + [-100] * 5)
    assert "no block of about 32 probe images" in result.metadata["metrics_left_out"]["sensitivity_within"]
    assert not any("sensitivity_within" in sentence for sentence in result.metadata["warnings"])
