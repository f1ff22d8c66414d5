import math

import torch
from support.made_results import COSINE, SENSITIVITY, made_result, table_of
from support.reports import drawn, rows_of, words_of

from kornia_lightning_probe.reporting.html import Probed
from kornia_lightning_probe.reporting.html.charts import charts_of
from kornia_lightning_probe.reporting.html.numbers import MOST_LAYERS, MOST_RESULTS, page_numbers


def probed_of(*results):
    return Probed("probe", list(results))


def changed(result, by, *, epoch, error=0.01):
    """The result with another epoch and `by` more in every cell."""
    table = result.table("sensitivity")
    tables = {"sensitivity": table_of(table.layers, table.value + by, error, quantity=SENSITIVITY)}
    return made_result(epoch=epoch, tables=tables)


def test_a_cell_is_the_mean_over_the_levels_and_its_error_is_not_that_of_independent_views():
    rows = rows_of(probed_of(made_result()))["means"]
    # Rotation is views 1, 2 and 3, conv2 column 2: .2 + .02. Errors of .01 each are those of the same images: .01.
    cell = next(row for row in rows if (row["j"], row["k"]) == (2, 1))
    assert (cell["y"], cell["s"], cell["c"], cell["q"]) == (0.22, 0.01, None, 0)


def test_now_shows_every_value_and_names_layers_downwards():
    words = words_of(drawn(probed_of(made_result()), "now"))
    for name in ("input", "conv1", "conv2", "fc", "output", "hflip", "rotation", "blur"):
        assert words.count(name) == 1
    # The flip at the layers of columns 0 to 4.
    assert [word for word in words if word in ("0.00", "0.01", "0.02", "0.03", "0.04")]


def test_the_chosen_epoch_is_the_one_that_is_shown():
    probed = probed_of(made_result(epoch=-1), changed(made_result(), 5.0, epoch=1))
    last, first = (words_of(drawn(probed, "now", when=when)) for when in (1, 0))
    # The flip's smallest value is 0 before and 5 after.
    assert "5.00" in last
    assert "5.00" not in first
    assert "0.22" in first


def test_a_change_has_a_number_only_where_it_is_decided():
    before = made_result(epoch=-1)
    # An error of .014: three of them are .042.
    beyond, within = changed(before, 0.05, epoch=1), changed(before, 0.04, epoch=1)
    numbers = [word for word in words_of(drawn(probed_of(before, beyond), "change")) if word == "+0.05"]
    # Each of three augmentations at five layers.
    assert len(numbers) == 3 * 5
    assert "+0.04" not in words_of(drawn(probed_of(before, within), "change"))


def test_the_colours_of_a_change_are_symmetric_about_zero_and_its_ends_are_named():
    before = made_result(epoch=-1)
    probed = probed_of(before, changed(before, -0.25, epoch=1))
    words = words_of(drawn(probed, "change"))
    assert "+0.25 moves more" in words
    assert "\u22120.25 moves less" in words


def test_a_cosine_that_falls_moves_more():
    value = torch.zeros(6, 5)
    tables = {"cosine": table_of(("input", "conv1", "conv2", "fc", "output"), value, quantity=COSINE)}
    numbers = page_numbers(probed_of(made_result(tables=tables)))
    assert dict(zip(numbers.metrics, numbers.directions, strict=True)) == {
        "sensitivity": ("moves more", "moves less"),
        "cosine": ("moves less", "moves more"),
    }


def test_a_mean_over_levels_of_which_one_is_missing_is_marked():
    result = made_result()
    table = result.table("sensitivity")
    value = table.value.clone()
    value[1, 1] = math.nan
    result.tables["sensitivity"] = table_of(table.layers, value, quantity=SENSITIVITY)
    # Of .11, .21 and .31 at conv1 the first is missing.
    assert "0.26*" in words_of(drawn(probed_of(result), "now"))


def test_a_missing_value_breaks_the_line_and_is_not_bridged():
    results = [made_result(epoch=epoch) for epoch in (-1, 0, 1, 2, 3)]
    table = results[2].table("sensitivity")
    results[2].tables["sensitivity"] = table_of(table.layers, torch.full_like(table.value, math.nan))
    whole = [made_result(epoch=epoch) for epoch in (-1, 0, 1, 2, 3)]
    starts = [line_starts(drawn(probed_of(*history), "curves")) for history in (whole, results)]
    # Each of five lines is drawn in two pieces.
    assert starts == [5, 10]


def line_starts(svg):
    lines = [part for part in svg.split("<path") if 'aria-roledescription="line mark"' in part]
    return sum(part.split(' d="')[1].split('"')[0].count("M") for part in lines)


def test_the_epoch_before_training_is_called_so():
    probed = probed_of(made_result(epoch=-1), made_result(epoch=0))
    svg = drawn(probed, "curves")
    assert "before" in svg
    assert "training" in svg
    assert "-1" not in words_of(svg)
    assert page_numbers(probed).whens == ["before training", "epoch 0"]


def test_several_probes_in_an_epoch_stand_at_their_steps():
    results = [made_result(epoch=epoch) for epoch in (-1, 0, 0)]
    for step, result in enumerate(results):
        result.step = 10 * step
    numbers = page_numbers(probed_of(*results))
    assert (numbers.axis, numbers.places) == ("step", [0, 10, 20])
    assert numbers.whens == ["before training", "epoch 0, step 10", "epoch 0, step 20"]


def test_one_result_has_neither_curves_nor_changes():
    assert sorted(charts_of(page_numbers(probed_of(made_result())))) == ["now", "severity"]


def test_results_with_nothing_in_common_are_shown_without_changes():
    other = made_result(("a", "b"), ladders={"shear": (1.0,)}, epoch=1)
    numbers = page_numbers(probed_of(made_result(epoch=-1), other))
    # By depth in the result that has them: a and conv1 are the first, b and conv2 the second.
    assert set(numbers.layers) == {"input", "a", "b", "conv1", "conv2", "fc", "output"}
    assert numbers.layers[0] == "input"
    assert set(numbers.cells[0].means["c"]) == {None}


def test_many_results_and_layers_are_picked_evenly_and_it_is_said():
    layers = tuple(f"layer{place}" for place in range(60))
    few = page_numbers(Probed("probe", [made_result(layers), made_result(layers, epoch=4)]))
    assert len(few.layers) == MOST_LAYERS
    assert (few.layers[0], few.layers[-1]) == ("input", "output")
    assert few.not_shown == ["40 of 62 layers are shown, picked evenly by depth; probe.json holds all"]
    many = page_numbers(Probed("probe", [made_result(epoch=epoch) for epoch in range(100)]))
    assert len(many.results) == MOST_RESULTS
    assert (many.whens[0], many.whens[-1]) == ("epoch 0", "epoch 99")
    assert many.not_shown == ["24 of 100 results are shown, picked evenly; probe.json holds all"]


def test_the_embedding_is_what_is_chosen_at_first():
    result = made_result(metadata={"embedding": "conv2"})
    assert page_numbers(probed_of(result)).shown_layer == 2
