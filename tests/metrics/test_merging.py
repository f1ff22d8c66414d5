import math
import warnings

import pytest
import torch
import torch.distributed as dist
from support.activations import (
    LAYER,
    METRICS,
    MeanShift,
    about,
    assert_same,
    estimate,
    measured,
    pair,
    prepared,
    rounding_of,
    update,
)
from torchmetrics.utilities.exceptions import TorchMetricsUserError

from kornia_lightning_probe.metrics import (
    BlockSums,
    ChannelMedian,
    LayerSensitivity,
    RelativeChange,
    Site,
    Spread,
    sum_over_ranks,
)

# Four blocks of 31 images.
BLOCKS = [range(8), range(8, 16), range(16, 24), range(24, 31)]
every_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)


@every_metric
def test_merging_unequal_shares_is_measuring_all(metric):
    clean, augmented = pair(31)
    first, second = (measured(metric, clean, augmented, blocks) for blocks in (BLOCKS[:3], BLOCKS[3:]))
    empty = prepared(metric, 31)
    # torchmetrics keeps a computed value; it must not outlive a merge.
    first.compute()
    first.merge_state(empty)
    first.merge_state(second)
    assert_same(first.compute(), estimate(metric, clean, augmented, BLOCKS), **rounding_of(metric))


def test_an_empty_metric_holds_what_was_merged_into_it():
    clean, augmented = pair(31)
    empty, full = prepared(LayerSensitivity(), 31), measured(LayerSensitivity(), clean, augmented)
    empty.merge_state(full.metric_state)
    assert_same(empty.compute(), full.compute())


def test_merging_leaves_the_other_as_it_was():
    clean, augmented = pair(31)
    first, second = (measured(LayerSensitivity(), clean, augmented, [ids]) for ids in BLOCKS[:2])
    before = second.compute()
    first.merge_state(second)
    update(first, clean, augmented, BLOCKS[2])
    assert_same(second.compute(), before)


def test_merging_the_same_images_names_them():
    clean, augmented = pair(31)
    first = measured(LayerSensitivity(), clean, augmented, BLOCKS[:2])
    first.merge_state(measured(LayerSensitivity(), clean, augmented, [range(14, 18)]))
    with pytest.raises(RuntimeError, match="holds images 14, 15 more than once"):
        first.compute()


@pytest.mark.parametrize(("views", "count"), [(("a", "b"), 4), (("view",), 5)])
def test_merging_tables_of_another_shape_is_an_error(views, count):
    mine = prepared(MeanShift(), 4)
    other = prepared(MeanShift(), count, views=views)
    sizes = rf"table of shape \(1, {len(views)}, 1, {count}\) into one of shape \(1, 1, 1, 4\)"
    with pytest.raises(ValueError, match=rf"can't merge a {sizes}: both must be prepared for the same views"):
        mine.merge_state(other)
    assert not mine.update_called


@pytest.mark.parametrize("layers", [("fc", "conv"), ("conv",), ("conv", "fc", "head")], ids=len)
def test_merging_other_layers_is_an_error_also_where_they_are_as_many(layers):
    mine, other = (prepared(MeanShift(), 4, layers=names) for names in (("conv", "fc"), layers))
    with pytest.raises(ValueError, match="prepared for the same views, layers and images"):
        mine.merge_state(other)


@pytest.mark.parametrize("state", [{}, {"table": torch.zeros(1, 1, 1, 4)}], ids=["empty", "half"])
def test_merging_an_incomplete_state_is_an_error_and_changes_nothing(state):
    mine = measured(MeanShift(), *pair(4))
    before = mine.table.clone()
    with pytest.raises(ValueError, match="to be present in incoming state"):
        mine.merge_state(state)
    assert torch.equal(mine.table, before)


def test_merging_another_metric_is_an_error():
    with pytest.raises(ValueError, match=r"instance of Spread but got .*RelativeChange"):
        prepared(Spread(), 4).merge_state(prepared(RelativeChange(), 4))


@pytest.mark.parametrize("what", [None, 5, "table"])
def test_merging_what_is_no_state_is_an_error(what):
    with pytest.raises((TypeError, ValueError), match=r"incoming state|can't merge"):
        prepared(MeanShift(), 4).merge_state(what)


# Several processes.


def on_rank(metrics, clean, augmented, shares):
    """This rank's own estimates before and after, the pooled ones by compute(), and those seen inside of a sync."""
    found = []
    for metric in metrics:
        ready = measured(metric, clean, augmented, shares[dist.get_rank()])
        if isinstance(ready, BlockSums):
            # torchmetrics' own way to gather states needs one shape on all ranks, also on one without images.
            ready.fit(Site(LAYER, 1, tuple(clean.shape[1:])))
        own = ready.estimates()
        with warnings.catch_warnings():
            # torchmetrics' own remark on a rank that has no images.
            warnings.filterwarnings("ignore", "The ``compute`` method of metric")
            pooled = ready.compute()
        after = ready.estimates()
        ready.sync(dist_sync_fn=sum_over_ranks)
        synced = ready.estimates()
        with pytest.raises(TorchMetricsUserError, match="already been synced"):
            ready.sync(dist_sync_fn=sum_over_ranks)
        ready.unsync()
        ready.sync()
        gathered = ready.estimates()
        ready.unsync()
        found.append({"own": (own, after), "pooled": (pooled, synced, gathered), "left": ready.estimates()})
    return found


SHARES = {
    2: [BLOCKS[:3], BLOCKS[3:]],
    3: [BLOCKS[1:], [], BLOCKS[:1]],
}


@pytest.mark.parametrize("size", SHARES)
def test_unequal_and_empty_shares_of_processes_are_pooled_to_the_same_bits(gloo, size):
    clean, augmented = pair(31)
    # An image that isn't finite on one rank must not reach the images of others.
    clean[10, 2] = math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = [measured(metric, clean, augmented, BLOCKS).estimates() for metric in METRICS]
    for rank, found in enumerate(gloo(size)(on_rank, METRICS, clean, augmented, SHARES[size])):
        for metric, whole, seen in zip(METRICS, expected, found, strict=True):
            for pooled in seen["pooled"]:
                # torchmetrics makes scalars of tables of one cell.
                flat = ([x if x is None else x.flatten() for x in one] for one in (pooled, whole))
                assert_same(*flat, **rounding_of(metric))
            own = measured(metric, clean, augmented, SHARES[size][rank]).estimates()
            for alone in (*seen["own"], seen["left"]):
                assert_same(alone, own)


def without_widths(clean, augmented, shares):
    """The pooled estimate of sums by channel, where a rank has no images and does not know how many channels."""
    ready = measured(ChannelMedian(), clean, augmented, shares[dist.get_rank()])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The ``compute`` method of metric")
        pooled = ready.compute()
    return pooled, ready.estimates()


def test_a_rank_without_images_agrees_on_the_number_of_channels(gloo):
    clean, augmented = pair(31, 20)
    whole = estimate(ChannelMedian(), clean, augmented, BLOCKS)
    found = gloo(3)(without_widths, clean, augmented, SHARES[3])
    for pooled, _ in found:
        assert_same(pooled, whole, rtol=1e-12)
    # Afterwards each rank has its own again.
    assert found[1][1].num_images.item() == 0
    assert found[1][1].value.isnan()


def forward_on_rank(clean, augmented, shares, each_step):
    """The value of the first batch, and the pooled one."""
    ready = prepared(LayerSensitivity(dist_sync_on_step=each_step), len(clean))
    (ids,) = shares[dist.get_rank()]
    rows = list(ids)
    batch = ready(clean[rows], augmented[rows], about(clean[rows], augmented[rows], ids))
    return batch, ready.compute()


@pytest.mark.parametrize("each_step", [False, True])
def test_forward_is_of_this_ranks_batch_unless_asked_to_pool_each_step(gloo, each_step):
    clean, augmented = pair(31)
    shares = [BLOCKS[:1], BLOCKS[1:2]]
    whole = estimate(LayerSensitivity(), clean, augmented, BLOCKS[:2])
    found = gloo(2)(forward_on_rank, clean, augmented, shares, each_step)
    for (ids,), (batch, pooled) in zip(shares, found, strict=True):
        assert_same(batch, whole if each_step else estimate(LayerSensitivity(), clean, augmented, [ids]))
        assert_same(pooled, whole)


def in_a_group(clean, augmented, shares):
    """The estimates of the first two of three ranks, by a process group of theirs."""
    group = dist.new_group([0, 1])
    if dist.get_rank() == 2:
        return None
    ready = prepared(LayerSensitivity(), len(clean))
    ready.process_group = group
    for ids in shares[dist.get_rank()]:
        update(ready, clean, augmented, ids)
    return ready.compute()


def test_a_process_group_pools_its_own_ranks(gloo):
    clean, augmented = pair(31)
    whole = estimate(LayerSensitivity(), clean, augmented, BLOCKS)
    first, second, outside = gloo(3)(in_a_group, clean, augmented, [BLOCKS[:1], BLOCKS[1:]])
    assert_same(first, whole)
    assert_same(second, whole)
    assert outside is None


def overlapping(clean, augmented):
    """The error of ranks that have measured the same image."""
    ready = measured(LayerSensitivity(), clean, augmented, [[range(4), range(3, 8)][dist.get_rank()]])
    with pytest.raises(RuntimeError) as caught:
        ready.compute()
    return str(caught.value)


def test_an_image_that_two_processes_have_measured_is_named_on_both(gloo):
    for message in gloo(2)(overlapping, *pair(8)):
        assert message.startswith("metric 'sensitivity' holds images 3 more than once")
