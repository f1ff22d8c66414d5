from dataclasses import replace

import pytest
import torch
from support.activations import normal
from support.nets import (
    SmallCNN,
)
from support.probing import images_of, plain_bank, run, said
from support.readings import MOVING, STILL, Sees, prepared_for, site_of
from torch import nn

from kornia_lightning_probe.activations.cells import Cells
from kornia_lightning_probe.engine.notes import Findings
from kornia_lightning_probe.metrics import CentredCosine, EquivarianceError, Grid, LayerSensitivity, Ledger, Spread

IMAGES = images_of(40)
CONV = site_of("conv", (3, 8, 8))


def test_a_metric_that_applies_nowhere_is_left_out_with_the_reason():

    class OfOutput(LayerSensitivity):
        name = "of_output"

        def applies_to(self, site):
            return False

    result = run(SmallCNN(), IMAGES, plain_bank(), metrics=["sensitivity", OfOutput()])
    assert result.metrics == ("sensitivity",)
    assert "applies to none of ['input', 'block1'" in result.metadata["left_out"]["of_output"]
    assert "the metric 'of_output' is not in the result: this metric applies to none of" in said(result)


def test_of_many_layers_to_which_a_metric_does_not_apply_the_first_are_named():
    net = nn.Sequential(*[nn.Conv2d(3, 3, 1) for _ in range(10)], nn.Conv2d(3, 1, 12), nn.Flatten())
    result = run(net, IMAGES, plain_bank(), layers="*", metrics=["sensitivity", "pixel_flip_rate"])
    assert "none of ['input', '0', '1', '2', '3', '4', '5', '6' and 5 more];" in said(result)


# Who reads what in which way.


def kinds(prepared, layer="conv"):
    """Of each reader: what is read, what becomes of it, and who wants it."""
    found = {}
    for reader in prepared.readers[layer]:
        names = [wish.metric.name for wish in reader.wishes]
        found[reader.readout.site.representation, reader.kind] = names
    return found


def own(base, own_name):
    """A metric derived from another one, with a measure of its own."""

    class Own(base):
        name = own_name

        def measure(self, clean, augmented, about):
            return super().measure(clean, augmented, about)

    return Own()


def unknown(name):
    return replace(site_of(name, (3, 8, 8)), cells="_fft_c2c: no rule for this operator")


def test_a_metric_of_maps_that_applies_nowhere_names_the_operators_that_lost_them():
    findings = Findings()
    prepared = prepared_for([EquivarianceError()], unknown("conv"), site_of("fc", (5,)), findings=findings)
    assert list(prepared.metrics) == [Ledger.name]
    (told,) = findings.warnings
    assert told == (
        "the metric 'equivariance_error' is not in the result: this metric applies to none of ['conv', 'fc']; it needs "
        "maps, or grids of tokens, of at least 3 x 3 cells whose places in the image are known; that is not known of "
        "'conv' (_fft_c2c: no rule for this operator)"
    )


@pytest.mark.parametrize(("views", "is_noted"), [((STILL, MOVING), True), ((STILL, STILL), False)])
@pytest.mark.parametrize("default_set", [True, False])
def test_layers_of_unknown_grids_are_noted_where_a_view_moves_pixels_and_said_where_maps_were_asked_for(
    views, is_noted, default_set
):
    known = replace(CONV, cells=Cells(Grid.tiling((8, 8), (8, 8))))
    findings = Findings()
    prepared_for(
        [EquivarianceError()], known, unknown("after"), views=views, findings=findings, default_set=default_set
    )
    reason = "it is not known where its cells lie in the image: _fft_c2c: no rule for this operator"
    assert findings.left_out == ({"equivariance at after": reason} if is_noted else {})
    assert len(findings.warnings) == (is_noted and not default_set)


def test_nobody_is_told_of_grids_who_measures_no_maps():
    findings = Findings()
    prepared_for([CentredCosine()], unknown("conv"), views=(MOVING,), findings=findings)
    assert (findings.left_out, findings.warnings) == ({}, [])


def test_each_kind_of_metric_is_read_in_its_own_way():
    prepared = prepared_for(["sensitivity_flat", "sensitivity_pooled", "spread", Sees()], CONV)
    assert kinds(prepared) == {
        ("activation", "distances"): ["sensitivity_flat", Ledger.name],
        ("activation", "view"): ["sees"],
        # Of what is small all is kept, also where distances would do.
        ("pooled", "block"): ["sensitivity_pooled", "spread"],
    }


def test_a_metric_with_a_measure_of_its_own_is_asked_about_one_view_at_a_time_whatever_it_was_derived_from():
    metrics = [own(CentredCosine, "turned"), own(Spread, "apart"), "cosine", "spread"]
    prepared = prepared_for(metrics, CONV)
    assert kinds(prepared) == {
        ("activation", "view"): ["turned"],
        ("activation", "distances"): ["cosine", Ledger.name],
        ("pooled", "view"): ["apart"],
        ("pooled", "block"): ["spread"],
    }


def test_of_distances_those_are_taken_that_any_metric_reads():
    (reader,) = prepared_for(["sensitivity_flat", "cosine"], site_of("fc", (5,))).readers["fc"]
    assert reader.reads == ("squared_distance", "squared_deviation")
    (reader,) = prepared_for(["sensitivity_flat"], site_of("fc", (5,))).readers["fc"]
    assert reader.reads == ("squared_distance",)


def test_the_engine_keeps_a_ledger_unless_sensitivity_is_there_which_is_one():
    assert list(prepared_for(["spread"], CONV).metrics) == ["spread", Ledger.name]
    prepared = prepared_for(["spread", "sensitivity"], CONV)
    assert list(prepared.metrics) == ["spread", "sensitivity"]
    assert prepared.ledger is prepared.metrics["sensitivity"]


# Sensitivity measures what it needs, and no more.


@pytest.mark.parametrize(
    ("shape", "moved"),
    [
        ((3, 8, 8), "pooled"),
        ((8, 8, 3), "pooled"),
        ((3, 4, 5, 6), "pooled"),
        ((9, 4), "pooled"),
        ((10, 4), "mean"),
        ((5,), "activation"),
        ((), "activation"),
    ],
)
def test_sensitivity_reads_cells_as_they_are_under_still_views_and_their_mean_under_moving_ones(shape, moved):
    site = site_of("layer", shape)

    def read(*views):
        readers = prepared_for(["sensitivity"], site, views=views).readers["layer"]
        return {reader.readout.site.representation: reader.views for reader in readers}

    assert read(STILL, STILL) == {"activation": (True, True)}
    assert read(MOVING, MOVING) == {moved: (True, True)}
    both = (
        {"activation": (True, True)} if moved == "activation" else {"activation": (True, False), moved: (False, True)}
    )
    assert read(STILL, MOVING) == both
    # In one row under the layer's own name.
    assert prepared_for(["sensitivity"], site, views=(STILL, MOVING)).metrics["sensitivity"].layers == ("layer",)


@pytest.mark.parametrize("view", [STILL, MOVING])
def test_the_pixels_are_read_as_pixels_under_every_view(view):
    (reader,) = prepared_for(["sensitivity"], site_of("input", (3, 8, 8), 0), views=(view,)).readers["input"]
    assert (reader.readout.site.representation, reader.kind) == ("activation", "distances")


# Rounding of pooled features.


def test_pooled_features_that_would_lose_digits_are_summed_in_float64_and_others_are_not():
    prepared = prepared_for(["sensitivity_pooled"], CONV)
    maps = normal(8, 3, 8, 8, dtype=torch.float32)
    for mean, is_wide in ((0.0, False), (1e4, True)):
        assert prepared.choose_precision({"conv": maps + mean}) == []
        (reader,) = [one for one in prepared.readers["conv"] if one.readout.over]
        assert reader.readout.is_wide is is_wide
        assert not reader.readout.is_nothing


def test_means_that_hold_rounding_only_are_named_and_taken_as_nothing():
    prepared = prepared_for(["sensitivity_pooled"], CONV)
    maps = nn.functional.instance_norm(normal(8, 3, 8, 8, dtype=torch.float32))
    assert prepared.choose_precision({"conv": maps}) == ["conv"]
    (reader,) = [one for one in prepared.readers["conv"] if one.readout.over]
    assert reader.readout.is_nothing


def test_a_dead_layer_is_not_named_for_its_rounding():
    prepared = prepared_for(["sensitivity_pooled"], CONV)
    assert prepared.choose_precision({"conv": torch.full((8, 3, 8, 8), 0.1)}) == []
