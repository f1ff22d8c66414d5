import pytest
from support.made_results import made_result

from kornia_lightning_probe.reporting.html import Probed, probes_text, read_probes
from kornia_lightning_probe.results.storage import state_of


def same(left, right):
    return repr(state_of(left)) == repr(state_of(right))


def test_probe_json_gives_back_every_number(tmp_path):
    probes = [
        Probed("probe", [made_result(epoch=-1), made_result()], "fit", "Net"),
        Probed("b", [made_result()], "test"),
    ]
    path = tmp_path / "probe.json"
    path.write_text(probes_text(probes), encoding="utf-8")
    read = read_probes(path)
    assert [(probed.name, probed.stage, probed.model) for probed in read] == [
        ("probe", "fit", "Net"),
        ("b", "test", ""),
    ]
    pairs = zip((r for p in probes for r in p.results), (r for p in read for r in p.results), strict=True)
    assert all(same(one, other) for one, other in pairs)


def test_a_folder_of_result_files_is_read_by_probe_and_stage_in_the_order_of_steps(tmp_path):
    # As text 9 comes behind 10.
    for epoch in (-1, 9, 10):
        result = made_result(epoch=epoch)
        result.step = max(epoch, 0)
        result.to_json(tmp_path / "run" / "probe" / f"fit-epoch={epoch}-step={max(epoch, 0)}.json")
    made_result(epoch=10).to_json(tmp_path / "run" / "probe" / "test-epoch=10-step=10.json")
    (tmp_path / "run" / "other.json").write_text("[]", encoding="utf-8")
    read = read_probes(tmp_path)
    found = [(probed.name, probed.stage, [result.epoch for result in probed.results]) for probed in read]
    assert found == [("run/probe", "fit", [-1, 9, 10]), ("run/probe", "test", [10])]


def test_two_trainings_in_one_folder_are_two_probes(tmp_path):
    made_result(metadata={"run": "a"}).to_json(tmp_path / "fit-epoch=3-step=120.json")
    made_result(metadata={"run": "b"}).to_json(tmp_path / "fit-epoch=3-step=120-1.json")
    names = [probed.name for probed in read_probes(tmp_path)]
    assert names == [f"{tmp_path.name} (a)", f"{tmp_path.name} (b)"]


def test_one_result_is_a_probe(tmp_path):
    made_result().to_json(tmp_path / "result.json")
    (probed,) = read_probes(tmp_path / "result.json")
    assert probed.name == "result"
    assert same(probed.latest, made_result())


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file or folder '.*nowhere'; give a log directory"):
        read_probes(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="there are no results of a probe under"):
        read_probes(tmp_path)
    path = tmp_path / "probe.json"
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"probe\.json is no JSON, or only a piece of it"):
        read_probes(path)
    path.write_text(probes_text([]).replace("[]", '[{"name": 5}]'), encoding="utf-8")
    with pytest.raises(ValueError, match=r"probe\.json: probes\[0\].*name must be a string, got 5"):
        read_probes(path)
