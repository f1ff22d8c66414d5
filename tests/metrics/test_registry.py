import functools

import pytest
import torch
from support.activations import LAYER, METRICS, about, mean_shift, pair

from kornia_lightning_probe import metrics as package
from kornia_lightning_probe.metrics import (
    FunctionMetric,
    LayerSensitivity,
    Ledger,
    ProbeMetric,
    RelativeChange,
    Spread,
    resolve_metrics,
)


def names(metrics):
    return [metric.name for metric in resolve_metrics(metrics)]


def test_the_default_set_begins_with_sensitivity_and_leaves_out_relative_change():
    assert names(None)[0] == "sensitivity"
    assert "spread" in names(None)
    assert "relative_change" not in names(None)


def test_every_metric_of_the_package_can_be_named():
    kinds = [getattr(package, name) for name in package.__all__ if isinstance(getattr(package, name), type)]
    # A ledger is the engine's own, though sensitivity is one too.
    measures = {kind.name for kind in kinds if issubclass(kind, ProbeMetric) and hasattr(kind, "name")} - {Ledger.name}
    for name in measures:
        assert names(name) == [name]
    assert set(names(None)) <= measures
    assert measures <= {metric.name for metric in METRICS}


@pytest.mark.parametrize(
    "metric", ["relative_change", RelativeChange(), RelativeChange, ["relative_change"], (RelativeChange(),)], ids=str
)
def test_one_metric_may_stand_alone_or_in_a_sequence(metric):
    assert names(metric) == ["relative_change"]


def test_an_object_is_taken_as_it_is_and_a_function_is_wrapped():
    mine = Spread()
    taken, wrapped = resolve_metrics([mine, mean_shift])
    assert taken is mine
    assert isinstance(wrapped, FunctionMetric)
    assert wrapped.name == "mean_shift"
    clean, augmented = pair(4)
    values = wrapped.measure(clean, augmented, about(clean, augmented))
    assert torch.equal(values["value"], mean_shift(clean, augmented))


def test_the_order_is_kept():
    assert names(["spread", mean_shift, LayerSensitivity]) == ["spread", "mean_shift", "sensitivity"]


@pytest.mark.parametrize(
    ("misspelt", "near"), [("sensitivty", "sensitivity"), ("relative-change", "relative_change"), ("spred", "spread")]
)
def test_a_misspelt_name_is_shown_near_names(misspelt, near):
    with pytest.raises(ValueError, match=f"no metric is named '{misspelt}'; near names: .*{near}"):
        resolve_metrics(misspelt)


def test_a_name_like_no_other_is_shown_all_names():
    with pytest.raises(ValueError, match=r"no metric is named 'xyz'; near names: sensitivity, .*relative_change"):
        resolve_metrics(["xyz"])


@pytest.mark.parametrize("chosen", [[], ["spread", Spread()], ["sensitivity", "spread", "sensitivity"]], ids=str)
def test_no_metric_and_two_of_one_name_are_errors(chosen):
    with pytest.raises(ValueError, match=r"metrics must be one or more, each name once, got \["):
        resolve_metrics(chosen)


@pytest.mark.parametrize("chosen", [5, [5], [None], [["spread"]]], ids=str)
def test_anything_else_is_an_error_that_says_what_a_metric_is(chosen):
    with pytest.raises(TypeError, match=r"a metric is a name, a ProbeMetric or a function of \(clean, augmented\)"):
        resolve_metrics(chosen)


@pytest.mark.parametrize("function", [functools.partial(mean_shift), lambda a, b: b - a], ids=type)
def test_a_function_without_a_name_is_asked_for_one(function):
    with pytest.raises(TypeError, match=r"a metric needs a name: FunctionMetric\("):
        resolve_metrics([function])


def test_a_record_says_its_layer():
    clean, augmented = pair(4)
    assert about(clean, augmented).layer == LAYER
