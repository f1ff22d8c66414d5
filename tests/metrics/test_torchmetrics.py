import copy
import pickle

import pytest
import torch
from support.activations import (
    METRICS,
    MeanShift,
    about,
    assert_same,
    estimate,
    measured,
    normal,
    pair,
    prepared,
    rounding_of,
    update,
)
from torch import nn
from torchmetrics import Metric, MetricCollection

from kornia_lightning_probe.images.blocks import deal_blocks
from kornia_lightning_probe.metrics import (
    LayerSensitivity,
    RelativeChange,
    Spread,
)

# Four blocks of 31 images.
BLOCKS = [range(8), range(8, 16), range(16, 24), range(24, 31)]
every_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)


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
    assert_same(copied.compute(), whole, **rounding_of(metric))
    assert_same(first.compute(), before)


@every_metric
@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_a_copy_of_an_unprepared_metric_can_be_prepared(metric, make):
    clean, augmented = pair(31)
    assert_same(estimate(make(metric), clean, augmented), estimate(metric, clean, augmented))


# One that reads twins has no value of a single view.
@pytest.mark.parametrize("metric", [each for each in METRICS if not each.reads_twins], ids=lambda metric: metric.name)
def test_forward_gives_the_batchs_value_and_adds_to_the_whole(metric):
    clean, augmented = pair(31)
    stepped = prepared(metric, 31)
    for ids in BLOCKS:
        rows = list(ids)
        batch = stepped(clean[rows], augmented[rows], about(clean[rows], augmented[rows], ids))
        assert_same(batch, estimate(metric, clean, augmented, [ids]))
    assert_same(stepped.compute(), estimate(metric, clean, augmented, BLOCKS), **rounding_of(metric))


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
