import math

from support.made_results import SENSITIVITY, made_result, table_of, views_of

from kornia_lightning_probe.reporting.html import Probed
from kornia_lightning_probe.reporting.html.naming import short_names
from kornia_lightning_probe.reporting.html.numbers import page_numbers
from kornia_lightning_probe.reporting.html.tables import before_and_after, facts
from kornia_lightning_probe.result import ProbeResult, ViewInfo


def rows_of(*results):
    return {(row[0], row[1].split()[0]): row for row in before_and_after(Probed("probe", list(results)), "sensitivity")}


def test_a_mean_with_a_missing_level_has_a_star_before_and_now():
    before, now = made_result(epoch=-1), made_result(epoch=1)
    for result in (before, now):
        # The first of three levels of rotation at conv1.
        result.tables["sensitivity"].value[1, 1] = math.nan
    row = rows_of(before, now)["conv1", "rotation"]
    # The mean of .21 and .31.
    assert row[2:4] == ["0.260 ± 0.010 *", "0.260 ± 0.010 *"]
    assert "*" not in "".join(rows_of(before, now)["conv2", "rotation"])


def test_severities_stand_with_their_unit():
    views = [ViewInfo("rotation", level, 15.0 * level, unit="degrees") for level in (1, 2)]
    table = table_of(("conv",), [[0.25], [0.5]], quantity=SENSITIVITY)
    result = ProbeResult(layers=("conv",), views=views, tables={"sensitivity": table})
    assert [row[1] for row in before_and_after(Probed("probe", [result]), "sensitivity")] == [
        "rotation 15, 30 (degrees)"
    ]
    assert page_numbers(Probed("probe", [result])).severities == ["severity (degrees)"]
    plain = ProbeResult(layers=("conv",), views=views_of({"a": (1.0, 2.0)}), tables={"sensitivity": table})
    assert page_numbers(Probed("probe", [plain])).severities == ["severity"]


def test_small_numbers_keep_their_digits():
    result = made_result(epoch=0)
    result.tables["sensitivity"].value.mul_(0.01)
    # The largest is .0054, of which two digits and one more are told; view 0 at column 2 is .0002.
    assert rows_of(result)["conv2", "hflip"][3].startswith("0.00020 ")


def test_the_epoch_before_training_is_called_so_in_the_metadata_too():
    result = made_result(metadata={"references": {"first": -1, "previous": 4}})
    assert ("references", "first: before training, previous: epoch 4") in list(facts([result]))


def test_long_names_are_told_apart():
    names = [f"backbone.stages.0.blocks.{place}.attention.layer_norm" for place in range(12)]
    short, shared = short_names(["input", *names, "output"])
    assert shared == "backbone.stages.0.blocks"
    assert len(set(short)) == 14
    assert max(map(len, short)) <= 30
    # What tells them apart is in the middle, which is left out first.
    middle = [f"{'a' * 30}{place}{'b' * 30}" for place in range(3)]
    assert len(set(short_names(middle, 10)[0])) == 3
