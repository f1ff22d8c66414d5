"""What a release says of itself agrees with the package; what errors tell to install is what an extra holds."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import kornia_lightning_probe

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_citation_is_of_this_version_license_and_repository():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == kornia_lightning_probe.__version__
    assert citation["license"] == PROJECT["license"]
    assert citation["repository-code"] == PROJECT["urls"]["Repository"]


def test_compromised_releases_of_lightning_are_refused():
    (lightning,) = [need for need in PROJECT["dependencies"] if re.match(r"lightning\b", need)]
    assert {"!=2.6.2", "!=2.6.3"} <= set(lightning.removeprefix("lightning").split(","))


def test_only_the_step_that_publishes_may_ask_for_a_token():
    release = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8"))
    # Nothing but a release starts it. (YAML reads the key "on" as true.)
    assert release[True] == {"release": {"types": ["published"]}}
    assert release["permissions"] == {"contents": "read"}
    assert release["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    assert "permissions" not in release["jobs"]["build"]


def test_the_workflow_runs_what_a_clone_runs():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    (job,) = workflow["jobs"].values()
    assert job["steps"][-1] == {"run": ".ci/run"}


@pytest.mark.parametrize("package", sorted(ROOT.glob("kornia_lightning_probe/**/*.py")), ids=lambda path: path.stem)
def test_what_an_error_tells_to_install_is_what_the_extra_holds(package):
    text = package.read_text(encoding="utf-8")
    for packages, extra in re.findall(r"pip install ([\w ,'\[\]-]+) \(the extra \[(\w+)\]", text):
        held = " ".join(PROJECT["optional-dependencies"][extra])
        assert [name for name in packages.split() if name.strip("'") not in held] == []
    # A clone has no release to be installed from.
    assert "pip install 'kornia-lightning-probe" not in text
