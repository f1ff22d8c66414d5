"""The command as it is installed: from the wheel in this environment, or from one in an environment of its own."""

import os
import subprocess
import sys
import sysconfig
import venv
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.made_results import made_result

pytest.importorskip("jsonargparse")
ROOT = Path(__file__).parents[2]
COMMAND = Path(sysconfig.get_path("scripts")) / "kornia-lightning-probe"


def call(*words, cwd):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(  # noqa: S603 - our own commands
        list(map(str, words)), capture_output=True, text=True, check=False, timeout=280, cwd=cwd, env=environment
    )


def assert_shows_and_refuses(command, folder):
    made_result().to_json(folder / "probe.json")
    shown = call(command, "show", "probe.json", cwd=folder)
    assert shown.returncode == 0, shown.stderr
    assert "conv1" in shown.stdout
    refused = call(command, "show", "other.json", cwd=folder)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)


def test_the_command_that_is_installed_here_shows_refuses_fails_and_reports(tmp_path):
    code = "import kornia_lightning_probe as package; print(package.__file__)"
    # Elsewhere, the checkout is not in the way of what is installed.
    found = call(sys.executable, "-c", code, cwd=tmp_path)
    if "site-packages" not in Path(found.stdout).parts or not COMMAND.exists():
        pytest.skip("the package is not installed from a wheel here, as it is under tox")
    assert_shows_and_refuses(COMMAND, tmp_path)
    # Each cell is larger by .5, which is beyond .1.
    worse = made_result()
    worse.tables["sensitivity"].value.add_(0.5)
    worse.to_json(tmp_path / "worse.json")
    failed = call(COMMAND, "compare", "probe.json", "worse.json", "--fail-above", "sensitivity=0.1", cwd=tmp_path)
    assert (failed.returncode, failed.stderr) == (1, "")
    assert "FAILED: sensitivity is more than 0.1 above the first" in failed.stdout
    pytest.importorskip("altair")
    written = call(COMMAND, "report", "probe.json", cwd=tmp_path)
    assert (written.returncode, written.stderr) == (0, "")
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("hatchling") is None, reason="a wheel without the network needs hatchling here")
def test_the_command_of_a_wheel_shows_and_refuses(tmp_path):
    built = call(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=ROOT)
    assert built.returncode == 0, built.stderr
    venv.create(tmp_path / "env", with_pip=True)
    site = next((tmp_path / "env").rglob("site-packages"))
    (wheel,) = tmp_path.glob("*.whl")
    binaries = tmp_path / "env" / "bin"
    put = call(binaries / "python", "-m", "pip", "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    assert put.returncode == 0, put.stderr
    # Behind the wheel's own folder: the packages that it needs, without what is installed here for editing.
    (site / "here.pth").write_text(sysconfig.get_paths()["purelib"])
    assert_shows_and_refuses(binaries / "kornia-lightning-probe", tmp_path)
