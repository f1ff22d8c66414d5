import warnings

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
    numbers,
    pair,
    prepared,
    rounding_of,
    update,
)

from kornia_lightning_probe.images.blocks import deal_blocks
from kornia_lightning_probe.metrics import (
    LayerSensitivity,
    RelativeChange,
)

every_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)


class Returning(MeanShift):
    """A metric whose measure returns what it is given."""

    def __init__(self, returned):
        super().__init__()
        self.returned = returned

    def measure(self, clean, augmented, about):
        return self.returned


def test_what_is_the_same_under_all_views_may_come_once():
    # Two views of 3 images; layer "a" has a number for each image, layer "b" for each image under each view.
    metric = Returning({}).prepare(views=["v", "w"], layers=["a", "b"], num_images=3)
    once, each = torch.tensor([1.0, 2.0, 3.0]), torch.arange(6.0)
    valid = torch.tensor([[True, True, False], [True, True, True]])
    metric.write({"a": {"shift": once}, "b": {"shift": each}}, range(2), (0, 3), valid)
    assert metric.table[0].nan_to_num(-1.0).tolist() == [[[1, 2, -1], [0, 1, 2]], [[1, 2, -1], [3, 4, 5]]]
    metric.reset()
    metric.write({"b": {"shift": once}}, range(2), (0, 3), None)
    assert metric.table[0].tolist() == [[[0, 0, 0], [1, 2, 3]]] * 2
    with pytest.raises(ValueError, match=r"expected a tensor of shape \(3,\)"):
        metric.write({"a": {"shift": torch.zeros(2)}}, range(2), (0, 3), None)


def test_a_metric_without_name_or_statistics_is_an_error():
    class Nameless(MeanShift):
        name = ""

    class Empty(MeanShift):
        statistics = ()

    for metric in (Nameless(), Empty()):
        with pytest.raises(ValueError, match=f"{type(metric).__name__} must set name, a text, and statistics, a tuple"):
            prepared(metric, 4)


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


def held_bytes(tensors):
    return {name: tensor.untyped_storage().nbytes() for name, tensor in tensors.items()}


def test_a_cell_takes_eight_bytes_for_each_statistic_and_one_for_its_count():
    ready = LayerSensitivity().prepare(["a", "b"], ["conv", "fc", "head"], 500)
    cells = 2 * 3 * 500
    assert held_bytes(ready.metric_state) == {"table": 2 * 8 * cells, "filled": cells}
    # What torchmetrics keeps for reset() is one number each.
    assert held_bytes(ready._defaults) == {"table": 8, "filled": 1}
    ready.reset()
    assert held_bytes(ready.metric_state) == {"table": 2 * 8 * cells, "filled": cells}


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
    alone = estimate(LayerSensitivity(), clean[2:6], augmented[2:6])
    assert_same(numbers(half.compute()), numbers(alone), rtol=1e-12, atol=0)


def test_views_that_were_not_measured_are_not_a_number():
    ready = prepared(LayerSensitivity(), 4, views=("a", "b"))
    update(ready, *pair(4), view_index=1)
    value, error, count = numbers(ready.compute())
    assert value.isnan().tolist() == error.isnan().tolist() == [[True], [False]]
    assert count.tolist() == [[0], [4]]


@every_metric
@pytest.mark.parametrize("count", [4, 31, 33, 80])
def test_the_order_of_blocks_does_not_matter(metric, count):
    clean, augmented = pair(count)
    blocks = deal_blocks(count)
    found, expected = (estimate(metric, clean, augmented, order) for order in (reversed(blocks), blocks))
    assert_same(found, expected, **rounding_of(metric))


def test_images_that_are_measured_twice_are_named():
    clean, augmented = pair(8)
    metric = measured(LayerSensitivity(), clean, augmented)
    update(metric, clean, augmented, [3, 4])
    with pytest.raises(RuntimeError, match=r"metric 'sensitivity' holds images 3, 4 more than once: .*reset\(\)"):
        metric.compute()


def test_counts_of_a_byte_end_at_its_largest_and_never_begin_anew():
    clean, augmented = pair(2)
    metric = measured(LayerSensitivity(), clean, augmented)
    for _ in range(256):
        update(metric, clean, augmented)
    assert metric.filled.unique().tolist() == [255]
    with pytest.raises(RuntimeError, match="images 0, 1 more than once"):
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
