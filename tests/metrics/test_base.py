import copy
import functools
import inspect
import math
import pickle
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
    mean_shift,
    measured,
    normal,
    pair,
    prepared,
    update,
)
from torch import nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.utilities.exceptions import TorchMetricsUserError

from kornia_lightning_probe.images.blocks import deal_blocks
from kornia_lightning_probe.metrics import (
    FunctionMetric,
    LayerSensitivity,
    RelativeChange,
    Site,
    Spread,
    sum_over_ranks,
)

# Four blocks of 31 images.
BLOCKS = [range(8), range(8, 16), range(16, 24), range(24, 31)]
every_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)


class Returning(MeanShift):
    """A metric whose measure returns what it is given."""

    def __init__(self, returned):
        super().__init__()
        self.returned = returned

    def measure(self, clean, augmented, about):
        return self.returned


# A metric of one's own.


def test_a_metric_of_ones_own_takes_fewer_than_15_lines():
    # Every feature moves by 2: so does their mean, for every image, without an error.
    assert len(inspect.getsource(MeanShift).splitlines()) < 15
    clean = normal(10, 3, 2)
    found = estimate(MeanShift(), clean, clean + 2)
    assert_same(found[:2], (torch.tensor(2.0).double(), torch.tensor(0.0).double()), rtol=0, atol=1e-12)
    assert found.num_images == 10


def test_a_plain_function_is_a_metric_of_its_own_name():
    clean, augmented = pair(10, 3, 2)
    metric = FunctionMetric(mean_shift)
    assert metric.name == "mean_shift"
    assert_same(estimate(metric, clean, augmented), estimate(MeanShift(), clean, augmented))


@pytest.mark.parametrize(
    "function", [lambda a, b: (b - a).mean(1), functools.partial(mean_shift), nn.CosineSimilarity()], ids=type
)
def test_a_function_without_a_name_is_asked_for_one(function):
    with pytest.raises(TypeError, match=r"a metric needs a name: FunctionMetric\(.*, name=\.\.\.\)"):
        FunctionMetric(function)
    assert FunctionMetric(function, name="mine").name == "mine"


def test_a_module_is_a_metric_with_a_name():
    # The cosine of a and -2 a is -1.
    clean = normal(5, 4)
    assert estimate(FunctionMetric(nn.CosineSimilarity(), name="cosine"), clean, -2 * clean).value == pytest.approx(-1)


def test_an_image_that_a_metric_has_no_number_for_is_left_out():
    clean, augmented = pair(6)
    shift = mean_shift(clean, augmented)
    shift[2] = math.nan
    found = estimate(Returning({"shift": shift}), clean, augmented)
    assert_same(found[:1], (shift.nanmean(),), rtol=1e-12, atol=0)
    assert found.num_images == 5


def test_a_view_that_does_not_concern_a_metric_leaves_its_cells_unfilled():
    metric = measured(Returning({}), *pair(6))
    assert not metric.filled.any()
    assert metric.compute().value.isnan()
    assert metric.compute().num_images == 0


@pytest.mark.parametrize(
    ("returned", "came"),
    [
        ({"shit": torch.zeros(4)}, r"{'shit': \(4,\)}"),
        ({"shift": torch.zeros(4), "more": torch.zeros(4)}, r"{'shift': \(4,\), 'more': \(4,\)}"),
        ({"shift": torch.zeros(())}, r"{'shift': \(\)}"),
        ({"shift": torch.zeros(4, 1)}, r"{'shift': \(4, 1\)}"),
        ({"shift": torch.zeros(3)}, r"{'shift': \(3,\)}"),
        ({"shift": 1.0}, r"{'shift': \(\)}"),
    ],
)
def test_a_measure_that_returns_something_else_is_told_what_is_expected(returned, came):
    expected = r"expected a tensor of shape \(4,\), one scalar per image, for each of \['shift'\]"
    with pytest.raises(ValueError, match=rf"Returning\.measure returned {came}, {expected}"):
        measured(Returning(returned), *pair(4))


def test_what_is_the_same_under_all_views_may_come_once():
    # Two views of 3 images; layer "a" has a number for each image, layer "b" for each image under each view.
    metric = Returning({}).prepare(views=["v", "w"], layers=["a", "b"], num_images=3)
    once, each = torch.tensor([1.0, 2.0, 3.0]), torch.arange(6.0)
    valid = torch.tensor([[True, True, False], [True, True, True]])
    metric.write({"a": {"shift": once}, "b": {"shift": each}}, (0, 2), (0, 3), valid)
    assert metric.table[0].nan_to_num(-1.0).tolist() == [[[1, 2, -1], [0, 1, 2]], [[1, 2, -1], [3, 4, 5]]]
    metric.reset()
    metric.write({"b": {"shift": once}}, (0, 2), (0, 3), None)
    assert metric.table[0].tolist() == [[[0, 0, 0], [1, 2, 3]]] * 2
    with pytest.raises(ValueError, match=r"expected a tensor of shape \(6,\)"):
        metric.write({"a": {"shift": torch.zeros(2)}}, (0, 2), (0, 3), None)


@pytest.mark.parametrize("returned", [None, torch.zeros(4), [torch.zeros(4)]], ids=type)
def test_a_measure_that_returns_no_mapping_is_told_what_is_expected(returned):
    with pytest.raises((TypeError, ValueError), match=r"Returning\.measure returned .*, expected"):
        measured(Returning(returned), *pair(4))


def test_a_metric_without_name_or_statistics_is_an_error():
    class Nameless(MeanShift):
        name = ""

    class Empty(MeanShift):
        statistics = ()

    for metric in (Nameless(), Empty()):
        with pytest.raises(ValueError, match=f"{type(metric).__name__} must set name, a text, and statistics, a tuple"):
            prepared(metric, 4)


SITES = {
    "input": Site("input", 0, (3, 8, 8), "input"),
    "input pooled": Site("input", 0, (3,), "input", representation="pooled"),
    "layer": Site("conv", 1, (4, 8, 8)),
    "layer pooled": Site("conv", 1, (4,), representation="pooled"),
    "embedding": Site("fc", 2, (5,), is_embedding=True),
    "output": Site("output", 3, (2,), "output"),
}


@pytest.mark.parametrize(
    ("scope", "representation", "where"),
    [
        ("layers", "activation", {"input", "layer", "embedding"}),
        ("layers", "pooled", {"input pooled", "layer pooled"}),
        ("embedding", "activation", {"embedding"}),
        ("embedding", "pooled", set()),
        ("output", "activation", {"output"}),
    ],
)
def test_scope_and_representation_say_where_a_metric_applies(scope, representation, where):
    metric = MeanShift()
    metric.scope, metric.representation = scope, representation
    assert {name for name, site in SITES.items() if metric.applies_to(site)} == where


def test_a_metric_says_no_more_than_its_numbers_by_default():
    metric = measured(MeanShift(), *pair(4))
    assert metric.remarks(metric.estimates(), [LAYER]) == []


# Preparing.


@pytest.mark.parametrize("action", ["update", "forward", "compute", "merge_state", "merge into"])
def test_an_unprepared_metric_says_what_to_do(action):
    clean, augmented = pair(4)
    metric = LayerSensitivity()
    record = about(clean, augmented)
    actions = {
        "update": lambda: metric.update(clean, augmented, record),
        "forward": lambda: metric(clean, augmented, record),
        "compute": metric.compute,
        "merge_state": lambda: metric.merge_state(prepared(LayerSensitivity(), 4)),
        "merge into": lambda: prepared(LayerSensitivity(), 4).merge_state(metric),
    }
    with warnings.catch_warnings():
        # torchmetrics' own remark on a compute() before any update().
        warnings.filterwarnings("ignore", "The ``compute`` method of metric")
        with pytest.raises(RuntimeError, match=r"LayerSensitivity, which has no tables yet: .*metric\.prepare\(views"):
            actions[action]()


def test_preparing_makes_a_copy_with_empty_tables():
    metric = LayerSensitivity()
    ready = metric.prepare(["a", "b"], ["conv", "fc", "head"], 5)
    assert not metric.is_prepared
    assert ready.is_prepared
    assert ready.table.shape == (2, 2, 3, 5)
    assert ready.filled.shape == (2, 3, 5)
    assert ready.table.dtype == torch.float64
    assert not ready.table.any()
    assert ready.layers == ("conv", "fc", "head")


def test_a_metric_that_has_measured_can_be_prepared_anew():
    clean, augmented = pair(8)
    used = measured(LayerSensitivity(), clean, augmented)
    used.compute()
    again = prepared(used, 8)
    assert not again.update_called
    update(again, clean, clean)
    assert again.compute().value == 0
    assert used.compute().value > 0


@pytest.mark.parametrize(
    ("views", "layers", "count"), [([], ["fc"], 4), (["view"], [], 4), (["view"], ["fc"], 0), (["view"], ["fc"], -1)]
)
def test_tables_need_views_layers_and_images(views, layers, count):
    expected = f"needs views, layers and images, got {len(views)}, {len(layers)} and {count} of them"
    with pytest.raises(ValueError, match=expected):
        LayerSensitivity().prepare(views, layers, count)


def test_options_of_torchmetrics_reach_it_and_survive_preparing():
    metric = LayerSensitivity(compute_with_cache=False, sync_on_compute=False)
    assert not prepared(metric, 4).compute_with_cache
    assert not prepared(metric, 4).sync_on_compute
    with pytest.raises(ValueError, match="Unexpected keyword arguments: `seed`"):
        LayerSensitivity(seed=3)


# Tables.


def test_every_view_and_layer_has_a_cell_of_its_own():
    # Layer l under view v is scaled by v + 2l + 1: the relative change is |v + 2l|.
    ready = prepared(RelativeChange(), 5, views=("a", "b"), layers=("conv", "fc"))
    clean = normal(5, 3)
    for view in range(2):
        for number, layer in enumerate(("conv", "fc")):
            update(ready, clean, (view + 2 * number + 1) * clean, layer=layer, view_index=view)
    torch.testing.assert_close(ready.compute().value, torch.tensor([[0.0, 2.0], [1.0, 3.0]], dtype=torch.float64))
    assert ready.compute().num_images.tolist() == [[5, 5], [5, 5]]


def test_images_that_were_not_measured_are_counted_as_missing_and_not_as_zero():
    clean, augmented = pair(8)
    half = prepared(LayerSensitivity(), 8)
    update(half, clean, augmented, range(2, 6))
    assert half.compute().num_images == 4
    assert_same(half.compute(), estimate(LayerSensitivity(), clean[2:6], augmented[2:6]), rtol=1e-12, atol=0)


def test_views_that_were_not_measured_are_not_a_number():
    ready = prepared(LayerSensitivity(), 4, views=("a", "b"))
    update(ready, *pair(4), view_index=1)
    value, error, count = ready.compute()
    assert value.isnan().tolist() == error.isnan().tolist() == [[True], [False]]
    assert count.tolist() == [[0], [4]]


@every_metric
@pytest.mark.parametrize("count", [4, 31, 33, 80])
def test_the_order_of_blocks_does_not_matter(metric, count):
    clean, augmented = pair(count)
    blocks = deal_blocks(count)
    assert_same(estimate(metric, clean, augmented, blocks), estimate(metric, clean, augmented, reversed(blocks)))


def test_images_that_are_measured_twice_are_named():
    clean, augmented = pair(8)
    metric = measured(LayerSensitivity(), clean, augmented)
    update(metric, clean, augmented, [3, 4])
    with pytest.raises(RuntimeError, match=r"metric 'sensitivity' holds images 3, 4 more than once: .*reset\(\)"):
        metric.compute()


def test_of_many_images_that_are_measured_twice_some_are_named():
    clean, augmented = pair(20)
    metric = measured(LayerSensitivity(), clean, augmented)
    update(metric, clean, augmented)
    with pytest.raises(RuntimeError, match="images 0, 1, 2, 3, 4, 5, 6, 7 and 12 more more than once"):
        metric.compute()


@pytest.mark.parametrize("ids", [[4], [3, 4], [-1], [-2, -1], [7, 8, 9]])
def test_images_outside_of_the_tables_are_an_error_and_never_lost(ids):
    clean, augmented = pair(len(ids))
    metric = prepared(MeanShift(), 4)
    with pytest.raises(ValueError, match="4 images"):
        metric.update(clean, augmented, about(clean, augmented, ids))


@pytest.mark.parametrize("view_index", [-1, 2])
def test_a_view_outside_of_the_tables_is_an_error(view_index):
    with pytest.raises(ValueError, match="whose tables hold 2 views"):
        update(prepared(MeanShift(), 4, views=("a", "b")), *pair(4), view_index=view_index)


def test_a_layer_that_is_not_in_the_tables_is_an_error():
    with pytest.raises(ValueError, match=r"prepared for the layers \['conv', 'fc'\], got 'layer'"):
        update(prepared(MeanShift(), 4, layers=("conv", "fc")), *pair(4))


# torchmetrics' conventions.


@every_metric
def test_a_metric_is_a_torchmetrics_metric_without_parameters(metric):
    assert isinstance(metric, Metric)
    assert not list(metric.parameters())
    assert metric.full_state_update is False
    assert not metric.is_differentiable


COPIES = {
    "pickle": lambda metric: pickle.loads(pickle.dumps(metric)),  # noqa: S301 - our own
    "clone": lambda metric: metric.clone(),
    "deepcopy": copy.deepcopy,
}


@every_metric
@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_a_copy_goes_on_where_the_metric_was_and_alone(metric, make):
    clean, augmented = pair(31)
    whole = estimate(metric, clean, augmented, BLOCKS)
    first = measured(metric, clean, augmented, BLOCKS[:2])
    before = first.compute()
    copied = make(first)
    assert_same(copied.compute(), before)
    for ids in BLOCKS[2:]:
        update(copied, clean, augmented, ids)
    assert_same(copied.compute(), whole)
    assert_same(first.compute(), before)


@every_metric
@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_a_copy_of_an_unprepared_metric_can_be_prepared(metric, make):
    clean, augmented = pair(31)
    assert_same(estimate(make(metric), clean, augmented), estimate(metric, clean, augmented))


@every_metric
def test_forward_gives_the_batchs_value_and_adds_to_the_whole(metric):
    clean, augmented = pair(31)
    stepped = prepared(metric, 31)
    for ids in BLOCKS:
        rows = list(ids)
        batch = stepped(clean[rows], augmented[rows], about(clean[rows], augmented[rows], ids))
        assert_same(batch, estimate(metric, clean, augmented, [ids]))
    assert_same(stepped.compute(), estimate(metric, clean, augmented, BLOCKS))


@every_metric
def test_reset_empties_the_tables(metric):
    clean, augmented = pair(31)
    ready = measured(metric, clean, augmented)
    before = ready.compute()
    ready.reset()
    assert not ready.table.any()
    assert not ready.filled.any()
    assert ready.is_prepared
    for ids in deal_blocks(31):
        update(ready, clean, augmented, ids)
    assert_same(ready.compute(), before)


def test_an_update_after_a_compute_is_seen_by_the_next():
    clean, augmented = pair(31)
    ready = measured(LayerSensitivity(), clean, augmented, BLOCKS[:1])
    assert ready.compute().num_images == 8
    update(ready, clean, augmented, BLOCKS[1])
    assert ready.compute().num_images == 16


@every_metric
def test_state_dict_is_empty_unless_persistent_and_then_restores(metric):
    clean, augmented = pair(31)
    ready = measured(metric, clean, augmented)
    assert not ready.state_dict()
    ready.persistent(True)
    assert set(ready.state_dict()) == {"table", "filled"}
    other = prepared(metric, 31)
    other.persistent(True)
    other.load_state_dict(ready.state_dict())
    assert_same(other.estimates(), ready.estimates())


@pytest.mark.parametrize("convert", [Metric.half, Metric.float, Metric.double], ids=lambda convert: convert.__name__)
def test_converting_a_module_that_holds_a_metric_leaves_its_tables_in_float64(convert):
    holder = nn.Module()
    holder.metric = prepared(LayerSensitivity(), 4)
    getattr(holder, convert.__name__)()
    assert holder.metric.table.dtype == torch.float64


def test_metrics_work_in_a_collection():
    clean, augmented = pair(31)
    kinds = [RelativeChange(), LayerSensitivity(), Spread()]
    collection = MetricCollection({metric.name: prepared(metric, 31) for metric in kinds})
    for ids in BLOCKS:
        rows = list(ids)
        collection.update(clean[rows], augmented[rows], about(clean[rows], augmented[rows], ids))
    for metric in kinds:
        assert_same(collection[metric.name].compute(), estimate(metric, clean, augmented, BLOCKS))


@pytest.mark.parametrize("moment", ["built", "prepared", "reset"])
def test_a_metric_that_was_made_under_inference_mode_is_usable_outside(moment):
    # Lightning validates under inference mode, and a tensor made there can't be updated afterwards.
    clean, augmented = pair(8)
    with torch.inference_mode(moment == "built"):
        metric = LayerSensitivity()
    with torch.inference_mode(moment == "prepared"):
        ready = prepared(metric, 8)
    if moment == "reset":
        with torch.inference_mode():
            ready.reset()
    update(ready, clean, augmented)
    assert_same(ready.compute(), estimate(LayerSensitivity(), clean, augmented))


def test_activations_made_under_inference_mode_can_be_measured_inside_and_outside():
    expected = estimate(LayerSensitivity(), *pair(8))
    with torch.inference_mode():
        clean, augmented = pair(8)
        assert_same(estimate(LayerSensitivity(), clean, augmented), expected)
    assert_same(estimate(LayerSensitivity(), clean, augmented), expected)


@pytest.mark.parametrize("call", ["update", "forward"])
def test_activations_that_train_are_measured_without_keeping_their_graph(call):
    clean = normal(8, 6).requires_grad_()
    augmented = 2 * clean
    ready = prepared(MeanShift(), 8)
    (ready.update if call == "update" else ready)(clean, augmented, about(clean, augmented))
    assert not ready.table.requires_grad
    assert ready.compute().num_images == 8


# Merging.


@every_metric
def test_merging_unequal_shares_is_measuring_all(metric):
    clean, augmented = pair(31)
    first, second = (measured(metric, clean, augmented, blocks) for blocks in (BLOCKS[:3], BLOCKS[3:]))
    empty = prepared(metric, 31)
    # torchmetrics keeps a computed value; it must not outlive a merge.
    first.compute()
    first.merge_state(empty)
    first.merge_state(second)
    assert_same(first.compute(), estimate(metric, clean, augmented, BLOCKS))


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
                assert_same([x.flatten() for x in pooled], [x.flatten() for x in whole])
            own = measured(metric, clean, augmented, SHARES[size][rank]).estimates()
            for alone in (*seen["own"], seen["left"]):
                assert_same(alone, own)


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
