"""`compare`, the gate: it fails where a metric has grown beyond what is allowed and beyond error, and nowhere else."""

import pytest
import torch
from support.made_results import SENSITIVITY, made_result, table_of, views_of

from kornia_lightning_probe.cli.main import main
from kornia_lightning_probe.result import ProbeResult

pytest.importorskip("jsonargparse")


def write(folder, name, *, conv=0.5, pixels=0.5, error=0.01):
    """One view, the pixels and one layer."""
    views = views_of({"blur": (2.0,)})
    table = table_of(("input", "conv"), [[pixels, conv]], error=error, quantity=SENSITIVITY)
    result = ProbeResult(layers=("conv",), views=views, tables={"sensitivity": table}, metadata={"num_images": 32})
    result.to_json(folder / name)
    return str(folder / name)


def gate(folder, *fail_above, **second):
    first = write(folder, "a.json")
    return main(["compare", first, write(folder, "b.json", **second), "--fail-above", *fail_above])


# Where a fall is asked for (-.1), staying as it was is too much.
# The error of a difference of two independent values of error .01 is .01 sqrt(2) = .0141; three of them are .0424.
@pytest.mark.parametrize(
    ("grown", "allowed", "status"),
    [(0.3, 0.2, 1), (0.3, 0.4, 0), (0.24, 0.2, 0), (0.25, 0.2, 1), (-0.3, 0.0, 0), (0.0, -0.1, 1), (0.0, 0.0, 0)],
)
def test_it_fails_where_a_cell_has_grown_beyond_what_is_allowed_and_three_errors(
    tmp_path, capsys, grown, allowed, status
):
    assert gate(tmp_path, f"sensitivity={allowed}", conv=0.5 + grown) == status
    assert ("FAILED" in capsys.readouterr().out) == bool(status)


def test_it_says_which_cell_and_by_how_much(tmp_path, capsys):
    assert gate(tmp_path, "sensitivity=0.1", conv=0.8) == 1
    said = capsys.readouterr().out
    assert "layer conv under blur 2: +0.3000 ± 0.0141 (from 0.5000 to 0.8000)" in said
    # Its mean over one level, and that level.
    assert "beyond error, at 2 cells" in said
    assert said.count("Since the first result") == 1


def test_the_pixels_are_no_part_of_the_model(tmp_path):
    assert gate(tmp_path, "sensitivity=0.1", pixels=0.9) == 0


def test_one_of_several_is_enough_in_either_way_to_write_them(tmp_path, capsys):
    assert gate(tmp_path, "sensitivity=9", "--fail-above", "sensitivity=0.1", conv=0.9) == 1
    assert gate(tmp_path, "sensitivity=9", "sensitivity=0.1", conv=0.9) == 1
    assert capsys.readouterr().out.count("passed") == 2


@pytest.mark.parametrize(
    ("words", "options", "text"),
    [
        ("sensitivty=1", {}, "did you mean 'sensitivity'"),
        ("sensitivity", {}, "takes METRIC=CHANGE such as sensitivity=0.05, got 'sensitivity'"),
        ("sensitivity=nan", {}, "takes METRIC=CHANGE"),
        ("=1", {}, "takes METRIC=CHANGE"),
        ("sensitivity=1", {"error": float("nan")}, "its standard error isn't known"),
        ("sensitivity=1", {"conv": float("nan")}, "has no value at layer conv under blur"),
    ],
)
def test_what_can_not_be_judged_is_an_error_and_no_pass(tmp_path, capsys, words, options, text):
    assert gate(tmp_path, words, **options) == 2
    output = capsys.readouterr()
    assert text in output.err
    # No half answer stands in front.
    assert output.out == ""


def test_without_a_gate_growth_is_no_failure(tmp_path, capsys):
    first, second = write(tmp_path, "a.json"), write(tmp_path, "b.json", conv=0.9)
    assert main(["compare", first, second]) == 0
    assert "change of sensitivity" in capsys.readouterr().out
    assert main(["compare", first, second, "--errors", "0"]) == 2


def test_a_single_level_is_seen_though_the_mean_is_within_what_is_allowed(tmp_path):
    first, second = made_result(), made_result()
    value = second.tables["sensitivity"].value.clone()
    # One of rotation's three levels by .6, their mean by .2.
    value[3, 2] += 0.6
    columns = second.tables["sensitivity"].layers
    second.tables["sensitivity"] = table_of(columns, torch.as_tensor(value), quantity=SENSITIVITY)
    first.to_json(tmp_path / "a.json")
    second.to_json(tmp_path / "b.json")
    words = ["compare", str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--fail-above"]
    assert main([*words, "sensitivity=0.4"]) == 1
    assert main([*words, "sensitivity=0.6"]) == 0
