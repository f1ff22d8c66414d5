import torch
from support.made_results import table_of

from kornia_lightning_probe.result import ProbeResult
from kornia_lightning_probe.results.drift import CKA_FIRST, CKA_PREVIOUS, RANK
from kornia_lightning_probe.results.tables import CLEAN

NAN = float("nan")
LONG = tuple(f"backbone.layer{i // 16}.{i % 16}.conv2" for i in range(60))


def line_of(result, start):
    return next(line for line in result.summary(full=True).splitlines() if line.startswith(start))


def drift(layers=("stem", "body", "flat", "head"), *, is_first=False):
    value = torch.full((1, len(layers)), NAN) if is_first else torch.linspace(1.0, 0.25, len(layers))[None]
    options = {"error": NAN, "attempted": torch.tensor(not is_first)}
    tables = {
        "cka_previous": table_of(layers, value, quantity=CKA_PREVIOUS, **options),
        "cka_first": table_of(layers, value, quantity=CKA_FIRST, **options),
        "rankme": table_of(layers[-2:-1], [[5.25]], error=NAN, quantity=RANK),
    }
    return ProbeResult(layers=layers, views=[CLEAN], tables=tables, metadata={"num_images": 32})


def test_a_drift_has_a_column_for_each_reference_and_no_views():
    text = drift().summary(full=True)
    assert text.startswith("32 images x 4 layers\n\ncka_previous: debiased CKA with the previous probe")
    assert line_of(drift(), "layer").split() == ["layer", "cka_previous", "cka_first"]
    assert line_of(drift(), "head").split() == ["head", "0.25", "█▌", "0.25", "█▌"]
    assert text.endswith("\nrankme: flat 5.25 (how many directions the images spread over)")
    assert not any(word in text for word in ("mean", "severit", "clean", "views"))


def test_the_first_drift_has_nothing_to_compare_with():
    lines = drift(is_first=True).summary(full=True).splitlines()
    assert lines[2:] == [
        "rankme: flat 5.25 (how many directions the images spread over)",
        "cka_previous, cka_first: nothing to compare with yet",
    ]


def test_a_drift_of_many_layers_says_what_is_left_out_and_a_dead_one_has_a_dash():
    text = drift(LONG).summary(full=True)
    assert "40 of 60 layers are shown" in text
    assert max(map(len, text.splitlines())) <= 100
    tables = {"cka_first": table_of(("a", "b"), [[NAN, 1.0]], error=NAN)}
    dead = ProbeResult(layers=("a", "b"), views=[CLEAN], tables=tables)
    assert line_of(dead, "a ").split() == ["a", "-"]
    assert "-: no value" in dead.summary(full=True)


def test_a_metric_of_ones_own_on_clean_images_has_no_meaning_to_tell_but_its_values():
    tables = {"own": table_of(("a", "b"), [[0.5, 1.0]]), "alone": table_of(("a",), [[2.0]])}
    text = ProbeResult(layers=("a", "b"), views=[CLEAN], tables=tables).summary(full=True)
    assert "own:" not in text
    assert text.endswith("alone: a 2.00")


def test_a_layer_that_one_metric_lacks_has_a_dash_there():
    tables = {"one": table_of(("a", "b"), [[0.5, 1.0]]), "two": table_of(("b", "c"), [[0.5, 1.0]])}
    result = ProbeResult(layers=("a", "b", "c"), views=[CLEAN], tables=tables)
    assert line_of(result, "c ").split()[:2] == ["c", "-"]
