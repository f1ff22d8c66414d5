"""CKA and RankMe against closed forms of Hadamard columns, invariances and edges."""

import math

import pytest
import torch
from support.plain_measures import biased_cka, unbiased_hsic

from kornia_lightning_probe.functional.similarity import centred_gram, debiased_cka, rankme


def hadamard(n):
    """Columns of H_n without the constant one: orthogonal, of mean 0 and squared length n."""
    matrix = torch.ones(1, 1)
    while len(matrix) < n:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix[:, 1:]


def shared_columns(n, p, q, r):
    columns = hadamard(n)
    return centred_gram(columns[:, :p]), centred_gram(columns[:, p - r : p - r + q])


def noise(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("r", "biased", "debiased"), [(2, 1.0, 1.0), (1, 0.5, 0.3), (0, 0.0, -0.4)])
def test_eight_images_and_two_columns_each_have_the_closed_form(r, biased, debiased):
    grams = shared_columns(8, 2, 2, r)
    assert float(biased_cka(*grams)) == pytest.approx(biased, abs=1e-12)
    assert float(debiased_cka(*grams)) == pytest.approx(debiased, abs=1e-12)


@pytest.mark.parametrize(
    ("n", "p", "q", "r"), [(8, 1, 3, 1), (8, 3, 4, 2), (16, 3, 7, 2), (32, 20, 5, 0), (4, 1, 2, 1)]
)
def test_shared_hadamard_columns_have_the_general_closed_form(n, p, q, r):
    grams = shared_columns(n, p, q, r)
    # K = X X^T and L = Y Y^T are n times projections of traces p, q and r; U-centring takes a p/(n-1) share off.
    width = math.sqrt((p - p**2 / (n - 1)) * (q - q**2 / (n - 1)))
    assert float(biased_cka(*grams)) == pytest.approx(r / math.sqrt(p * q), abs=1e-12)
    assert float(debiased_cka(*grams)) == pytest.approx((r - p * q / (n - 1)) / width, abs=1e-12)


def test_it_is_made_of_the_published_sums_of_three_terms():
    raw = [features.double() @ features.double().T for features in (noise(20, 3), noise(20, 7, seed=1) + 2)]
    k, l = raw  # noqa: E741 - the paper's letters
    expected = unbiased_hsic(k, l) / (unbiased_hsic(k, k) * unbiased_hsic(l, l)).sqrt()
    torch.testing.assert_close(debiased_cka(k, l), expected)
    # Centring adds a term of the row and a term of the column, to which HSIC_1 is blind.
    centred = [centred_gram(noise(20, 3)), centred_gram(noise(20, 7, seed=1) + 2)]
    torch.testing.assert_close(debiased_cka(*centred), expected)


@pytest.mark.parametrize("d", [10, 100, 1000])
def test_independent_features_are_biased_by_their_width_and_debiased_to_zero(d):
    n, draws = 100, 20
    pairs = [(centred_gram(noise(n, d, 2 * i)), centred_gram(noise(n, d, 2 * i + 1))) for i in range(draws)]
    biased = torch.stack([biased_cka(*pair) for pair in pairs])
    debiased = torch.stack([debiased_cka(*pair) for pair in pairs])
    # tr E[K] E[L] = d^2 (n-1) over E|K|^2 = d (n-1) (d + n), to leading order.
    assert float(biased.mean()) == pytest.approx(d / (n + d + 1), rel=0.05)
    assert abs(float(debiased.mean())) < 4 * float(debiased.std()) / math.sqrt(draws)
    assert float(debiased.min()) < 0


def test_rotation_scale_shift_and_repetition_of_features_change_nothing():
    x, y = noise(24, 6).double(), noise(24, 9, seed=1).double() + noise(24, 6).double()[:, :1]
    rotation = torch.linalg.qr(noise(6, 6, seed=2).double()).Q
    expected = debiased_cka(centred_gram(x), centred_gram(y))
    for other in (x @ rotation, -1e-3 * x, 1e6 * x, x + 5, x.repeat(1, 3)):
        found = debiased_cka(centred_gram(other), centred_gram(y))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_a_representation_is_equal_to_itself():
    for n, d in ((4, 1), (31, 100), (33, 5)):
        gram = centred_gram(noise(n, d))
        assert float(debiased_cka(gram, gram)) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("mean", [0.0, 10.0, 100.0, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_large_common_mean_costs_no_digits(mean, dtype):
    x, y = (noise(64, 50) + mean).to(dtype), (noise(64, 50) + 0.5 * noise(64, 50, seed=1) + mean).to(dtype)
    exact = []
    for features in (x, y):
        wide = features.double()
        exact.append((wide - wide.mean(0)) @ (wide - wide.mean(0)).T)
    torch.testing.assert_close(
        debiased_cka(centred_gram(x), centred_gram(y)), debiased_cka(*exact), rtol=1e-9, atol=1e-9
    )


def test_an_uncentred_float32_gram_would_be_wrong():
    x, y = noise(64, 500) + 1000, noise(64, 500, seed=1) + 1000
    right = float(biased_cka(centred_gram(x), centred_gram(y)))
    wrong = float(biased_cka(x @ x.T, y @ y.T))
    assert right == pytest.approx(500 / 565, rel=0.05)
    assert abs(wrong - right) > 0.01 or math.isnan(wrong)


def test_widths_from_one_to_a_hundred_thousand_read_one_for_the_same_and_zero_for_others():
    for d in (1, 100_000):
        gram, other = centred_gram(noise(32, d)), centred_gram(noise(32, d, seed=1))
        assert float(debiased_cka(gram, gram)) == pytest.approx(1.0, abs=1e-9)
        assert abs(float(debiased_cka(gram, other))) < 0.2


@pytest.mark.parametrize("n", [7, 100])
def test_a_dead_layer_is_zero_and_has_no_similarity(n):
    dead = torch.full((n, 3), 0.1)
    # The last bit of a float32 forward, which depends on the batch's shape, is no information.
    dead[::2] += 1e-8
    gram = centred_gram(dead)
    assert not gram.any()
    assert math.isnan(debiased_cka(gram, centred_gram(noise(n, 3))))
    assert math.isnan(debiased_cka(gram, gram))


def test_one_huge_constant_feature_does_not_hide_the_others():
    x = noise(30, 4)
    with_outlier = torch.cat([x, torch.full((30, 1), 1e9)], 1)
    torch.testing.assert_close(centred_gram(with_outlier), centred_gram(x))


def test_images_equally_far_apart_have_no_similarity():
    # All n - 1 Hadamard columns: K = n I - 1, of which U-centring leaves nothing.
    gram = centred_gram(hadamard(8))
    assert math.isnan(debiased_cka(gram, shared_columns(8, 2, 2, 0)[0]))


def test_images_that_are_not_finite_on_either_side_are_left_out():
    x, y = noise(12, 3), noise(12, 5, seed=1) + noise(12, 3)[:, :1]
    left, right = x.clone(), y.clone()
    left[3, 1], right[7, 0] = torch.inf, torch.nan
    kept = [i for i in range(12) if i not in (3, 7)]
    expected = debiased_cka(centred_gram(x[kept]), centred_gram(y[kept]))
    torch.testing.assert_close(debiased_cka(centred_gram(left), centred_gram(right)), expected)


def test_fewer_than_four_finite_images_are_too_few():
    x = noise(5, 3)
    x[:2] = torch.nan
    assert math.isnan(debiased_cka(centred_gram(x), centred_gram(noise(5, 3))))


def test_fewer_than_four_images_are_an_error_that_says_why():
    gram = centred_gram(noise(3, 2))
    with pytest.raises(ValueError, match=r"at least 4 images, since HSIC_1 divides by n - 3; got 3"):
        debiased_cka(gram, gram)


def test_grams_of_different_images_are_an_error():
    with pytest.raises(ValueError, match=r"of the same n images are needed, got \(5, 5\) and \(6, 6\)"):
        debiased_cka(centred_gram(noise(5, 2)), centred_gram(noise(6, 2)))
    with pytest.raises(ValueError, match=r"features must be \(n, d\), one row for each image, got \(2, 3, 4\)"):
        centred_gram(torch.zeros(2, 3, 4))


def test_a_gram_matrix_does_not_touch_its_features():
    x = noise(6, 2).double()
    before = x.clone()
    centred_gram(x)
    debiased_cka(x @ x.T, x @ x.T)
    assert torch.equal(x, before)


@pytest.mark.parametrize("p", [1, 3, 7])
def test_rankme_of_p_equal_singular_values_is_p(p):
    assert float(rankme(hadamard(8)[:, :p])) == pytest.approx(p, abs=1e-9)
    assert float(rankme(1e-5 * hadamard(8)[:, :p])) == pytest.approx(p, abs=1e-9)


def test_rankme_of_two_values_is_the_entropy_of_a_coin():
    # Singular values 3 : 1 are shares of 3/4 and 1/4.
    expected = math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert float(rankme(hadamard(8)[:, :2] * torch.tensor([3.0, 1.0]))) == pytest.approx(expected, abs=1e-9)


def test_rankme_is_bounded_by_the_number_of_images_and_by_the_width():
    assert 10 < float(rankme(noise(16, 1000))) <= 16
    assert 4 < float(rankme(noise(1000, 5))) <= 5


def test_rankme_of_one_vector_for_all_images_is_one_and_of_zeros_unknown():
    assert float(rankme(torch.full((9, 4), 2.5))) == pytest.approx(1.0, abs=1e-9)
    assert math.isnan(rankme(torch.zeros(9, 4)))
    assert math.isnan(rankme(torch.full((9, 4), torch.nan)))


def test_rankme_leaves_out_images_that_are_not_finite():
    x = noise(9, 4)
    spoilt = torch.cat([x, torch.full((1, 4), torch.inf)])
    torch.testing.assert_close(rankme(spoilt), rankme(x))
