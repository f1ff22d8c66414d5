import json
import math
import pickle

import pytest
from support.activations import METRICS
from support.probing import images_of, plain_bank
from torch import nn

from kornia_lightning_probe import probe_model
from kornia_lightning_probe.metrics import ProbeMetric, Quantity
from kornia_lightning_probe.quantity import sensitivity_quantity

FULL = Quantity(
    meaning="how much",
    unit="nats",
    range=(0.0, math.inf),
    at_identity=0.5,
    scale=(0.0, 2.0),
    marks=((0.0, "none"), (1.0, "all")),
    line=1.0,
    of_output=True,
    logged=True,
)


@pytest.mark.parametrize("quantity", [Quantity(), FULL, sensitivity_quantity("moves")], ids=["empty", "full", "S"])
def test_its_state_is_plain_data_that_brings_it_back(quantity):
    state = quantity.state()
    assert Quantity.from_state(state) == quantity
    assert Quantity.from_state(pickle.loads(pickle.dumps(state))) == quantity  # noqa: S301 - our own
    assert all(isinstance(value, str | float | bool | list | None) for value in state.values())


def test_infinities_are_read_as_json_files_write_them():
    state = FULL.state() | {"range": ["-inf", "inf"]}
    assert Quantity.from_state(json.loads(json.dumps(state))).range == (-math.inf, math.inf)


def test_what_an_older_file_does_not_say_is_the_default():
    assert Quantity.from_state({"meaning": "how much"}) == Quantity(meaning="how much")


@pytest.mark.parametrize("name", ["range", "scale"])
@pytest.mark.parametrize("ends", [(1.0, 1.0), (2.0, 1.0), (math.nan, 1.0)])
def test_ends_that_do_not_ascend_are_refused(name, ends):
    with pytest.raises(ValueError, match=rf"{name} must be \(low, high\) with low < high, got "):
        Quantity(**{name: ends})


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_measure_of_the_package_says_something_that_makes_sense(metric):
    quantity = metric.quantity
    low, high = quantity.range
    assert low < high
    if quantity.at_identity is not None:
        assert low <= quantity.at_identity <= high
    marks = [value for value, _ in quantity.marks]
    assert marks == sorted(marks)
    if quantity.scale is not None:
        assert all(quantity.scale[0] <= value <= quantity.scale[1] for value in marks)
    assert quantity.of_output == (metric.scope == "output")


def test_what_a_metric_of_ones_own_says_of_itself_arrives_in_the_result_and_its_file():
    class Brightness(ProbeMetric):
        name = "brightness"
        statistics = ("mean",)
        quantity = Quantity(meaning="mean of what is augmented", unit="grey", range=(0.0, 1.0), at_identity=None)

        def measure(self, clean, augmented, about):
            return {"mean": augmented.flatten(1).mean(1)}

    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten())
    result = probe_model(net, images_of(8), plain_bank(), layers=["0"], metrics=[Brightness(), "sensitivity"])
    assert result.table("brightness").quantity == Brightness.quantity
    assert result.table("sensitivity").quantity.logged
    again = type(result).from_json(result.to_json())
    assert again.table("brightness").quantity == Brightness.quantity
    # A mean of uniform pixels, halved or mirrored.
    assert result.value("brightness", "input") == pytest.approx((0.25 + 0.5) / 2, abs=0.02)


def test_a_plain_function_says_nothing_of_itself():
    def shift(clean, augmented):
        return (augmented - clean).flatten(1).mean(1)

    result = probe_model(nn.Sequential(nn.Flatten()), images_of(8), plain_bank(), layers=["0"], metrics=shift)
    assert result.table("shift").quantity == Quantity()
