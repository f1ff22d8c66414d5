"""The unit of a severity stands on every axis, in the table and in the picture of the bank, where a ladder has one."""

from dataclasses import replace

import pytest
import torch
from support.made_results import made_result
from support.pictures import titles

pytest.importorskip("matplotlib")
from matplotlib.text import Text

from kornia_lightning_probe import AugmentationBank, ProbeResult, presets
from kornia_lightning_probe.plotting import plot_bank, plot_heatmap, plot_severity

UNITS = {"rotation": "degrees", "blur": "of the side"}


def with_units():
    result = made_result()
    result.views = tuple(replace(view, unit=UNITS.get(view.augmentation, "")) for view in result.views)
    return result


def test_a_severity_axis_names_its_unit_and_that_of_ones_own_ladder_has_none():
    labels = [panel.get_xlabel() for panel in plot_severity(with_units()).axes]
    assert labels == ["severity", "severity (degrees)", "severity (of the side)"]


def test_a_heatmap_names_the_unit_above_the_columns():
    said = [text.get_text() for text in plot_heatmap(with_units()).findobj(Text)]
    assert {"hflip", "rotation\n(degrees)", "blur\n(of the side)"} <= set(said)


def test_the_summary_names_the_units():
    said = with_units().summary(full=True).replace("\n    ", " ")
    assert "severities: hflip; rotation 5, 15, 30 (degrees); blur 0.005, 0.01 (of the side)" in said


def test_the_picture_of_the_bank_names_the_units():
    bank = AugmentationBank({"turn": presets.rotation((5, 30))})
    assert titles(plot_bank(bank, torch.rand(2, 3, 8, 8))) == ["clean", "turn\n5 degrees", "turn\n30 degrees"]


def test_units_come_back_from_files_and_earlier_files_have_none(tmp_path):
    with_units().to_json(tmp_path / "probe.json")
    assert ProbeResult.from_json(tmp_path / "probe.json").views == with_units().views
    state = made_result().state()
    for view in state["views"]:
        del view["unit"]
    assert {view.unit for view in ProbeResult.from_state(state).views} == {""}


def test_a_result_of_a_preset_has_its_units():
    bank = AugmentationBank({"turn": presets.rotation((5,), ends="both"), "own": {3: torch.nn.Identity()}})
    assert [view.unit for view in bank] == ["degrees", "degrees", ""]


def test_every_ladder_of_the_presets_that_has_levels_has_a_unit():
    ladders = {}
    for preset in ("default", "photometric", "geometric", "corruptions"):
        ladders |= presets.preset_ladders(preset)
    assert {name for name, ladder in ladders.items() if not ladder.unit} == {"hflip", "vflip"}


def test_long_names_of_augmentations_do_not_lie_on_one_another():
    figure = plot_severity(made_result(ladders={"augmentation" * 4: (1.0, 2.0), "other": (1.0,)}))
    assert [len(panel.get_title("left")) for panel in figure.axes] == [26, 5]
