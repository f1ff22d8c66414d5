import pytest
import torch
from support.made_results import geometric_result, made_result, table_of, views_of

from kornia_lightning_probe.result import ProbeResult
from kornia_lightning_probe.results.tables import CLEAN, pick_layers

NAN = float("nan")
LONG = tuple(f"backbone.layer{i // 16}.{i % 16}.conv2" for i in range(60))
MANY = {f"augmentation{i}": (1.0, 2.0) for i in range(14)}


def line_of(result, start):
    return next(line for line in result.summary().splitlines() if line.startswith(start))


def test_the_first_line_says_what_was_probed():
    assert made_result().summary().splitlines()[0] == "32 images x 6 views x 3 layers, epoch 3, step 120, cpu"


def test_the_images_are_counted_where_the_metadata_does_not_say_them():
    assert made_result(epoch=-1, metadata={}).summary().startswith("32 images x 6 views x 3 layers, before training\n")


def test_a_row_holds_a_layers_mean_and_its_mean_for_each_augmentation():
    # conv1: views 0 to 5 mean .25 + .01; hflip is view 0, rotation views 1 to 3, blur views 4 and 5. A bar of 6 cells
    # is 1.2 long, so .26 is 10.4 eighths.
    assert line_of(made_result(), "conv1").split() == ["conv1", "0.26", "█▎", "0.01", "0.21", "0.46"]
    assert line_of(made_result(), "layer").split() == ["layer", "mean", "hflip", "rotation", "blur"]


def test_rows_run_from_the_input_to_the_output():
    lines = made_result().summary().splitlines()
    starts = [line.split()[0] for line in lines if line[:1].isalpha()]
    assert starts[2:9] == ["layer", "input", "conv1", "conv2", "fc", "output", "all"]


@pytest.mark.parametrize("layers", [("conv",), LONG], ids=["one layer", "60 layers"])
@pytest.mark.parametrize("ladders", [{"blur": (1.0,)}, MANY, {"x" * 130: (1.0,)}], ids=["one", "14", "a long name"])
def test_no_line_is_longer_than_a_terminal(layers, ladders):
    text = made_result(layers=layers, ladders=ladders).summary()
    assert max(map(len, text.splitlines())) <= 100


def test_every_augmentation_is_shown_however_many_there_are():
    text = made_result(ladders=MANY).summary()
    headers = [line.split() for line in text.splitlines() if line.startswith("layer")]
    assert [name for line in headers for name in line if name in MANY] == list(MANY)


def test_layers_left_out_are_said():
    text = made_result(layers=LONG).summary()
    assert "40 of 62 layers are shown, evenly by depth; `summary(max_layers=None)` shows all" in text
    assert "backbone.layer0.0.conv2" not in text
    assert "backbone.layer0.0.conv2" in made_result(layers=LONG).summary(max_layers=None)


def test_a_dead_layer_has_a_dash_and_a_note():
    views = views_of({"blur": (1.0,)})
    result = ProbeResult(layers=("a", "b"), views=views, tables={"sensitivity": table_of(("a", "b"), [[NAN, 0.5]])})
    assert line_of(result, "a ").split() == ["a", "-", "-"]
    assert "-: no value" in result.summary()
    assert "-: no value" not in made_result().summary()


def test_the_severities_are_listed():
    assert "severities: hflip 1; rotation 5, 15, 30; blur 0.005, 0.01" in made_result().summary()


def test_a_value_beyond_the_bar_is_marked():
    views = views_of({"blur": (1.0,)})
    result = ProbeResult(layers=("a",), views=views, tables={"sensitivity": table_of(("a",), [[123.4]])})
    assert line_of(result, "a ").split() == ["a", "123", "██████+", "123"]


def test_other_metrics_take_a_line_each():
    tables = {
        "flip_rate": table_of(("output",), torch.full((6, 1), 0.125)),
        "cosine": table_of(("conv1", "conv2", "fc", "output"), torch.tensor([[0.9, 0.7, NAN, 0.8]]).expand(6, 4)),
        "gone": table_of(("conv1", "conv2", "fc", "output"), torch.full((6, 4), NAN)),
    }
    text = made_result(tables=tables).summary()
    assert "  flip_rate: output 0.12" in text
    assert "  cosine: 0.80, from 0.70 (conv2) to 0.90 (conv1)" in text
    assert "  gone: no value at any of 4 layers" in text


def test_without_a_sensitivity_the_next_metric_takes_the_table():
    views = views_of({"blur": (1.0,)})
    tables = {"sensitivity": table_of(("a",), [[NAN]]), "relative_change": table_of(("a",), [[0.25]], error=NAN)}
    text = ProbeResult(layers=("a",), views=views, tables=tables).summary()
    assert "relative_change (|augmented - clean| / |clean|)\n\nlayer" in text
    assert "sensitivity: a -" in text


def test_what_was_left_out_is_said_with_its_reason():
    left_out = {f"relu{i}": "never fired" for i in range(12)}
    text = made_result(metadata={"left_out": left_out}).summary()
    assert "left out: relu0: never fired" in text
    assert "left out: 2 more, in .metadata['left_out']" in text


def test_notes_are_shown():
    assert (
        made_result(metadata={"notes": ["fewer images than asked for"]})
        .summary()
        .endswith("\n\nnote: fewer images than asked for")
    )


def test_a_result_without_metrics_has_its_first_line():
    assert ProbeResult(layers=(), views=[], tables={}).summary() == "0 images x 0 views x 0 layers, epoch 0, step 0"


def test_layers_are_picked_evenly_with_both_ends():
    # Steps of 41/9 from 0 to 41, rounded.
    picked = pick_layers([str(i) for i in range(42)], 10)
    assert picked == ["0", "5", "9", "14", "18", "23", "27", "32", "36", "41"]
    assert pick_layers(["a", "b"], 10) == ["a", "b"]
    assert pick_layers(["a", "b"], 1) == ["a"]


def test_the_table_is_the_headline_and_says_what_is_pooled():
    result = geometric_result()
    assert line_of(result, "conv1").split() == ["conv1", "0.33", "█▋", "0.25", "0.50"]
    text = result.summary()
    assert "\nmaps pooled under rotation (their spatial mean); flattened: `sensitivity` below\n" in text
    assert "  sensitivity, flattened: 0.50, from" in text
    assert "pooled" not in made_result().summary()
    assert "flattened" not in made_result().summary()


def test_sequences_with_a_class_token_are_said_to_stay_flattened():
    result = geometric_result(layers=("conv1", "block"), pooled=("conv1", "block:cls", "block:patch"))
    assert "sequences with a class token stay flattened" in " ".join(result.summary().split())


def equivariance(error, layers=("conv1", "conv2")):
    """Under rotation 15 and 30; invariance_error .4, the floor .06 where there is an error."""
    error = torch.tensor([[*column, NAN] for column in error]).T
    known = error.isfinite()
    tables = {
        "invariance_error": torch.full_like(error, 0.4), "equivariance_error": error,
        "interpolation_floor": torch.where(known, 0.06, NAN),
    }  # fmt: skip
    attempted = torch.tensor([[True], [True], [False]]).expand_as(error)
    return {name: table_of(layers, value, attempted=attempted) for name, value in tables.items()}


def equivariance_lines(result, **options):
    lines = result.summary(**options).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("equivariance of maps"))
    return lines[start : lines.index("", start)]


def test_equivariance_stands_beside_flattened_sensitivity_over_the_same_views():
    result = geometric_result(tables=equivariance([[0.1, 0.2], [0.3, NAN]]))
    _, header, *rows = equivariance_lines(result)
    expected = ["layer", "sensitivity", "invariance_error", "equivariance_error", "interpolation_floor", "views"]
    assert header.split() == expected
    assert [row.split() for row in rows] == [
        ["conv1", "0.50", "0.40", "0.15", "0.06", "2", "of", "2"],
        ["conv2", "0.50", "0.40", "0.30", "0.06", "1", "of", "2"],
    ]
    text = result.summary()
    assert "equivariance_error near interpolation_floor: maps move along" in text
    assert "  equivariance_error:" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_an_error_without_its_companions_is_shown_with_dashes():
    tables = equivariance([[0.1, 0.2], [NAN, NAN]])
    tables["interpolation_floor"] = table_of(("conv1",), torch.full((3, 1), NAN))
    _, _, first, second = equivariance_lines(geometric_result(tables=tables))
    assert first.split() == ["conv1", "0.50", "0.40", "0.15", "-", "2", "of", "2"]
    assert second.split() == ["conv2", "-", "-", "-", "-", "0", "of", "2"]


def test_equivariance_has_at_most_twelve_rows_and_says_so():
    layers = tuple(f"conv{i}" for i in range(30))
    tables = equivariance([[0.1, 0.2]] * 30, layers)
    result = geometric_result(layers=layers, pooled=layers, tables=tables)
    lines = equivariance_lines(result, max_layers=None)
    rows = [line for line in lines if line.startswith("conv")]
    assert len(rows) == 12
    assert "(12 of 30 layers, evenly by depth)" in " ".join(lines[:2])
    assert (rows[0].split()[0], rows[-1].split()[0]) == ("conv0", "conv29")


def test_without_a_value_of_equivariance_there_is_no_table_of_it():
    text = geometric_result(tables=equivariance([[NAN, NAN], [NAN, NAN]])).summary()
    assert "equivariance of maps" not in text
    assert "  equivariance_error: " in text


def drift(layers=("stem", "body", "flat", "head"), *, is_first=False):
    value = torch.full((1, len(layers)), NAN) if is_first else torch.linspace(1.0, 0.25, len(layers))[None]
    tables = {
        name: table_of(layers, value, error=NAN, attempted=torch.tensor(not is_first))
        for name in ("cka_previous", "cka_first")
    }
    tables["rankme"] = table_of(layers[-2:-1], [[5.25]], error=NAN)
    return ProbeResult(layers=layers, views=[CLEAN], tables=tables, metadata={"num_images": 32})


def test_a_drift_has_a_column_for_each_reference_and_no_views():
    text = drift().summary()
    assert text.startswith(
        "32 images x 4 layers, epoch 0, step 0\n\ncka_previous: debiased CKA with the previous probe"
    )
    assert line_of(drift(), "layer").split() == ["layer", "cka_previous", "cka_first"]
    assert line_of(drift(), "head").split() == ["head", "0.25", "█▎", "0.25", "█▎"]
    assert text.endswith("\nrankme: flat 5.25 (how many directions the images spread over)")
    assert not any(word in text for word in ("mean", "severit", "clean", "views"))


def test_the_first_drift_has_nothing_to_compare_with():
    lines = drift(is_first=True).summary().splitlines()
    assert lines[2:] == [
        "rankme: flat 5.25 (how many directions the images spread over)",
        "cka_previous, cka_first: nothing to compare with yet",
    ]


def test_a_drift_of_many_layers_says_what_is_left_out_and_a_dead_one_has_a_dash():
    text = drift(LONG).summary()
    assert "40 of 60 layers are shown" in text
    assert max(map(len, text.splitlines())) <= 100
    tables = {"cka_first": table_of(("a", "b"), [[NAN, 1.0]], error=NAN)}
    dead = ProbeResult(layers=("a", "b"), views=[CLEAN], tables=tables)
    assert line_of(dead, "a ").split() == ["a", "-"]
    assert "-: no value" in dead.summary()
