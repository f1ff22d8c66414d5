import pytest
import torch
from support.compared import measured, squares
from support.made_results import made_result, table_of, views_of

from kornia_lightning_probe.result import ProbeResult

NAN = float("nan")


def test_the_summary_marks_what_is_beyond_sampling_error():
    generator = torch.Generator().manual_seed(0)
    distance, deviation = squares(generator, 2, 2, 64), squares(generator, 2, 2, 64)
    moved = distance * torch.tensor([4.0, 1.0])[:, None]
    text = measured(distance, deviation).compare(measured(moved, deviation, epoch=1)).summary()
    lines = text.splitlines()
    assert "change of sensitivity: epoch 1, step 0 minus the first" in lines
    # The verdict is of the last layer, since no result has an embedding.
    assert lines[0] == "Since the first result it is undecided whether the last layer, layer1, moves otherwise."
    # Layer 0 has about .71 and twice that; layer 1 is the same.
    (changed,) = [line for line in lines if line.startswith("layer0")]
    assert changed.endswith("*")
    assert next(line for line in lines if line.startswith("layer1")).split() == ["layer1", "+0.00"]
    assert "1 of 2 cells (about 0.1 would be by chance)" in text
    assert "paired image by image" in text
    assert max(map(len, lines)) <= 100


def test_other_metrics_take_a_line_and_each_can_have_the_table():
    first = made_result(
        tables={"own": table_of(("fc",), torch.zeros(6, 1)), "gone": table_of(("fc",), torch.full((6, 1), NAN))}
    )
    second = made_result(
        tables={"own": table_of(("fc",), torch.ones(6, 1)), "gone": table_of(("fc",), torch.full((6, 1), NAN))}
    )
    comparison = first.compare(second)
    assert "  own: 3 of 3 cells beyond; the largest change +1.00* (fc, hflip)" in comparison.summary()
    assert "  gone: no value in both results" in comparison.summary()
    assert comparison.summary("own").startswith("change of own")
    with pytest.raises(ValueError, match="no metric 'onw' in this comparison; did you mean 'own'"):
        comparison.summary("onw")


def test_small_changes_are_shown_with_two_digits():
    views = views_of({"blur": (1.0,)})
    first, second = (
        ProbeResult(layers=("a", "b"), views=views, tables={"own": table_of(("a", "b"), [values])})
        for values in ([0.0, 0.0], [0.0125, -0.25 / 1024])
    )
    lines = first.compare(second).summary().splitlines()
    assert [line.split()[1] for line in lines if line[:2] in ("a ", "b ")] == ["+0.013", "-0.000"]
    # Both results are of epoch 0.
    assert lines[0] == "change of own: the second result minus the first"


def test_a_metric_without_errors_says_so_in_its_line():
    tables = {"own": table_of(("fc",), torch.zeros(6, 1), error=NAN)}
    changed = {"own": table_of(("fc",), torch.ones(6, 1), error=NAN)}
    text = made_result(tables=tables).compare(made_result(tables=changed)).summary()
    assert "  own: no standard errors; the largest change +1.00 (fc, hflip)" in text


def test_a_long_list_of_what_is_left_out_is_cut_short_in_the_text():
    comparison = made_result(layers=tuple(f"block{i}" for i in range(30))).compare(made_result(layers=()))
    assert "left out: 20 more, in .left_out" in comparison.summary()
    assert len(comparison.left_out) == 30


def test_a_large_change_has_three_digits_and_a_missing_one_a_dash():
    def result(values):
        table = table_of(("a", "b"), [values])
        return ProbeResult(layers=("a", "b"), views=views_of({"blur": (1.0,)}), tables={"own": table})

    lines = result([0.0, NAN]).compare(result([1234.5, 1.0])).summary().splitlines()
    assert [line.split()[1] for line in lines if line[:2] in ("a ", "b ")] == ["+1.23e+03*", "-"]
