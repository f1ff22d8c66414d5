"""The command as it is installed: from a wheel, in an environment of its own that sees this one's packages."""

import os
import subprocess
import sys
import sysconfig
import venv
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.made_results import made_result

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def call(*words, cwd):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(  # noqa: S603 - our own commands
        list(map(str, words)), capture_output=True, text=True, check=False, timeout=280, cwd=cwd, env=environment
    )


@pytest.mark.skipif(find_spec("hatchling") is None, reason="a wheel without the network needs hatchling here")
def test_the_command_of_a_wheel_shows_and_refuses(tmp_path):
    pytest.importorskip("jsonargparse")
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
    made_result().to_json(tmp_path / "probe.json")
    shown = call(binaries / "kornia-lightning-probe", "show", "probe.json", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "conv1" in shown.stdout
    refused = call(binaries / "kornia-lightning-probe", "show", "other.json", cwd=tmp_path)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
