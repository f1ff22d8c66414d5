"""The door: one sentence and an exit status for each way in which a command can end."""

import subprocess
import sys

import pytest
from support.made_results import made_result

from kornia_lightning_probe.cli import main as door
from kornia_lightning_probe.cli.main import main

pytest.importorskip("jsonargparse")


def as_a_module(folder, *arguments, code=None):
    call = ["-m", "kornia_lightning_probe"] if code is None else ["-c", code]
    return subprocess.run(  # noqa: S603 - our own command
        [sys.executable, *call, *arguments], capture_output=True, text=True, check=False, timeout=120, cwd=folder
    )


@pytest.mark.parametrize("command", ["show", "compare", "run"])
def test_help_has_an_example_and_the_exit_statuses(command, capsys):
    assert main([command, "--help"]) == 0
    said = capsys.readouterr().out
    assert f"kornia-lightning-probe {command} " in said[said.index("example:") :]
    assert "2  any other error" in said


@pytest.mark.parametrize("words", [[], ["shw"], ["show"], ["show", "a", "--what"]])
def test_words_that_are_not_known_end_with_status_2(words, capsys):
    assert main(words) == 2
    assert "error:" in capsys.readouterr().err


def test_an_error_is_one_line_and_debug_adds_the_traceback(tmp_path, capsys):
    path = str(tmp_path / "none.json")
    assert main(["show", path]) == 2
    said = capsys.readouterr().err
    assert said == f"kornia-lightning-probe: error: {path}: there is no such file or folder\n"
    assert main(["show", path, "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_without_the_parser_it_is_said_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(door, "find_spec", lambda _: None)
    assert main(["show", "x"]) == 2
    said = capsys.readouterr().err
    assert "pip install 'jsonargparse[signatures]' (the extra [cli])" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (KeyError("conv"), 2)])
def test_what_is_raised_becomes_a_status(monkeypatch, capsys, error, status):
    def fails(given):
        raise error

    monkeypatch.setattr("kornia_lightning_probe.cli.commands.run_command", fails)
    assert main(["show", "x"]) == status
    assert "Traceback" not in capsys.readouterr().err


def test_as_a_module_it_shows_and_refuses(tmp_path):
    made_result().to_json(tmp_path / "probe.json")
    shown = as_a_module(tmp_path, "show", "probe.json")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "conv1" in shown.stdout
    refused = as_a_module(tmp_path, "show", "other.json")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert len(refused.stderr.splitlines()) == 1
