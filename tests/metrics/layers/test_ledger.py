import math

import pytest
import torch
from support.activations import estimate, measured, normal, pair, prepared, update

from kornia_lightning_probe.metrics import LayerSensitivity, Ledger

# Layer sensitivity keeps the same two numbers, and so is a ledger.
every_ledger = pytest.mark.parametrize("metric", [Ledger(), LayerSensitivity()], ids=lambda metric: metric.name)


@every_ledger
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_it_knows_where_an_activation_was_not_finite(metric, bad, side):
    ledger = prepared(metric, 6, views=("a", "b"), layers=("conv", "fc"))
    for view in range(2):
        for layer in ("conv", "fc"):
            activations = pair(6)
            if (view, layer) == (1, "fc"):
                activations[side][2, 0] = bad
            update(ledger, *activations, layer=layer, view_index=view)
    assert ledger.non_finite().nonzero().tolist() == [[1, 1, 2]]
    assert not ledger.dead().any()


@every_ledger
def test_what_was_not_measured_is_neither_lost_nor_dead(metric):
    ledger = prepared(metric, 6)
    assert not ledger.non_finite().any()
    assert not ledger.dead().any()
    update(ledger, *pair(2), range(2))
    assert not ledger.non_finite().any()


@every_ledger
@pytest.mark.parametrize("moved", [0.0, 1.0])
def test_a_layer_that_tells_no_images_apart_is_dead(metric, moved):
    ledger = prepared(metric, 6, layers=("conv", "fc"))
    same = torch.full((6, 3), 0.1)
    update(ledger, same, same + moved, layer="conv")
    update(ledger, *pair(6), layer="fc")
    assert ledger.dead().tolist() == [True, False]


@every_ledger
def test_a_layer_is_dead_where_its_finite_images_are_the_same(metric):
    clean = torch.full((6, 3), 0.1)
    clean[4] = math.nan
    assert measured(metric, clean, clean).dead().tolist() == [True]


@every_ledger
def test_one_block_that_tells_images_apart_keeps_a_layer_alive(metric):
    clean = torch.cat([torch.zeros(4, 3), normal(4, 3).float()])
    assert measured(metric, clean, clean, [range(4), range(4, 8)]).dead().tolist() == [False]


@every_ledger
def test_a_single_image_does_not_make_a_layer_dead(metric):
    assert measured(metric, *pair(1)).dead().tolist() == [False]


@every_ledger
def test_a_layer_without_a_finite_image_is_not_dead_but_lost(metric):
    clean, augmented = pair(4)
    ledger = measured(metric, clean * math.nan, augmented)
    assert ledger.dead().tolist() == [False]
    assert ledger.non_finite().all()


def test_its_value_is_the_share_of_measured_images_that_were_finite():
    # Images 0 to 3 of 8 were measured, one of them was not finite: 3/4.
    clean, augmented = pair(8)
    augmented[1] = math.nan
    assert estimate(Ledger(), clean, augmented, [range(4)]).value == pytest.approx(0.75)
