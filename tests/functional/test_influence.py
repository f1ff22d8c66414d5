import pytest
import torch
from support.made_results import views_of

from kornia_lightning_probe.functional.estimates import mean_with_error, root_of_mean, sensitivity, shared_part
from kornia_lightning_probe.functional.influence import (
    combined_error,
    mean_influence,
    root_of_mean_influence,
    root_of_ratio_influence,
    sensitivity_influence,
    shared_part_influence,
    shares,
)
from kornia_lightning_probe.result import MetricTable, ProbeResult

NAN = float("nan")


def scalars(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, 6, generator=generator, dtype=torch.float64).square().sum(-1)


def error_of(influence):
    return shares(influence).square().sum(-1).sqrt()


def test_leaving_an_image_out_moves_a_mean_by_its_influence():
    values = scalars(20)
    # mean without i = (N mean - x_i) / (N - 1) = mean - (x_i - mean) / (N - 1)
    expected = values.mean() - values[1:].mean()
    assert mean_influence(values)[0] / 19 == pytest.approx(expected.item(), rel=1e-12)


def test_leaving_an_image_out_moves_a_sensitivity_by_its_influence_to_first_order():
    distance, deviation = scalars(4000), scalars(4000, seed=1)
    influence = sensitivity_influence(distance, deviation)
    i = int(influence.abs().argmax())
    kept = torch.arange(4000) != i
    moved = sensitivity(distance, deviation).value - sensitivity(distance[kept], deviation[kept]).value
    # The second order is smaller by about the image's relative weight, a few in 4000.
    assert (influence[i] / 3999).item() == pytest.approx(moved.item(), rel=5e-3)


@pytest.mark.parametrize(
    ("influence", "estimate"),
    [
        (mean_influence, mean_with_error),
        (root_of_mean_influence, root_of_mean),
        (lambda values: sensitivity_influence(values, values.flip(-1)), lambda x: sensitivity(x, x.flip(-1))),
        (lambda values: shared_part_influence(values - 3, values), lambda values: shared_part(values - 3, values)),
    ],
    ids=["mean", "root of mean", "sensitivity", "shared part"],
)
def test_the_shares_of_one_value_give_its_standard_error(influence, estimate):
    values = scalars(3, 33)
    values[1, [4, 28]] = NAN
    torch.testing.assert_close(error_of(influence(values)), estimate(values).std_error, rtol=1e-12, atol=0)


def test_influences_sum_to_zero_and_are_nan_where_an_image_is_missing():
    values = scalars(2, 31)
    values[0, 3] = NAN
    for influence in (mean_influence(values), root_of_mean_influence(values), sensitivity_influence(values, values**2)):
        assert influence.isnan().nonzero().tolist() == [[0, 3]]
        torch.testing.assert_close(influence.nansum(-1), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-12)


def test_where_nothing_moves_no_image_has_influence_and_in_a_dead_layer_none_is_known():
    still, apart = torch.zeros(1, 5), torch.ones(1, 5)
    assert sensitivity_influence(still, apart).tolist() == [[0.0] * 5]
    assert sensitivity_influence(apart, still).isnan().all()
    assert shared_part_influence(still, still).isnan().all()
    assert root_of_mean_influence(still).tolist() == [[0.0] * 5]


def test_the_influence_of_a_ratio_does_not_depend_on_the_unit():
    above, below = scalars(12), scalars(12, seed=1)
    # sqrt(c x / c y) = sqrt(x / y)
    torch.testing.assert_close(root_of_ratio_influence(9 * above, 9 * below), root_of_ratio_influence(above, below))


def test_one_image_has_a_share_of_zero():
    assert shares(mean_influence(torch.tensor([[2.0, NAN]]))).tolist() == [[0.0, 0.0]]


def combined(first, second, weights=(0.5, 0.5)):
    influence = torch.stack([first, second])[:, None]
    error = error_of(influence)
    return combined_error(torch.tensor(weights)[None, :, None], error, shares(influence)).item()


def test_equal_errors_do_not_average_out_and_opposite_ones_cancel():
    influence = mean_influence(scalars(40))
    alone = error_of(influence).item()
    assert combined(influence, influence) == pytest.approx(alone)
    assert combined(influence, -influence) == pytest.approx(0.0, abs=1e-12)
    # A view of weight 0 takes no part.
    assert combined(influence, 5 * influence, weights=(1.0, 0.0)) == pytest.approx(alone)


def test_without_shares_the_error_of_a_mean_is_the_mean_of_the_errors():
    errors = torch.tensor([[1.0, 3.0], [2.0, NAN]])
    weights = torch.tensor([[[0.5, 1.0], [0.5, 0.0]], [[0.5, 0.5], [-0.5, 0.5]]])
    found = combined_error(weights, errors)
    # Group 1 takes the second layer's unknown error in.
    assert found[0].tolist() == [1.5, 3.0]
    assert found[1, 0] == 1.5
    assert found[1, 1].isnan()


def two_views(values):
    """A result whose metric is the mean over images of (2 views, N) values at one layer."""
    table = values[:, None]
    mean = mean_with_error(table)
    kept = MetricTable(("fc",), mean.value, mean.std_error, mean.num_images, influence=mean_influence(table))
    return ProbeResult(layers=("fc",), views=views_of({"blur": (1.0, 2.0)}), tables={"own": kept})


def test_the_error_of_a_mean_over_views_is_its_spread_over_draws_of_the_images():
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(600, 2, 64, generator=generator, dtype=torch.float64)
    # Correlation of the views is 1/2: a common part and one of each view's own.
    draws = draws + torch.randn(600, 1, 64, generator=generator, dtype=torch.float64)
    results = [two_views(values) for values in draws]
    spread = torch.tensor([result.value("own") for result in results]).std().item()
    claimed = torch.tensor([result.std_error("own") for result in results]).mean().item()
    # The variance of the mean of two views is (2 + 1) / 2 over 64 images; 600 draws know it to 1/sqrt(1200) = 3 %.
    assert claimed == pytest.approx((1.5 / 64) ** 0.5, rel=0.03)
    assert spread == pytest.approx(claimed, rel=0.12)
    # From a file it is from above: the mean of the two errors, sqrt(2 / 64).
    again = ProbeResult.from_json(results[0].to_json())
    assert again.std_error("own") > results[0].std_error("own")
    assert results[0].without_influence().std_error("own") == again.std_error("own")


def test_the_error_of_a_mean_over_layers_knows_that_they_show_the_same_images():
    influence = mean_influence(scalars(1, 1, 50))
    both = torch.cat([influence, -influence], 1)
    error = error_of(both)
    table = MetricTable(("a", "b"), torch.ones(1, 2), error, torch.full((1, 2), 50), influence=both)
    result = ProbeResult(layers=("a", "b"), views=views_of({"blur": (1.0,)}), tables={"own": table})
    assert result.std_error("own") == pytest.approx(0.0, abs=1e-7)
    assert result.std_error("own", "b") == pytest.approx(error[0, 1].item(), rel=1e-6)


def test_a_value_of_unknown_error_makes_the_error_of_the_mean_unknown_and_a_missing_value_does_not():
    views = views_of({"blur": (1.0, 2.0)})

    def error(values, errors):
        table = MetricTable(("fc",), torch.tensor(values), torch.tensor(errors), torch.full((2, 1), 9))
        return ProbeResult(layers=("fc",), views=views, tables={"own": table}).std_error("own")

    assert error([[1.0], [NAN]], [[0.25], [NAN]]) == 0.25
    assert error([[1.0], [1.0]], [[0.25], [NAN]]) != error([[1.0], [1.0]], [[0.25], [NAN]])
    assert error([[NAN], [NAN]], [[NAN], [NAN]]) != 0.0


def test_an_influence_of_another_shape_is_refused():
    with pytest.raises(
        ValueError, match=r"influence has shape \(1, 2, 5\); expected \(views, layers, images\) = \(1, 1, 'N'\)"
    ):
        MetricTable(("fc",), *torch.ones(3, 1, 1), influence=torch.zeros(1, 2, 5))


def test_influence_is_kept_in_float32_and_stays_out_of_states_and_files():
    result = two_views(scalars(2, 16))
    influence = result.table("own").influence
    assert (influence.dtype, influence.shape) == (torch.float32, (2, 1, 16))
    assert "influence" not in result.state()["tables"]["own"]
    assert "influence" not in result.to_json()
    assert result.without_influence().table("own").influence is None
    assert result.without_influence().rows == result.rows
