import math

import pytest
import torch
from support.activations import LAYER, estimate, measured, normal, pair, prepared

from kornia_lightning_probe.functional.probabilities import jensen_shannon
from kornia_lightning_probe.metrics import About, Accuracy, AccuracyDrop, FlipRate, JensenShannon, Site

LN2 = math.log(2)


def value(metric, clean, augmented):
    return float(estimate(metric, clean, augmented).value)


def with_labels(metric, clean, augmented, labels):
    ready = prepared(metric, len(clean))
    ready.update(clean, augmented, About.of(clean, augmented, layer=LAYER, labels=torch.tensor(labels)))
    return ready.compute()


# Flips and divergence.


@pytest.mark.parametrize("constant", [1.0, -7.0, 1e4])
def test_a_constant_added_to_all_logits_changes_no_prediction(constant):
    clean = normal(33, 5)
    assert value(FlipRate(), clean, clean + constant) == 0
    assert value(JensenShannon(), clean, clean + constant) == pytest.approx(0, abs=1e-12)


def test_the_share_of_images_with_another_class_is_counted():
    # Of 10 images 3 get another class.
    clean = torch.eye(5).repeat(2, 1)
    augmented = clean.clone()
    augmented[:3] = augmented[:3].roll(1, 1)
    found = estimate(FlipRate(), clean, augmented)
    assert found.value == pytest.approx(0.3)
    # sqrt(p (1 - p) / (N - 1)).
    assert found.std_error == pytest.approx((0.3 * 0.7 / 9) ** 0.5)


@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_disjoint_predictions_are_ln_2_apart_without_underflow(scale):
    logits = torch.tensor([[scale, -scale, -scale], [-scale, scale, -scale]])
    assert value(JensenShannon(), logits, logits.roll(1, 1)) == pytest.approx(LN2, abs=1e-12)
    assert value(JensenShannon(), logits, logits) == 0


def test_the_divergence_of_two_coins():
    # (0.9, 0.1) and (0.1, 0.9), mixture (1/2, 1/2): 0.9 ln 1.8 + 0.1 ln 0.2.
    coins = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64)
    expected = 0.9 * math.log(1.8) + 0.1 * math.log(0.2)
    assert value(JensenShannon(), coins.log(), coins.flip(1).log()) == pytest.approx(expected)


def test_the_order_of_classes_and_of_the_two_does_not_matter():
    clean, augmented = pair(33, 7, moved=2.0)
    expected = value(JensenShannon(), clean, augmented)
    assert value(JensenShannon(), augmented, clean) == pytest.approx(expected)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    assert value(JensenShannon(), clean[:, order], augmented[:, order]) == pytest.approx(expected)
    assert value(FlipRate(), clean[:, order], augmented[:, order]) == value(FlipRate(), clean, augmented)


def test_the_class_averages_the_function():
    clean, augmented = pair(33, 7)
    divergences = jensen_shannon(clean, augmented)
    found = estimate(JensenShannon(), clean, augmented)
    assert found.value == pytest.approx(divergences.mean().item())
    assert found.std_error == pytest.approx((divergences.std() / 33**0.5).item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_probabilities_are_taken_as_they_are(dtype):
    clean, augmented = (x.softmax(1).to(dtype) for x in pair(33, 7, moved=2.0))
    expected = value(JensenShannon(), clean.double().log(), augmented.double().log())
    # log_softmax divides by a sum that rounding to 8 or 11 bits has moved from 1: second order in it.
    tolerance = 1e-6 if torch.finfo(dtype).bits > 16 else 1e-3
    assert value(JensenShannon(), clean, augmented) == pytest.approx(expected, rel=tolerance)
    # Taken as logits they would hardly differ.
    assert expected > 4 * jensen_shannon(clean, augmented).mean()


def test_certain_probabilities_that_swap_are_ln_2_apart():
    sure = torch.eye(4)
    assert value(JensenShannon(), sure, sure.roll(1, 0)) == pytest.approx(LN2)


def test_probabilities_are_known_from_the_clean_block_and_not_from_what_a_pass_holds():
    # A single image whose logits happen to be positive with a sum of 1 is not a probability.
    clean = normal(8, 2)
    augmented = clean.clone()
    augmented[3] = torch.tensor([0.25, 0.75])
    table = measured(JensenShannon(), clean, augmented).table.flatten()
    torch.testing.assert_close(table, jensen_shannon(clean, augmented))


def test_an_image_that_is_not_finite_does_not_turn_probabilities_into_logits():
    clean, augmented = (x.softmax(1) for x in pair(9, 4))
    whole = measured(JensenShannon(), clean, augmented).table.flatten()
    for broken in (clean, augmented):
        broken[3] = math.nan
        table = measured(JensenShannon(), clean, augmented).table.flatten()
        assert table.isnan().nonzero().flatten().tolist() == [3]
        torch.testing.assert_close(table[table.isfinite()], whole[torch.arange(9) != 3], rtol=0, atol=0)


# Accuracy.


def test_accuracy_is_under_the_view_and_the_drop_from_the_clean_images():
    # Labels 0 1 2 3: clean 0 1 2 0 is right 3 of 4 times, augmented 0 0 0 3 twice: 1/2, and 3/4 - 1/2.
    clean, augmented = torch.eye(4)[[0, 1, 2, 0]], torch.eye(4)[[0, 0, 0, 3]]
    assert with_labels(Accuracy(), clean, augmented, [0, 1, 2, 3]).value == 0.5
    assert with_labels(AccuracyDrop(), clean, augmented, [0, 1, 2, 3]).value == 0.25


def test_the_error_of_the_drop_is_paired_by_image():
    # Both right and both wrong are no drop at all, so a view that changes nothing has no error.
    clean = normal(20, 4)
    labels = [0] * 20
    found = with_labels(AccuracyDrop(), clean, clean, labels)
    assert (found.value, found.std_error) == (0, 0)
    assert with_labels(Accuracy(), clean, clean, labels).std_error > 0


@pytest.mark.parametrize("beyond", [-100, -1, 4, 255])
@pytest.mark.parametrize("metric", [Accuracy(), AccuracyDrop()], ids=lambda metric: metric.name)
def test_an_image_whose_label_is_no_class_is_left_out(metric, beyond):
    clean, augmented = torch.eye(4)[[0, 1, 2, 0]], torch.eye(4)[[0, 0, 0, 3]]
    found = with_labels(metric, clean, augmented, [0, 1, 2, beyond])
    expected = with_labels(metric, clean[:3], augmented[:3], [0, 1, 2])
    assert found.value == expected.value
    assert found.num_images == 3


def test_accuracy_without_labels_says_what_to_do():
    clean = normal(4, 3)
    ready = prepared(Accuracy(), 4)
    with pytest.raises(ValueError, match="accuracy needs labels: pass labels=, or images that come with integer"):
        ready.update(clean, clean, About.of(clean, clean, layer=LAYER))


@pytest.mark.parametrize("metric", [FlipRate(), JensenShannon(), Accuracy(), AccuracyDrop()], ids=lambda m: m.name)
@pytest.mark.parametrize("side", ["clean", "augmented"])
def test_scores_that_are_not_finite_are_left_out_and_no_other_image_moves(metric, side):
    clean, augmented = pair(9, 4, moved=2.0)
    whole = measured(metric, clean, augmented).table.flatten()
    {"clean": clean, "augmented": augmented}[side][3, 1] = math.nan
    table = measured(metric, clean, augmented).table.flatten()
    assert table.isnan().nonzero().flatten().tolist() == [3]
    assert torch.equal(table[table.isfinite()], whole[torch.arange(9) != 3])


@pytest.mark.parametrize("metric", [FlipRate(), JensenShannon(), Accuracy(), AccuracyDrop()], ids=lambda m: m.name)
def test_one_image_has_a_value_and_no_error(metric):
    found = estimate(metric, *pair(1, 4))
    assert found.value.isfinite()
    assert found.std_error.isnan()


@pytest.mark.parametrize(
    ("shape", "label_shape", "names"),
    [
        ((5,), (), {"flip_rate", "js_divergence", "accuracy", "accuracy_drop"}),
        ((5,), None, {"flip_rate", "js_divergence"}),
        ((5,), (8, 8), {"flip_rate", "js_divergence"}),
        ((5, 8, 8), (8, 8), set()),
    ],
)
def test_they_apply_to_class_scores_and_accuracy_where_there_is_a_label_for_each_image(shape, label_shape, names):
    output = Site("output", 3, shape, "output", label_shape=label_shape)
    metrics = [FlipRate(), JensenShannon(), Accuracy(), AccuracyDrop()]
    assert {metric.name for metric in metrics if metric.applies_to(output)} == names
    assert not any(metric.applies_to(Site("fc", 2, (5,), label_shape=())) for metric in metrics)
