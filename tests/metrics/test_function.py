import functools

import pytest
from support.activations import (
    MeanShift,
    assert_same,
    estimate,
    mean_shift,
    normal,
    numbers,
    pair,
)
from torch import nn

from kornia_lightning_probe.metrics import (
    FunctionMetric,
)


def test_a_plain_function_is_a_metric_of_its_own_name():
    clean, augmented = pair(10, 3, 2)
    metric = FunctionMetric(mean_shift)
    assert metric.name == "mean_shift"
    assert_same(numbers(estimate(metric, clean, augmented)), numbers(estimate(MeanShift(), clean, augmented)))


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
