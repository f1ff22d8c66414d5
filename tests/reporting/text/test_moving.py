import torch
from support.made_results import made_result, moving_result, table_of

from kornia_lightning_probe.reporting.text.moving import moving_text
from kornia_lightning_probe.result import ProbeResult, ViewInfo


def test_only_sensitivity_depends_on_what_a_view_does():
    result = moving_result()
    assert moving_text(result, "sensitivity") == "maps and tokens: spatial mean under rotation"
    assert moving_text(result, "sensitivity_flat") == ""


def test_only_what_is_shown_is_named():
    assert moving_text(moving_result(), "sensitivity", augmentation="rotation").endswith("under rotation")
    assert moving_text(moving_result(), "sensitivity", augmentation="blur") == ""
    assert moving_text(made_result(), "sensitivity") == ""


def test_of_many_augmentations_the_first_are_named_each_once():
    views = [ViewInfo(f"move{i}", level, 1.0, moves_pixels=True) for i in range(6) for level in (1, 2)]
    tables = {"sensitivity": table_of(("conv",), torch.ones(12, 1))}
    result = ProbeResult(layers=("conv",), views=views, tables=tables)
    assert moving_text(result, "sensitivity").endswith("under move0, move1, move2, move3 and 2 more")
