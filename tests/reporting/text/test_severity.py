from support.curves import curve
from support.made_results import made_result


def test_the_summary_shows_areas_and_onsets_of_curves():
    lines = curve([0.1, 0.4, 0.3]).summary(full=True).splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("severity curves"))
    assert lines[place + 1].split() == ["area,", "onset", "rotation"]
    # Area (.1*5/2 + .25*10 + .35*15) / 30, onset half way from .1 at 5 to .4 at 15.
    assert lines[place + 2].split() == ["fc", "0.267", "10"]
    assert "worst before the highest severity: fc at rotation 15" in lines


def test_a_censored_onset_is_shown_with_its_bound():
    assert "0.0573    >30" in curve([0.0625, 0.0625, 0.0625]).summary(full=True)


def test_the_summary_has_no_curves_where_there_are_none():
    assert "severity curves" not in curve([0.1], severities=(1.0,), from_identity=False).summary(full=True)
    assert "severity curves" not in curve([0.1, 0.2, 0.3], metric="own").summary(full=True)


def test_the_summary_shows_eight_layers_of_many_and_says_so():
    text = made_result(layers=tuple(f"layer{i}" for i in range(20))).summary(full=True)
    assert "severity curves (8 of 22 layers)" in text
    every_layer = made_result(layers=tuple(f"layer{i}" for i in range(20))).summary(max_layers=None, full=True)
    assert "severity curves: area" in every_layer
