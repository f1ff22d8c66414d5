import copy

import pytest
import torch
from support.activations import LAYER, about, assert_same, estimate, measured, normal, pair, prepared, update

from kornia_lightning_probe.images.blocks import deal_blocks
from kornia_lightning_probe.metrics import BlockMetric, BlockSums, ChannelMedian, Sums


class Quietest(BlockSums, BlockMetric):
    """The sensitivity of the channel that moves least, as the guide shows it."""

    name = "quietest_channel"
    statistics = ("moved",)
    clean_statistics = ("apart",)

    def width(self, site):
        return site.shape[-1]

    def measure_block(self, clean, augmented, about):
        count = torch.tensor(len(clean))
        moved = (augmented - clean).square().sum(1)
        apart = len(clean) * about.block.channel_variance
        return {"moved": Sums(moved, count.expand(len(moved))), "apart": Sums(apart, count)}

    def reduce_means(self, means):
        return (means["moved"] / (2 * means["apart"])).sqrt().amin(-1)


class Returning(Quietest):
    """Returns what it is given."""

    def __init__(self, returned):
        super().__init__()
        self.returned = returned

    def measure_block(self, clean, augmented, about):
        return self.returned


def of_channels(clean, augmented, blocks):
    """Each channel's sensitivity: the ratio of means over all images, of variances within their blocks."""
    moved = (augmented - clean).square().mean(0)
    apart = sum(len(rows) * clean[list(rows)].var(0) for rows in blocks) / len(clean)
    return (moved / (2 * apart)).sqrt()


def test_a_value_is_one_of_means_over_all_blocks_and_no_mean_over_blocks():
    clean, augmented = pair(80, 20)
    # One block moves far more than the others.
    augmented[:20] += 5
    blocks = deal_blocks(80)
    expected = of_channels(clean, augmented, blocks)
    assert float(estimate(Quietest(), clean, augmented).value) == pytest.approx(expected.amin().item())
    assert float(estimate(ChannelMedian(), clean, augmented).value) == pytest.approx(expected.quantile(0.5).item())


def test_layers_have_as_many_channels_as_they_have():
    ready = Quietest().prepare(["a", "b"], ["wide", "narrow"], 8)
    for layer, width in (("narrow", 2), ("wide", 5)):
        clean = normal(8, width)
        for view, shift in enumerate((1.0, 2.0)):
            update(ready, clean, clean + shift * clean.std(0), layer=layer, view_index=view)
    # Every channel moves by so many of its own deviations: S = shift / sqrt(2).
    expected = torch.tensor([[1.0, 1.0], [2.0, 2.0]], dtype=torch.float64) / 2**0.5
    torch.testing.assert_close(ready.compute().value, expected)
    # Two views and the clean one; 5 and 2 channels, and the number of images behind each.
    assert ready.table.shape == (3, 5 + 1 + 2 + 1)
    assert ready.widths == (5, 2)


def test_what_is_clean_is_added_once_whatever_the_views():
    clean = normal(8, 4)
    ready = prepared(Quietest(), 8, views=("a", "b", "c"))
    for view in (2, 0, 1):
        update(ready, clean, clean + 1, view_index=view)
    torch.testing.assert_close(ready.means(LAYER)["apart"], clean.var(0))


def test_widths_that_were_told_are_those_of_a_process_without_images():
    clean, augmented = pair(8, 4)
    idle, busy = prepared(Quietest(), 8), measured(Quietest(), clean, augmented)
    idle.widen({LAYER: 4})
    assert idle.table.shape == busy.table.shape
    assert idle.estimates().value.isnan()
    with pytest.raises(ValueError, match="has 4 channels of layer 'layer', got 5"):
        idle.widen({LAYER: 5})


def test_sums_of_several_layers_from_elsewhere_need_their_widths():
    ready = prepared(Quietest(), 8, layers=("conv", "fc"))
    ready.table = torch.zeros(2, 9, dtype=torch.float64)
    with pytest.raises(RuntimeError, match=r"sums of 9 channels of 2 layers.*metric\.widen\("):
        ready.estimates()


@pytest.mark.parametrize("order", [1, -1], ids=["into the empty one", "into the full one"])
def test_two_halves_and_an_empty_one_merge_to_the_whole(order):
    clean, augmented = pair(31, 20)
    blocks = deal_blocks(31, 8)
    whole = estimate(ChannelMedian(), clean, augmented, blocks)
    halves = [measured(ChannelMedian(), clean, augmented, part) for part in ([], blocks[:2], blocks[2:])][::order]
    first = halves[0]
    for other in halves[1:]:
        kept = copy.deepcopy(other.metric_state)
        first.merge_state(other)
        torch.testing.assert_close(other.metric_state, kept, rtol=0, atol=0)
    assert_same(first.compute(), whole, rtol=1e-12)


def test_a_state_alone_merges_too():
    clean, augmented = pair(8, 20)
    empty, full = prepared(ChannelMedian(), 8), measured(ChannelMedian(), clean, augmented)
    empty.merge_state(full.metric_state)
    assert_same(empty.compute(), full.compute())


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        ({"moved": torch.zeros(1, 4), "apart": torch.zeros(4)}, TypeError, r"must return Sums\(total, num_images\)"),
        ({"moved": Sums(torch.zeros(1, 4), torch.tensor([8]))}, ValueError, "returned totals of"),
        (
            {"moved": Sums(torch.zeros(2, 4), torch.tensor([8])), "apart": Sums(torch.zeros(4), torch.tensor(8))},
            ValueError,
            r"expected \{'moved': \(1, 4\), 'apart': \(4,\)\}",
        ),
    ],
)
def test_other_statistics_than_declared_are_an_error(returned, error, message):
    clean = normal(8, 4)
    with pytest.raises(error, match=message):
        prepared(Returning(returned), 8).update(clean, clean, about(clean, clean))


def test_nothing_measured_leaves_the_cells_unfilled():
    clean = normal(8, 4)
    ready = prepared(Returning({}), 8)
    ready.update(clean, clean, about(clean, clean))
    assert not ready.filled.any()
    assert ready.compute().value.isnan()


def test_a_metric_without_statistics_is_an_error():
    class Empty(Quietest):
        statistics = ()
        clean_statistics = ()

    with pytest.raises(ValueError, match="Empty must set name, a text, and statistics"):
        prepared(Empty(), 4)
