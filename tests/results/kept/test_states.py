import copy
from dataclasses import replace

import pytest
import torch
from support.made_results import made_result

from kornia_lightning_probe.results.image_files import ImagesInFile
from kornia_lightning_probe.results.kept.states import States, numbers_of_checkpoint


def history_of(count=3):
    return [made_result(epoch=epoch, metadata={"num_images": 32, "seconds": float(epoch)}) for epoch in range(count)]


def test_what_does_not_change_is_one_object_and_what_does_is_not():
    history = history_of()
    history[2].tables["sensitivity"] = replace(
        history[2].tables["sensitivity"], value=history[2].tables["sensitivity"].value + 1.0
    )
    first, second, third = States().of(history)
    assert first["tables"] is second["tables"] is third["tables"]
    assert first["views"] is third["views"]
    assert first["numbers"] is second["numbers"]
    assert third["numbers"] is not second["numbers"]
    assert [state["metadata"]["seconds"] for state in (first, second, third)] == [0.0, 1.0, 2.0]


def test_a_result_is_packed_once():
    states, history = States(), history_of()
    before = states.of(history)
    assert [one is other for one, other in zip(states.of(history), before, strict=True)] == [True] * 3


@pytest.mark.parametrize("change", ["metadata", "tables", "epoch", "exact"])
def test_a_result_that_has_changed_since_is_packed_again(change):
    states, history = States(), history_of(1)
    (before,) = states.of(history)
    exact = ()
    if change == "metadata":
        history[0].metadata = replace(history[0].metadata, seconds=7.0)
    elif change == "tables":
        table = history[0].tables["sensitivity"]
        history[0].tables["sensitivity"] = replace(table, value=table.value + 1.0)
    elif change == "epoch":
        history[0].epoch = 9
    else:
        exact = (0,)
    (after,) = states.of(history, exact=exact)
    assert after is not before
    (anew,) = States().of(history, exact=exact)
    assert torch.equal(after["numbers"], anew["numbers"])
    assert (after["epoch"], after["metadata"]) == (anew["epoch"], anew["metadata"])


def test_states_can_be_copied_with_their_callback():
    states, history = States(), history_of()
    states.of(history)
    copied = copy.deepcopy(states)
    assert [state["epoch"] for state in copied.of(history)] == [0, 1, 2]


def test_where_the_images_are_is_kept(tmp_path):
    result = made_result()
    result.images_elsewhere = ImagesInFile(tmp_path / "probe.json", "a" * 64, 6)
    (state,) = States().of([result])
    assert numbers_of_checkpoint(state).images_elsewhere == result.images_elsewhere


@pytest.mark.parametrize("images", [None, {"path": "probe.json"}, {"path": 3, "of": "", "num_views": 6}])
def test_a_malformed_place_of_images_is_an_error(images):
    (state,) = States().of([made_result()])
    with pytest.raises(ValueError, match=r"^images"):
        numbers_of_checkpoint({**state, "images": images})


def test_a_state_of_an_earlier_version_is_read():
    result = made_result()
    assert numbers_of_checkpoint(result.state()).rows == result.rows
