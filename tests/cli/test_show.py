"""`show`."""

import pytest
from support.made_results import made_result

from kornia_lightning_probe.cli import show as module
from kornia_lightning_probe.cli.main import main
from kornia_lightning_probe.cli.telling import CommandError

pytest.importorskip("jsonargparse")


def test_a_file_is_shown_as_its_summary(tmp_path, capsys):
    result = made_result()
    result.to_json(tmp_path / "a.json")
    assert main(["show", str(tmp_path / "a.json")]) == 0
    assert result.summary() in capsys.readouterr().out
    assert main(["show", str(tmp_path), "--full"]) == 0
    assert result.summary(full=True) in capsys.readouterr().out


def test_several_runs_are_listed_and_are_not_drawn(tmp_path, capsys):
    for run in "ab":
        made_result().to_json(tmp_path / run / "probe.json")
    assert main(["show", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("2 runs")
    assert all(str(tmp_path / run / "probe.json") in said for run in "ab")
    assert main(["show", str(tmp_path), "--plot", str(tmp_path / "x.png")]) == 2
    assert "holds 2 runs" in capsys.readouterr().err


def test_a_picture_is_drawn_into_a_new_folder(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    made_result().to_json(tmp_path / "a.json")
    target = tmp_path / "new" / "x.png"
    words = ["show", str(tmp_path / "a.json"), "--plot", str(target)]
    assert main([*words, "--kind", "heatmap"]) == 0
    assert target.read_bytes().startswith(b"\x89PNG")
    assert main([*words, "--kind", "heatmp"]) == 2
    output = capsys.readouterr()
    assert "did you mean 'heatmap'" in output.err
    assert main([*words[:-1], str(tmp_path / "x.foo")]) == 2
    output = capsys.readouterr()
    assert "x.foo: Format 'foo' is not supported" in output.err
    # Nothing is shown where a part of what was asked for can't be.
    assert output.out == ""
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(CommandError, match="--plot needs matplotlib: pip install"):
        module._drawn(None, target, "heatmap")
