import torch
from support.made_results import moving_result, table_of

NAN = float("nan")


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
    lines = result.summary(full=True, **options).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("equivariance of maps"))
    return lines[start : lines.index("", start)]


def test_equivariance_stands_beside_flattened_sensitivity_over_the_same_views():
    result = moving_result(tables=equivariance([[0.1, 0.2], [0.3, NAN]]))
    _, header, *rows = equivariance_lines(result)
    expected = ["layer", "sensitivity_flat", "invariance_error", "equivariance_error", "interpolation_floor", "views"]
    assert header.split() == expected
    assert [row.split() for row in rows] == [
        ["conv1", "0.50", "0.40", "0.15", "0.06", "2", "of", "2"],
        ["conv2", "0.50", "0.40", "0.30", "0.06", "1", "of", "2"],
    ]
    text = result.summary(full=True)
    assert "equivariance_error near interpolation_floor: maps move along" in text
    assert "  equivariance_error:" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_an_error_without_its_companions_is_shown_with_dashes():
    tables = equivariance([[0.1, 0.2], [NAN, NAN]])
    tables["interpolation_floor"] = table_of(("conv1",), torch.full((3, 1), NAN))
    _, _, first, second = equivariance_lines(moving_result(tables=tables))
    assert first.split() == ["conv1", "0.50", "0.40", "0.15", "-", "2", "of", "2"]
    assert second.split() == ["conv2", "-", "-", "-", "-", "0", "of", "2"]


def test_equivariance_has_at_most_twelve_rows_and_says_so():
    layers = tuple(f"conv{i}" for i in range(30))
    tables = equivariance([[0.1, 0.2]] * 30, layers)
    result = moving_result(layers=layers, tables=tables)
    lines = equivariance_lines(result, max_layers=None)
    rows = [line for line in lines if line.startswith("conv")]
    assert len(rows) == 12
    assert "(12 of 30 layers, evenly by depth)" in " ".join(lines[:2])
    assert (rows[0].split()[0], rows[-1].split()[0]) == ("conv0", "conv29")


def test_without_a_value_of_equivariance_there_is_no_table_of_it():
    text = moving_result(tables=equivariance([[NAN, NAN], [NAN, NAN]])).summary(full=True)
    assert "equivariance of maps" not in text
    assert "  equivariance_error: " in text
