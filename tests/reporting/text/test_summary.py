import pytest
import torch
from support.made_results import SENSITIVITY, made_result, moving_result, table_of, views_of

from kornia_lightning_probe.quantity import Quantity
from kornia_lightning_probe.result import ProbeResult

NAN = float("nan")
LONG = tuple(f"backbone.layer{i // 16}.{i % 16}.conv2" for i in range(60))
MANY = {f"augmentation{i}": (1.0, 2.0) for i in range(14)}


def line_of(result, start):
    return next(line for line in result.summary(full=True).splitlines() if line.startswith(start))


def test_the_first_line_says_what_was_probed():
    assert made_result().summary(full=True).splitlines()[0] == "32 images x 6 views x 3 layers, epoch 3, step 120, cpu"


def test_the_images_are_counted_where_the_metadata_does_not_say_them():
    assert (
        made_result(epoch=-1, metadata={})
        .summary(full=True)
        .startswith("32 images x 6 views x 3 layers, before training\n")
    )


def test_a_row_holds_a_layers_mean_and_its_mean_for_each_augmentation():
    # conv1: views 0 to 5 mean .25 + .01; hflip is view 0, rotation views 1 to 3, blur views 4 and 5. A bar of 6 cells
    # is 1.2 long, so .26 is 10.4 eighths.
    assert line_of(made_result(), "conv1").split() == ["conv1", "0.26", "█▎", "0.01", "0.21", "0.46"]
    assert line_of(made_result(), "layer").split() == ["layer", "mean", "hflip", "rotation", "blur"]


def test_rows_run_from_the_input_to_the_output():
    lines = made_result().summary(full=True).splitlines()
    starts = [line.split()[0] for line in lines if line[:1].isalpha()]
    first = starts.index("layer")
    assert starts[first : first + 7] == ["layer", "input", "conv1", "conv2", "fc", "output", "all"]


@pytest.mark.parametrize("layers", [("conv",), LONG], ids=["one layer", "60 layers"])
@pytest.mark.parametrize("ladders", [{"blur": (1.0,)}, MANY, {"x" * 130: (1.0,)}], ids=["one", "14", "a long name"])
def test_no_line_is_longer_than_a_terminal(layers, ladders):
    text = made_result(layers=layers, ladders=ladders).summary(full=True)
    assert max(map(len, text.splitlines())) <= 100


def test_every_augmentation_is_shown_however_many_there_are():
    text = made_result(ladders=MANY).summary(full=True)
    headers = [line.split() for line in text.splitlines() if line.startswith("layer")]
    assert [name for line in headers for name in line if name in MANY] == list(MANY)


def test_layers_left_out_are_said():
    text = made_result(layers=LONG).summary(full=True)
    assert "40 of 62 layers are shown, evenly by depth; `summary(max_layers=None)` shows all" in text
    assert "backbone.layer0.0.conv2" not in text
    assert "backbone.layer0.0.conv2" in made_result(layers=LONG).summary(max_layers=None, full=True)


def test_a_dead_layer_has_a_dash_and_a_note():
    views = views_of({"blur": (1.0,)})
    result = ProbeResult(layers=("a", "b"), views=views, tables={"sensitivity": table_of(("a", "b"), [[NAN, 0.5]])})
    assert line_of(result, "a ").split() == ["a", "-", "-"]
    assert "-: no value" in result.summary(full=True)
    assert "-: no value" not in made_result().summary(full=True)


def test_the_severities_are_listed():
    assert "severities: hflip; rotation 5, 15, 30; blur 0.005, 0.01" in made_result().summary(full=True)


def test_a_value_beyond_the_bar_is_marked():
    views = views_of({"blur": (1.0,)})
    table = table_of(("a",), [[123.4]], quantity=SENSITIVITY)
    result = ProbeResult(layers=("a",), views=views, tables={"sensitivity": table})
    assert line_of(result, "a ").split() == ["a", "123", "██████+", "123"]


def test_other_metrics_take_a_line_each():
    tables = {
        "flip_rate": table_of(("output",), torch.full((6, 1), 0.125)),
        "cosine": table_of(("conv1", "conv2", "fc", "output"), torch.tensor([[0.9, 0.7, NAN, 0.8]]).expand(6, 4)),
        "gone": table_of(("conv1", "conv2", "fc", "output"), torch.full((6, 4), NAN)),
    }
    text = made_result(tables=tables).summary(full=True)
    assert "  flip_rate: output 0.12" in text
    assert "  cosine: 0.80, from 0.70 (conv2) to 0.90 (conv1)" in text
    assert "  gone: no value at any of 4 layers" in text


def test_without_a_sensitivity_the_next_metric_takes_the_table():
    views = views_of({"blur": (1.0,)})
    change = table_of(("a",), [[0.25]], error=NAN, quantity=Quantity(meaning="|augmented - clean| / |clean|"))
    tables = {"sensitivity": table_of(("a",), [[NAN]]), "relative_change": change}
    text = ProbeResult(layers=("a",), views=views, tables=tables).summary(full=True)
    assert "relative_change (|augmented - clean| / |clean|)\n\nlayer" in text
    assert "sensitivity: a -" in text


def test_what_was_left_out_is_said_with_its_reason():
    left_out = {f"relu{i}": "never fired" for i in range(12)}
    text = made_result(metadata={"left_out": left_out}).summary(full=True)
    assert "left out: relu0: never fired" in text
    assert "left out: 2 more, in .metadata['left_out']" in text


def test_notes_are_shown():
    assert (
        made_result(metadata={"notes": ["fewer images than asked for"]})
        .summary(full=True)
        .endswith("\n\nnote: fewer images than asked for")
    )


def test_a_result_without_metrics_has_its_first_line():
    assert ProbeResult(layers=(), views=[], tables={}).summary(full=True) == "0 images x 0 views x 0 layers"


def test_the_augmentations_that_move_pixels_are_named_beside_the_meaning():
    text = moving_result().summary(full=True)
    assert "\nmaps and tokens: spatial mean under rotation\n" in text
    # Two views of rotation at .25 and one of blur at .5; a bar of 6 cells is 1.2 long.
    assert line_of(moving_result(), "conv1").split() == ["conv1", "0.33", "█▋", "0.25", "0.50"]
    assert "  sensitivity_flat: 0.50, from" in text
    assert "spatial mean" not in made_result().summary(full=True)


def test_a_metric_of_ones_own_has_its_meaning_its_bar_and_its_severity_curves():
    quantity = Quantity(meaning="0: the same, 100: all new", at_identity=0.0, scale=(0.0, 100.0))
    table = table_of(("a",), [[20.0], [50.0]], quantity=quantity)
    result = ProbeResult(layers=("a",), views=views_of({"blur": (1.0, 2.0)}), tables={"own": table})
    assert "own (0: the same, 100: all new)\n" in result.summary(full=True)
    # A mean of 35 is 16.8 eighths of 48.
    assert line_of(result, "a ").split() == ["a", "35.00", "██▏", "35.00"]
    # A ladder of one's own: (20 + 50) / 2 over its range, past .25 from the start.
    assert line_of(result, "area").split() == ["area,", "onset", "blur"]
    assert result.summary(full=True).endswith("\na            35    <=1")


def test_without_asking_for_more_there_are_the_verdict_one_table_and_where_the_rest_is():
    short, full = made_result().summary(), made_result().summary(full=True)
    assert made_result().verdict().splitlines()[0][:40] in short
    assert "severity curves, and no other metric: summary(full=True)" in short
    assert "area, onset" not in short
    assert "area, onset" in full
    assert "summary(full=True)" not in full
    assert len(short.splitlines()) < 25
