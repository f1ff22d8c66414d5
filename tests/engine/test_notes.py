import pytest
import torch

from kornia_lightning_probe.engine.notes import Findings


def test_the_first_reason_stands_and_a_sentence_is_said_once():
    findings = Findings()
    findings.leave_out("conv", "first")
    findings.leave_out("conv", "second")
    findings.warn("look")
    findings.warn("look")
    findings.warn("hear", kind="sound")
    assert findings.left_out == {"conv": "first"}
    assert findings.metadata()["warning_kinds"] == ["", "sound"]
    assert findings.warnings == ["look", "hear"]


def test_a_metric_that_was_asked_for_is_said_with_the_reason_and_that_of_the_output_where_it_matters():
    findings = Findings()
    findings.leave_out("output", "it is an image")
    findings.metric_left_out("accuracy", "it needs labels", of_output=True)
    findings.metric_left_out("own", "it needs tokens", of_output=False)
    assert findings.left_out == {"output": "it is an image", "accuracy": "it needs labels", "own": "it needs tokens"}
    assert findings.warnings == [
        "the metric 'accuracy' is not in the result: it needs labels; the output is left out, as it is an image",
        "the metric 'own' is not in the result: it needs tokens",
    ]


def test_noise_is_of_one_kind_wherever_it_is_worst():
    kinds = []
    for layer in ("stem", "body"):
        findings = Findings()
        findings.noise({layer: 0.1})
        kinds += findings.kinds
    assert kinds == ["noise", "noise"]


@pytest.mark.parametrize("entry", ["conv", "conv.call2", "conv[0]", "conv[key][1]", "conv.call12[0]"])
def test_a_layer_fires_by_any_of_its_calls_and_entries(entry):
    findings = Findings()
    findings.layers_fired([entry], chosen=["conv"], exact=frozenset({"conv"}))
    assert findings.metadata()["left_out"] == {}


@pytest.mark.parametrize("entry", ["conv2", "conv.callosum", "conv.call", "conv.0", "conv.call2x"])
def test_a_layer_does_not_fire_by_what_another_puts_out(entry):
    with pytest.raises(ValueError, match=r"no activation came from 'conv' \(it did not run in the model's forward\)"):
        Findings().layers_fired([entry], chosen=["conv"], exact=frozenset({"conv"}))


def test_an_exact_layer_that_gave_nothing_is_an_error_with_the_reason():
    findings = Findings()
    findings.leave_out("ids", "integer tensor (int64)")
    with pytest.raises(ValueError, match=r"'ids' \(integer tensor \(int64\)\).*choose another layer.*forward="):
        findings.layers_fired(["conv"], chosen=["conv", "ids"], exact=frozenset({"ids"}))


def test_other_layers_that_gave_nothing_are_named_in_one_sentence():
    findings = Findings()
    findings.leave_out("ids", "integer tensor (int64)")
    findings.layers_fired(["conv"], chosen=["conv", "ids", "unused"], exact=frozenset({"conv"}))
    (sentence,) = findings.warnings
    assert sentence.startswith("left out layers that gave no activation: ids, unused;")
    assert findings.left_out["unused"] == "it did not run in the model's forward"


def test_no_activation_at_all_is_an_error_that_says_what_to_do():
    with pytest.raises(ValueError, match=r"from any chosen layer: 'conv' \(it did not run .*\); choose other layers"):
        Findings().layers_fired([], chosen=["conv"], exact=frozenset())


def test_many_names_are_shortened():
    findings = Findings()
    findings.unchanged([f"view {number}" for number in range(11)])
    assert "view 7 and 3 more;" in findings.warnings[0]
    assert len(findings.facts["unchanged_views"]) == 11


def test_the_noise_floor_is_the_largest_of_all_layers_and_zero_is_silent():
    findings = Findings()
    findings.noise({"conv": 0.0, "fc": 0.0})
    assert (findings.facts["noise_floor"], findings.warnings) == (0.0, [])
    findings.noise({"conv": 0.01, "fc": 0.25})
    assert findings.facts["noise_floor"] == 0.25
    assert "0.25 at layer 'fc'" in findings.warnings[0]
    findings.noise({})
    assert findings.facts["noise_floor"] == 0.0


def test_activations_that_are_not_finite_are_counted_by_layer_with_their_images_in_the_source():
    # Two views, layers and images; image 1 is number 40 of the source and fails at fc under both views.
    cells = torch.zeros(2, 2, 2, dtype=torch.bool)
    findings = Findings()
    findings.non_finite(cells, ["conv", "fc"], [30, 40])
    assert findings.warnings == []
    cells[:, 1, 1] = True
    findings.non_finite(cells, ["conv", "fc"], [30, 40])
    assert findings.facts["non_finite"] == {"fc": [40]}
    assert findings.facts["non_finite_cells"] == 2
    assert "left out at fc (images 40 of the source)" in findings.warnings[0]


def test_nothing_found_is_nothing_said():
    findings = Findings()
    findings.unchanged([])
    findings.dead([])
    assert findings.warnings == []
    assert set(findings.metadata()) == {"left_out", "notes", "versions", "warnings"}


def test_versions_of_what_the_numbers_depend_on_are_kept():
    assert {"python", "torch", "kornia", "torchmetrics"} <= set(Findings().metadata()["versions"])
