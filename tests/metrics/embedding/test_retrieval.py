import math

import pytest
import torch
from support.activations import LAYER, estimate, measured, normal, numbers, pair, prepared, record_of

from kornia_lightning_probe import AugmentationBank, probe_model
from kornia_lightning_probe.activations.clean import CleanBlock
from kornia_lightning_probe.functional.estimates import mean_with_error
from kornia_lightning_probe.functional.influence import shares
from kornia_lightning_probe.metrics import RetrievalAUC, Site


def auc(clean, augmented, blocks=None):
    return float(estimate(RetrievalAUC(), clean, augmented, blocks).value)


def test_a_view_that_changes_nothing_reads_one():
    assert auc(normal(33, 5), normal(33, 5)) == 1


@pytest.mark.parametrize("count", [2, 4, 31])
def test_a_random_swap_of_images_reads_one_half(count):
    # With b_i = a_k, k != i, one image is nearer than a_i and half of the other n - 2 are, in the mean over i; with
    # k = i all are farther. Over all n rolls: 1/n + (n-1)/n (n-2)/(2 (n-1)) = 1/2.
    clean = normal(count, 5)
    rolls = [auc(clean, clean.roll(shift, 0), [range(count)]) for shift in range(count)]
    assert sum(rolls) / count == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize("collapsed", [0.0, 0.1, 1000.0])
def test_a_collapsed_embedding_reads_one_half_whatever_the_view_does(collapsed):
    clean = torch.full((8, 5), collapsed)
    for augmented in (clean, clean + normal(8, 5, dtype=torch.float32)):
        assert numbers(estimate(RetrievalAUC(), clean, augmented)) == (0.5, 0, 8)


def test_an_embedding_that_collapses_under_the_view_reads_one_half():
    # All b are one point: over the images i, each a_i has as many nearer to it as another has farther.
    clean = normal(31, 5)
    assert auc(clean, normal(1, 5, seed=4).expand_as(clean), [range(31)]) == pytest.approx(0.5, abs=1e-12)


def test_the_share_of_farther_images_is_counted():
    # b_0 = 2.9 is .1 from a_3, .9 from a_2, 1.9 from a_1 and 2.9 from its own a_0: none of three is farther.
    # b_1 = 1.5 is .5 from its own a_1, as from a_2 (half), 1.5 from a_0 and a_3: (1/2 + 2) / 3.
    clean = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    augmented = torch.tensor([[2.9], [1.5], [2.0], [3.0]])
    searched, owed = measured(RetrievalAUC(), clean, augmented).table.flatten(1)
    torch.testing.assert_close(searched, torch.tensor([0.0, 2.5 / 3, 1.0, 1.0], dtype=torch.float64))
    # The mean is 17/24. Without image 0 there are 5.5 of 6 pairs left, without 1 and 2 there are 4, without 3 there are
    # 3.5, and 4 * 17/24 - 3 * 5.5/6 = .5/6.
    torch.testing.assert_close(owed, torch.tensor([0.5, 5.0, 5.0, 6.5], dtype=torch.float64) / 6)


def test_the_gallerys_size_does_not_matter():
    # Draws of 2048 images in galleries of 4 and of 32; the errors of the two are independent but for the images.
    clean, augmented = pair(2048, moved=1.5)
    small, large = (
        estimate(RetrievalAUC(), clean, augmented, [range(i, i + n) for i in range(0, 2048, n)]) for n in (4, 32)
    )
    assert abs(small.value - large.value) < 4 * small.std_error
    assert 0.6 < large.value < 0.95


def test_scaling_rotating_and_shifting_features_changes_nothing():
    clean, augmented = pair(33, moved=1.5)
    rotation = torch.linalg.qr(normal(6, 6, seed=5)).Q
    changed = [3 * x @ rotation + 20 for x in (clean, augmented)]
    assert auc(*changed) == pytest.approx(auc(clean, augmented), abs=1e-12)


@pytest.mark.parametrize("width", [4, 4097])
def test_it_does_not_matter_how_a_probes_passes_are_cut(width):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(width, 2))
    # Of independent pixels the mirror image is another image.
    bank = AugmentationBank({"mirror": lambda x: x.flip(-1)})
    images = torch.rand(31, 1, 1, width, generator=torch.Generator().manual_seed(0))
    whole, cut = (
        probe_model(net, images, bank, layers=["0"], embedding="0", metrics=["retrieval_auc"], batch_size=size)
        for size in (64, 7)
    )
    assert whole.value("retrieval_auc") == cut.value("retrieval_auc")
    assert whole.std_error("retrieval_auc") == cut.std_error("retrieval_auc") > 0


def test_views_that_are_measured_at_once_are_what_they_are_alone():
    clean, first = pair(9, moved=1.5)
    _, second = pair(9, moved=3.0)
    block, together = CleanBlock(clean), prepared(RetrievalAUC(), 9, views=("first", "second"))
    second[2, 0] = math.nan
    views = torch.stack([first, second])
    record = record_of(block, views, num_views=2)
    together.write({LAYER: together.measure_block(clean, views, record)}, range(2), (0, 9), record.valid)
    for number, augmented in enumerate((first, second)):
        alone = measured(RetrievalAUC(), clean, augmented).table[:, 0]
        torch.testing.assert_close(together.table[:, number], alone, rtol=0, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("shape", [(), (1,), (3, 2, 2)], ids=str)
def test_an_embedding_of_any_shape_can_be_searched(shape):
    clean = normal(8, *shape)
    block = CleanBlock(clean)
    record = record_of(block, clean)
    ready = prepared(RetrievalAUC(), 8)
    ready.update(record.clean, record.augmented, record)
    assert ready.compute().value == 1


def test_a_single_image_has_no_gallery():
    assert math.isnan(auc(*pair(1)))


@pytest.mark.parametrize("broken", [False, True])
def test_an_image_owes_what_leaving_it_out_takes_away(broken):
    clean, augmented = pair(9, moved=1.5)
    if broken:
        # It does not search, and stays in the gallery.
        augmented[8, 0] = math.nan
    searches, whole = 8 if broken else 9, auc(clean, augmented)
    owed = measured(RetrievalAUC(), clean, augmented).table[1].flatten()
    for image in range(searches):
        rest = torch.arange(9) != image
        expected = whole + (searches - 1) * (whole - auc(clean[rest], augmented[rest]))
        assert owed[image].item() == pytest.approx(expected, abs=1e-12)
    assert owed[searches:].isnan().all()


def test_the_images_shares_give_the_error():
    ready = measured(RetrievalAUC(), *pair(40, moved=1.5))
    found = ready.compute()
    assert shares(found.influence).square().sum().sqrt() == pytest.approx(found.std_error.item(), rel=1e-12)
    # The mean of what a block's images owe is the block's value.
    assert ready.table[1].mean() == pytest.approx(found.value.item(), abs=1e-12)


def test_of_two_images_the_value_is_known_and_its_error_is_not():
    # b_0 = .6 is nearer to a_1 = 1 than to its own a_0 = 0, b_1 = 1 is not: one of two.
    clean, augmented = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.6], [1.0]])
    value, error, count = numbers(estimate(RetrievalAUC(), clean, augmented))
    assert (value, count) == (0.5, 2)
    assert error.isnan()


@pytest.mark.parametrize(("moved", "unequal", "old"), [(1.5, 0.7, 0.78), (0.7, 0.7, 0.71), (None, 0.0, 1.19)])
def test_the_error_is_the_spread_over_draws_of_the_images(moved, unequal, old):
    # 1000 draws of 32 images know their spread to 1/sqrt(2000) = 2 %. Each image's share alone would claim `old` of it.
    clean = normal(32000, 8) * (unequal * normal(32000, 1, seed=1)).exp()
    other = normal(32000, 8, seed=2)
    augmented = other if moved is None else clean + moved * other
    ready = measured(RetrievalAUC(), clean, augmented, [range(i, i + 32) for i in range(0, 32000, 32)])
    draws = {name: table.view(1000, 1, 32) for name, table in zip(ready.statistics, ready.table, strict=True)}
    found = ready.reduce(draws)
    assert (found.std_error.mean() / found.value.std()).item() == pytest.approx(1, abs=0.1)
    alone = mean_with_error(draws["auc"]).std_error
    assert (alone.mean() / found.value.std()).item() == pytest.approx(old, abs=0.06)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_an_image_that_is_not_finite_is_searched_for_by_none(broken):
    clean, augmented = pair(9, moved=1.5)
    kept = [row for row in range(9) if row != 3]
    expected = measured(RetrievalAUC(), clean[kept], augmented[kept]).table.flatten(1)
    clean[3, 1] = broken
    table = measured(RetrievalAUC(), clean, augmented).table.flatten(1)
    assert torch.equal(table[0, kept], expected[0])
    torch.testing.assert_close(table[:, kept], expected, rtol=1e-12, atol=0)
    assert table[:, 3].isnan().all()


def test_an_image_that_is_not_finite_under_the_view_stays_in_the_gallery():
    clean, augmented = pair(9, moved=1.5)
    whole = measured(RetrievalAUC(), clean, augmented).table[0].flatten()
    augmented[3, 1] = math.nan
    table = measured(RetrievalAUC(), clean, augmented).table[0].flatten()
    assert table.isnan().nonzero().flatten().tolist() == [3]
    assert torch.equal(table[table.isfinite()], whole[torch.arange(9) != 3])


def test_a_large_common_mean_leaves_the_order_of_distances():
    clean, augmented = pair(32, 50, moved=1.5)
    ours = auc((clean + 1000).float(), (augmented + 1000).float())
    # Features at 1000 are rounded by 6e-5 of their spread, distances in 50 dimensions by less: of 32 * 31 comparisons
    # of distances that differ by some tenths, one or two may turn.
    assert ours == pytest.approx(auc(clean, augmented), abs=2 / (32 * 31))


def test_only_the_embedding_is_searched():
    assert RetrievalAUC().applies_to(Site("fc", 2, (5,), is_embedding=True))
    assert not RetrievalAUC().applies_to(Site("conv", 1, (5,)))
    assert not RetrievalAUC().applies_to(Site("fc", 2, (5,), is_embedding=True, representation="pooled"))
