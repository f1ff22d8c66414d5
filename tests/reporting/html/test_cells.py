"""Numbers as columns: what is packed is read again within half a unit, and a page of a long training stays small."""

import math

import pytest
import torch
from support.made_results import SENSITIVITY, made_result, table_of
from support.reports import column_of, rows_of

from kornia_lightning_probe.reporting.html import Probed, report_text
from kornia_lightning_probe.reporting.html.cells import packed_column
from kornia_lightning_probe.reporting.html.numbers import page_numbers


@pytest.mark.parametrize("scale", [1e-6, 0.01, 1.0, 35.0, 1e7])
def test_a_column_is_read_again_to_a_two_thousandth_of_its_largest_number(scale):
    column = [scale * place / 10 for place in range(11)] + [None, -scale]
    read = column_of(packed_column(column), len(column))
    assert read[11] is None
    # Of at least 2000 steps to the largest number half a one is lost.
    pairs = [(one, other) for one, other in zip(column, read, strict=True) if one is not None]
    assert max(abs(one - other) for one, other in pairs) <= scale / 4000


def test_a_column_of_many_sizes_keeps_four_digits_of_each_number():
    column = [1e6, 1.2345678, 2e-3, 3.0, 4.0]
    assert column_of(packed_column(column), 5) == [1e6, 1.235, 2e-3, 3.0, 4.0]


def test_what_is_the_same_everywhere_is_written_once():
    assert packed_column([None, None]) == {"same": None}
    assert packed_column([0, 0, 0]) == {"same": 0}
    assert packed_column([]) == {"same": None}


def test_each_view_has_its_own_value_and_a_curve_begins_at_the_identity():
    result = made_result(ladders={"rotation": (5.0, 15.0)})
    rows = [row for row in rows_of(Probed("probe", [result]))["levels"] if row["j"] == 1]
    # View v at column 1: v/10 + 1/100; the ladder of a user says nothing of severity 0.
    assert [(row["x"], row["y"]) for row in rows] == [(5.0, 0.01), (15.0, 0.11)]


def test_a_result_without_a_cell_has_a_gap_there():
    first, second = made_result(epoch=0), made_result(epoch=1)
    table = second.table("sensitivity")
    attempted = table.attempted.clone()
    # The flip at conv1.
    attempted[0, 1] = False
    second.tables["sensitivity"] = table_of(table.layers, table.value, attempted=attempted, quantity=SENSITIVITY)
    rows = rows_of(Probed("probe", [first, second]))["means"]
    assert [row["y"] for row in rows if (row["j"], row["k"]) == (1, 0)] == [0.01, None]


def long_training(num_metrics, *, num_results=20, num_layers=16):
    """A training of 20 results of 16 layers and 19 views, of random numbers, which no packing makes smaller."""
    generator = torch.Generator().manual_seed(0)
    layers = tuple(f"backbone.stages.{place}.mlp.layer_norm" for place in range(num_layers))
    ladders = {name: tuple(float(level) for level in range(1, 4)) for name in "abcdef"} | {"g": (1.0,)}
    results = []
    for epoch in range(-1, num_results - 1):
        tables = {}
        for number in range(num_metrics):
            value = torch.rand(19, num_layers, generator=generator)
            name = "sensitivity" if number == 0 else f"metric{number}"
            tables[name] = table_of(layers, value, error=0.0123, quantity=SENSITIVITY)
        results.append(made_result(layers, ladders=ladders, epoch=epoch, tables=tables))
    return Probed("probe", results, "fit", "Net")


def test_a_page_of_20_epochs_of_16_layers_and_19_views_is_2_megabytes_small():
    probed = long_training(21)
    size = len(report_text([probed]).encode())
    # .93 of it draws the charts.
    assert 1.4e6 < size < 2.0e6
    numbers = page_numbers(probed)
    assert len(numbers.cells[0].results) == 20
    kept = {tuple(cells.results) for cells in numbers.cells[1:]}
    (places,) = kept
    assert (places[0], places[-1]) == (0, 19)
    (said,) = numbers.not_shown
    assert said.startswith(
        f"to keep the page small, 20 other metrics can be chosen at {len(places)} of 20 results only"
    )


def test_of_a_short_training_nothing_is_left_out():
    numbers = page_numbers(long_training(3, num_results=5))
    assert numbers.not_shown == []
    assert {tuple(cells.results) for cells in numbers.cells} == {(0, 1, 2, 3, 4)}


def test_the_embedding_is_shown_though_layers_are_left_out():
    layers = tuple(f"layer{place}" for place in range(60))
    result = made_result(layers, metadata={"embedding": "layer58"})
    numbers = page_numbers(Probed("probe", [result]))
    assert len(numbers.layers) <= 40
    assert numbers.layers[numbers.shown_layer] == "layer58"


def test_what_moves_the_embedding_most_is_chosen_at_first():
    result = made_result(metadata={"embedding": "conv2"})
    numbers = page_numbers(Probed("probe", [result]))
    # Views 4 and 5 are those of blur, the largest.
    assert numbers.augmentations[numbers.shown_augmentation] == "blur"
    result.tables["sensitivity"].value[:] = math.nan
    assert page_numbers(Probed("probe", [result])).shown_augmentation == 0


def test_results_without_a_time_go_by_their_names_or_their_order():
    results = [made_result(epoch=0) for _ in range(3)]
    numbers = page_numbers(Probed("probe", results, labels=["step=9", "step=10", "last"]))
    assert (numbers.axis, numbers.places) == ("result", [0, 1, 2])
    assert numbers.whens == ["step=9", "step=10", "last"]
    assert page_numbers(Probed("probe", results)).whens == ["result 1", "result 2", "result 3"]
