import pytest
import torch
from support.made_results import table_of

from kornia_lightning_probe.quantity import Quantity
from kornia_lightning_probe.result import MetricTable, ViewInfo
from kornia_lightning_probe.results.tables import pick_layers


def test_layers_are_picked_evenly_with_both_ends():
    # Steps of 41/9 from 0 to 41, rounded.
    picked = pick_layers([str(i) for i in range(42)], 10)
    assert picked == ["0", "5", "9", "14", "18", "23", "27", "32", "36", "41"]
    assert pick_layers(["a", "b"], 10) == ["a", "b"]
    assert pick_layers(["a", "b"], 1) == ["a"]


def test_a_table_owns_its_numbers():
    value = torch.ones(1, 1)
    table = MetricTable(("fc",), value, value, value)
    value.zero_()
    assert table.value.item() == 1.0
    assert table.num_images.dtype == torch.int64


def test_tables_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"std_error has shape \(1, 2\); expected \(views, layers\) = \(1, 1\)"):
        MetricTable(("fc",), torch.ones(1, 1), torch.ones(1, 2), torch.ones(1, 1))


def test_a_layer_named_twice_is_refused():
    with pytest.raises(ValueError, match="a layer is named twice"):
        table_of(("fc", "fc"), [[1.0, 2.0]])


def test_views_are_values():
    assert ViewInfo("blur", 1, 2.0) == ViewInfo("blur", 1, 2.0)


def test_the_label_of_a_view_is_its_augmentation_and_severity():
    assert [ViewInfo("rotation", 2, 15.0).label, ViewInfo("blur", 1, 0.005).label] == ["rotation 15", "blur 0.005"]


def test_a_scale_is_what_the_metric_says_or_else_that_of_the_values_and_zero():
    nan = float("nan")
    assert table_of(("a",), [[5.0]], quantity=Quantity(scale=(1.0, 2.0))).scale == (1.0, 2.0)
    assert table_of(("a",), [[5.0], [nan], [2.0]]).scale == (0.0, 5.0)
    assert table_of(("a",), [[-5.0], [-2.0]]).scale == (-5.0, 0.0)
    assert table_of(("a",), [[nan]]).scale == (0.0, 1.0)


@pytest.mark.parametrize(("shape", "shown"), [((1, 2, 3), r"\(1, 2, 3\)"), ((1, 1), r"\(1, 1\)")])
def test_an_influence_of_another_shape_is_refused(shape, shown):
    one = torch.ones(1, 1)
    message = rf"influence has shape {shown}; expected \(views, layers, images\) = \(1, 1, 'N'\)"
    with pytest.raises(ValueError, match=message):
        MetricTable(("fc",), one, one, one, influence=torch.zeros(shape))
