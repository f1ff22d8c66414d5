"""The door: one sentence and an exit status for each way in which a command can end."""

import subprocess
import sys

import pytest
from support.made_results import made_result

import kornia_lightning_probe
from kornia_lightning_probe.cli import main as door
from kornia_lightning_probe.cli.main import main

pytest.importorskip("jsonargparse")


def as_a_module(folder, *arguments, code=None):
    call = ["-m", "kornia_lightning_probe"] if code is None else ["-c", code]
    return subprocess.run(  # noqa: S603 - our own command
        [sys.executable, *call, *arguments], capture_output=True, text=True, check=False, timeout=120, cwd=folder
    )


@pytest.mark.parametrize("command", ["show", "compare", "report", "run"])
def test_help_has_an_example_and_the_exit_statuses(command, capsys):
    assert main([command, "--help"]) == 0
    said = capsys.readouterr().out
    assert f"kornia-lightning-probe {command} " in said[said.index("example:") :]
    assert "2    any other error" in said
    # What is not known of a default is not said.
    assert "type:" not in said
    assert "null" not in said


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "a command was expected: show, compare, report, run; see kornia-lightning-probe --help"),
        (["shw"], "there is no command 'shw'; did you mean 'show'?"),
        (["show"], "the following arguments are required: path; see kornia-lightning-probe show --help"),
        (["show", "a", "--what"], "unrecognized arguments: --what"),
        (["compare", "a", "b", "--errors", "few"], "--errors takes numbers, got 'few'"),
        (["compare", "a", "b", "--fail-above"], "--fail-above: expected at least one argument"),
    ],
)
def test_words_that_are_not_known_end_with_status_2_and_a_sentence(words, text, capsys):
    assert main(words) == 2
    said = capsys.readouterr().err
    assert text in said
    assert len(said.splitlines()) == 1


def test_its_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"kornia-lightning-probe {kornia_lightning_probe.__version__}"


def test_an_error_is_one_line_and_debug_adds_the_traceback(tmp_path, capsys):
    path = str(tmp_path / "none.json")
    assert main(["show", path]) == 2
    said = capsys.readouterr().err
    assert said == f"kornia-lightning-probe: error: {path}: there is no such file or folder\n"
    for words in (["show", path, "--debug"], ["--debug", "show", path]):
        assert main(words) == 2
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


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    made_result().to_json(tmp_path / "probe.json")
    # Its output is closed before it says anything.
    code = (
        "import os, sys; from kornia_lightning_probe.cli.main import main; r, w = os.pipe(); os.dup2(w, 1);"
        "os.close(r); os.close(w); sys.exit(main(['show', 'probe.json']))"
    )
    done = as_a_module(tmp_path, code=code)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_interrupt_ends_with_130_and_a_line(tmp_path):
    made_result().to_json(tmp_path / "probe.json")
    # Where tests run in the background of a shell, an interrupt is ignored, and by all that they start.
    code = (
        "import signal, sys; from kornia_lightning_probe.cli import commands, main;"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"
        "commands.run_command = lambda given: signal.raise_signal(signal.SIGINT);"
        "sys.exit(main.main(['show', 'probe.json']))"
    )
    done = as_a_module(tmp_path, code=code)
    assert (done.returncode, done.stderr) == (130, "kornia-lightning-probe: interrupted\n")
