"""README, CHANGELOG and the examples: their code runs, their links lead somewhere, their claims hold."""

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import pytest
import torch
import yaml
from support.nets import HuggingViT, ImageAndMask, LeftAndRight, ResNet, UNet, ViT
from support.trainings import QUIET, Net
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import kornia_lightning_probe
from kornia_lightning_probe import AugmentationBank, presets, probe_model
from kornia_lightning_probe.metrics import resolve_metrics

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"]

pytestmark = [
    *(pytest.mark.filterwarnings(line) for line in QUIET),
    # Said where a Trainer without options meets a small data set and the machine has other loggers and cores.
    pytest.mark.filterwarnings("ignore:.*The number of training batches.*is smaller than the logging interval.*"),
]


def blocks(language):
    """The code blocks of the README, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def images_of(count=64, *, channels=3, side=32):
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(0))


class Wide(Net):
    """The training that the README leaves to its reader, on images of 32 x 32."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Conv2d(4, 24, 2), nn.ReLU(), nn.Flatten())


def fit(trainer):
    data = DataLoader(TensorDataset(images_of(), torch.arange(64) % 2), batch_size=16)
    trainer.fit(Wide(), data, data)


def test_the_readmes_python_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    # What the README calls the reader's own.
    names = {
        "segmenter": ImageAndMask(),
        "matcher": LeftAndRight(),
        "masks": torch.ones(64, 1, 32, 32),
        "left": images_of(),
        "right": images_of().flip(0),
    }
    trained = []
    for number, block in enumerate(blocks("python")):
        exec(compile(block, f"README.md, python block {number}", "exec"), names)  # noqa: S102 - our own text
        trainer = names.pop("trainer", None)
        if trainer is not None:
            fit(trainer)
            trained.append(trainer)
    assert len(trained) == 2
    assert "probe/embedding_sensitivity" in trained[0].callback_metrics
    assert "drift/cka_first" in trained[1].callback_metrics
    assert {path.name for path in tmp_path.glob("*.*")} == {"probe.json", "heatmap.png"}
    assert names["UnitFlips"]().name == "unit_flips"


def test_a_metric_of_ones_own_takes_fewer_than_15_lines_in_the_readme():
    (block,) = (block for block in blocks("python") if "class UnitFlips" in block)
    lines = [line for line in block[block.index("class UnitFlips") : block.index("probe = ")].splitlines() if line]
    assert len(lines) < 15


def test_the_readmes_yaml_is_part_of_the_example(tmp_path):
    (block,) = blocks("yaml")
    (shown,) = yaml.safe_load(block)["trainer"]["callbacks"]
    (whole,) = yaml.safe_load((ROOT / "examples/cli.yaml").read_text())["trainer"]["callbacks"]
    assert shown["class_path"] == whole["class_path"]
    shown_views, views = (each["init_args"]["bank"]["init_args"]["views"] for each in (shown, whole))
    assert shown_views == {name: views[name] for name in shown_views}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_relative_link_and_picture_exists(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not target.startswith("http")]
    assert [target for target in targets if not (ROOT / target).is_file()] == []


def test_the_picture_is_small():
    assert (ROOT / "docs/profile.png").stat().st_size < 100_000


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_and_tox_environment_that_is_named_exists(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    fenced = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
    code = " ".join(fenced.findall(text) + re.findall(r"`([^`]+)`", fenced.sub("", text)))
    files = re.findall(r"\b(?:examples|benchmarks|tests)/\w+\.\w+", code)
    assert [name for name in files if not (ROOT / name).is_file()] == []
    if not (ROOT / "tox.ini").is_file():
        pytest.skip("there is no tox.ini")
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    wanted = set(re.findall(r"tox (?:run )?-e (\w+)", code))
    assert wanted <= {name.removeprefix("testenv:") for name in tox.sections()}
    if document == "README.md":
        assert {"demo", "bench"} <= wanted


def test_every_measure_that_the_readme_names_is_a_default_one():
    table = README[README.index("| What happened") : README.index("All of them are measured by default")]
    named = set(re.findall(r"`(\w+)`", table))
    assert len(named) > 10
    assert named <= {metric.name for metric in resolve_metrics(None)}


def test_the_newest_version_of_the_changelog_is_that_of_the_package():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)
    assert newest[0] == "Unreleased"
    assert newest[1] == kornia_lightning_probe.__version__


def test_every_public_name_is_in_the_changelog():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    names = set(kornia_lightning_probe.__all__) - {"__version__", "View", "ProbeImages"}
    assert [name for name in sorted(names) if name not in text] == []


# The examples, as a newcomer runs them: any warning is a failure.


def run(folder, script, *arguments, warnings="error"):
    command = [sys.executable, "-W", warnings, str(ROOT / "examples" / script), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    done = subprocess.run(  # noqa: S603 - our own scripts
        command, capture_output=True, text=True, check=False, timeout=240, cwd=folder, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_measure_a_model_runs(tmp_path):
    said = run(tmp_path, "measure_a_model.py", "--steps", "2", "--output", "here")
    assert "120 images x 19 views x 5 layers" in said
    assert "change of sensitivity" in said
    assert {path.name for path in (tmp_path / "here").iterdir()} == {"photographs.json", "photographs.png"}


def test_own_metric_runs(tmp_path):
    pytest.importorskip("lightning")
    said = run(tmp_path, "own_metric.py")
    assert re.search(r"before training +conv1 0\.\d{3}", said)
    assert "known to monitors as probe_unit_flips/features: 0." in said
    assert list(tmp_path.iterdir()) == []


def test_cli_runs(tmp_path):
    pytest.importorskip("jsonargparse", reason="LightningCLI needs jsonargparse[signatures]")
    said = run(tmp_path, "cli.py", "fit", f"--config={ROOT / 'examples/cli.yaml'}", "--trainer.max_epochs=1")
    assert "64 images x 5 views x 5 layers, epoch 0" in said
    assert "severities: rotation 15, 45; blur 1, 2; hflip 1" in said
    assert (tmp_path / "demo_output/probe/epoch=-1-step=0.json").is_file()


@pytest.mark.slow
def test_digits_runs(tmp_path):
    said = run(tmp_path, "digits.py", "--epochs", "1", "--output", "here", warnings="default")
    assert "--- before training ---" in said
    assert {"profile.png", "heatmap.png", "severity.png", "bank.png"} <= {
        path.name for path in (tmp_path / "here").iterdir()
    }


# What the README says about the number and its traps, each on a model that hands its images on.


def measured(change, *, images=None, scale=1.0):
    """All measures of a layer that is the images, times `scale`, under a change of them."""
    images = images_of(32) if images is None else images
    bank = AugmentationBank({"change": change})
    model = nn.Sequential(nn.Identity())
    return probe_model(model, images, bank, layers="0", forward=lambda model, x: model(scale * x)).value


@pytest.mark.filterwarnings("ignore:.*change.* no pixel:UserWarning")
def test_zero_is_unmoved_and_one_is_another_image():
    assert measured(lambda x: x)("sensitivity", "0") == 0
    # The next image in place of each one: n/(n-1) in expectation, and exactly so over all rolls of a block.
    assert measured(lambda x: x.roll(1, 0))("sensitivity", "0") == pytest.approx(1, abs=0.02)


def test_it_grows_in_proportion_to_the_severity():
    bank = AugmentationBank({"towards grey": {a: lambda x, a=a: x + a * (0.5 - x) for a in (0.1, 0.2)}})
    torch.manual_seed(0)
    curve = probe_model(ResNet(), images_of(32), bank, layers="conv1", metrics="sensitivity").tensor("sensitivity")
    assert torch.allclose(curve[1] / curve[0], torch.tensor(2.0).double(), rtol=1e-4)


def test_erasure_reads_seven_tenths_and_its_spread_ratio_is_zero():
    value = measured(lambda x: x.mean(0, keepdim=True).expand_as(x))
    # d = |m - a|^2 and e = n/(n-1) |a - m|^2: S = sqrt((n-1) / 2n), n = 32.
    assert value("sensitivity", "0") == pytest.approx((31 / 64) ** 0.5, rel=1e-4)
    assert value("spread_ratio", "0") == pytest.approx(0, abs=1e-5)


def test_one_shift_for_all_has_a_shared_shift_of_one():
    value = measured(lambda x: x + 0.3, images=images_of(32) * 0.5)
    assert value("sensitivity", "0") > 0.7
    assert value("shared_shift", "0") == pytest.approx(1, abs=1e-3)


def test_a_loss_of_contrast_has_a_cosine_of_one():
    value = measured(lambda x: x.mean(0, keepdim=True) + 0.5 * (x - x.mean(0, keepdim=True)))
    # b - m = (a - m) / 2: S = (1 - 1/2) / sqrt 2, but for n/(n-1).
    assert value("sensitivity", "0") == pytest.approx(0.5 * (31 / 64) ** 0.5, rel=1e-4)
    assert value("cosine", "0") == pytest.approx(1, abs=1e-5)


def test_spread_knows_the_scale_that_sensitivity_does_not():
    one, ten = (measured(lambda x: x.flip(3), scale=scale) for scale in (1.0, 10.0))
    assert ten("sensitivity", "0") == pytest.approx(one("sensitivity", "0"), rel=1e-5)
    assert ten("spread", "0") == pytest.approx(10 * one("spread", "0"), rel=1e-5)


def test_a_channel_that_holds_the_variance_hides_the_others():
    images = 0.5 + 0.01 * (images_of(32, channels=16) - 0.5)
    images[:, 0] = torch.arange(32).view(-1, 1, 1) / 31

    def swap_the_others(x):
        return torch.cat([x[:, :1], x[:, 1:].roll(1, 0)], dim=1)

    with pytest.warns(UserWarning, match="one channel holds more than half of the variance"):
        value = probe_model(
            nn.Sequential(nn.Identity()), images, AugmentationBank({"swap": swap_the_others}), layers="0"
        ).value
    assert value("channel_dominance", "0") > 0.5
    assert value("sensitivity", "0") < 0.1
    assert value("sensitivity_median", "0") == pytest.approx(1, abs=0.2)


def test_a_map_that_moves_with_the_image_is_equivariant_and_its_pooled_features_stand_still():
    bank = AugmentationBank({"hflip": presets.hflip()})
    value = probe_model(nn.Sequential(nn.Identity()), images_of(32), bank, layers="0").value
    assert value("sensitivity", "0") > 0.9
    assert value("sensitivity_pooled", "0") == pytest.approx(0, abs=1e-3)
    assert value("equivariance_error", "0") == pytest.approx(0, abs=1e-3)


def test_retrieval_is_one_where_nothing_moves_and_half_by_chance():
    bank = AugmentationBank({"hardly": lambda x: 0.99 * x + 0.005, "other image": lambda x: x.roll(1, 0)})
    model = nn.Sequential(nn.Sequential(nn.AvgPool2d(8), nn.Flatten()), nn.Linear(48, 2))
    value = probe_model(model, images_of(512), bank, layers=["0", "1"]).value
    assert value("retrieval_auc", augmentation="hardly") == pytest.approx(1, abs=1e-3)
    assert value("retrieval_auc", augmentation="other image") == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("net", "metric"),
    [(ResNet, "flip_rate"), (ViT, "flip_rate"), (HuggingViT, "flip_rate"), (UNet, "sensitivity_pooled")],
)
def test_the_kinds_of_models_that_the_readme_names_are_measured(net, metric):
    torch.manual_seed(0)
    result = probe_model(net(), images_of(8, side=16), AugmentationBank({"hflip": presets.hflip()}))
    assert 6 <= len(result.layers) <= 24
    assert result.tensor("sensitivity").isfinite().all()
    assert metric in result.metrics
    if net is ViT:
        assert {"blocks.0:cls", "blocks.0:patch"} <= set(result.table("spread").layers)
