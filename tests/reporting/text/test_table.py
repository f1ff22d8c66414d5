import pytest

from kornia_lightning_probe.reporting.text.table import bar, decimals, elided, named, side_by_side, wrapped


@pytest.mark.parametrize(
    ("value", "scale", "expected"),
    [
        (0.5, (0.0, 1.0), "███    "),
        (0.75, (0.5, 1.0), "███    "),
        (-1.0, (-1.0, 1.0), "       "),
        (0.0, (-1.0, 1.0), "███    "),
        (-3.0, (-1.0, 1.0), "       "),
        (7.0, (0.0, 1.0), "██████+"),
        # One of 48 eighths.
        (1 / 48, (0.0, 1.0), "▏      "),
    ],
)
def test_a_bar_runs_from_one_end_of_the_scale_to_the_other(value, scale, expected):
    assert bar(value, scale) == expected


def test_nothing_has_two_decimals_and_a_tiny_number_six():
    assert [decimals([]), decimals([0.0]), decimals([float("nan")]), decimals([1e-9])] == [2, 2, 2, 6]


def test_a_long_name_keeps_both_of_its_ends():
    assert elided("backbone.layer1.conv2", 10) == "back…conv2"
    assert elided("short", 5) == "short"


def test_names_have_one_width():
    assert named("layer", ["a", "conv1.weight"]) == ["layer       ", "a           ", "conv1.weight"]


def test_a_table_goes_on_below_where_the_terminal_ends():
    columns = [(f"augmentation {i}", ["0.50"]) for i in range(8)]
    first, second = side_by_side(["layer", "conv "], columns, again=["layer", "conv "])
    # 5 letters, and 2 + 14 for each column: 6 of them are 101 wide, 5 are 85.
    assert [line.count("augmentation") for line in first.splitlines()] == [5, 0]
    assert second.splitlines()[1].split() == ["conv", "0.50", "0.50", "0.50"]


def test_what_is_too_long_for_a_line_goes_on_indented():
    lines = wrapped("word " * 50).splitlines()
    assert max(map(len, lines)) <= 100
    assert all(line.startswith("    ") for line in lines[1:])
