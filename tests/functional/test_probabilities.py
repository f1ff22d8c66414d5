import math

import pytest
import torch
from support.activations import normal, pair

from kornia_lightning_probe.functional.probabilities import are_probabilities, jensen_shannon, log_probabilities

LN2 = math.log(2)


@pytest.mark.parametrize("constant", [1.0, -7.0, 1e4])
def test_a_constant_added_to_all_logits_is_no_divergence(constant):
    logits = normal(9, 5)
    torch.testing.assert_close(jensen_shannon(logits, logits + constant), torch.zeros(9).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [1e2, 1e4, 1e30])
def test_disjoint_distributions_are_ln_2_apart_without_underflow(scale):
    logits = torch.tensor([[scale, -scale, -scale], [-scale, scale, -scale]])
    assert jensen_shannon(logits, logits.roll(1, 1)).tolist() == pytest.approx([LN2, LN2], abs=1e-12)


def test_it_is_symmetric_and_lies_between_nothing_and_ln_2():
    clean, augmented = pair(99, 7, moved=5.0)
    found = jensen_shannon(clean, augmented)
    torch.testing.assert_close(jensen_shannon(augmented, clean), found)
    assert found.dtype == torch.float64
    assert (found >= 0).all()
    assert (found <= LN2).all()


def test_of_two_coins_it_is_the_entropy_that_their_mixture_gains():
    # (0.9, 0.1) and (0.1, 0.9), mixture (1/2, 1/2): 0.9 ln 1.8 + 0.1 ln 0.2.
    coins = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64)
    expected = 0.9 * math.log(1.8) + 0.1 * math.log(0.2)
    assert jensen_shannon(coins.log(), coins.flip(1).log()).tolist() == pytest.approx([expected] * 2)


def test_what_is_not_finite_has_no_divergence():
    logits = normal(3, 4)
    spoilt = logits.clone()
    spoilt[1, 2] = math.nan
    assert jensen_shannon(logits, spoilt).isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_softmax_gives_probabilities_in_any_precision(dtype, classes):
    assert are_probabilities(normal(32, classes).softmax(1).to(dtype))
    assert are_probabilities(normal(32, classes).softmax(1).to(dtype).float())


@pytest.mark.parametrize(
    "scores",
    [normal(32, 2), normal(32, 10).sigmoid(), normal(32, 10).log_softmax(1), normal(32, 4).relu() + 0.01],
    ids=["logits", "sigmoid", "log_softmax", "relu"],
)
def test_other_scores_are_none(scores):
    assert not are_probabilities(scores)


def test_a_layer_whose_logits_nearly_sum_to_one_gives_logits():
    # The head of an untrained network gives all images nearly the same: here .4 and .601.
    assert not are_probabilities(torch.tensor([0.4, 0.601]) + 1e-3 * normal(32, 2, dtype=torch.float32).abs())


def test_images_that_are_not_finite_say_nothing_about_the_others():
    scores = normal(8, 4).softmax(1)
    scores[2, 1], scores[3] = math.nan, math.inf
    assert are_probabilities(scores)
    assert not are_probabilities(torch.full((2, 4), math.nan))
    assert not are_probabilities(torch.zeros(2, 4))


def test_the_logarithm_of_nothing_is_finite_and_of_half_precision_wide():
    assert log_probabilities(torch.tensor([[0.0, 1.0]])).isfinite().all()
    small = torch.tensor([[1e-6, 1.0]], dtype=torch.float16)
    found = log_probabilities(small)
    assert found.dtype == torch.float32
    assert found[0, 0] == pytest.approx(math.log(float(small[0, 0])))
