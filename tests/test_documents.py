"""README, guides, CHANGELOG and the examples: their code runs, their links lead somewhere."""

import configparser
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import pytest
import torch
import yaml
from support.nets import ImageAndMask, LeftAndRight, ResNet
from support.trainings import QUIET, Net
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import kornia_lightning_probe
from kornia_lightning_probe import presets
from kornia_lightning_probe.cli.commands import COMMANDS
from kornia_lightning_probe.cli.main import main
from kornia_lightning_probe.metrics import resolve_metrics

ROOT = Path(__file__).parents[1]
PACKAGE = Path(kornia_lightning_probe.__file__).parent
README = "README.md"
GUIDES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
PAGES = [README, *GUIDES]
DOCUMENTS = [*PAGES, "CHANGELOG.md", "CONTRIBUTING.md"]
TEXTS = {document: (ROOT / document).read_text(encoding="utf-8") for document in DOCUMENTS}
MOST_WORDS = 1200

pytestmark = [
    *(pytest.mark.filterwarnings(line) for line in QUIET),
    # Said where a Trainer without options meets a small data set and the machine has other loggers and cores.
    pytest.mark.filterwarnings("ignore:.*The number of training batches.*is smaller than the logging interval.*"),
    pytest.mark.filterwarnings("ignore:Precision bf16-mixed is not supported by the model summary.*"),
]


def blocks(document, language):
    """The code blocks of a document, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXTS[document], re.MULTILINE | re.DOTALL)


def images_of():
    return torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Wide(Net):
    """The training that the README leaves to its reader, on images of 32 x 32."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Conv2d(4, 24, 2), nn.ReLU(), nn.Flatten())


def fit(trainer):
    """Train on images that are normalised as the page's bank says."""
    banks = [callback.bank for callback in trainer.callbacks if hasattr(callback, "bank")]
    images = banks[0].pixels.from_unit(images_of(), dtype=torch.float32) if banks else images_of()
    data = DataLoader(TensorDataset(images, torch.arange(64) % 2), batch_size=16)
    trainer.fit(Wide(), data, data)


def readers_own():
    """What the pages leave to their reader: a model and images, in every form that is shown."""
    torch.manual_seed(0)
    return {
        "model": ResNet(),
        "images": images_of(),
        "segmenter": ImageAndMask(),
        "matcher": LeftAndRight(),
        "masks": torch.ones(64, 1, 32, 32),
        "left": images_of(),
        "right": images_of().flip(0),
    }


def run_page(document):
    """Run a page's Python from top to bottom; its names, and its Trainers after their training."""
    names, trained = readers_own(), []
    for number, block in enumerate(blocks(document, "python")):
        exec(compile(block, f"{document}, python block {number}", "exec"), names)  # noqa: S102 - our own text
        trainer = names.pop("trainer", None)
        if trainer is not None:
            if not trainer.state.finished:
                fit(trainer)
            trained.append(trainer)
    return names, trained


@pytest.fixture
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    return tmp_path


def test_the_readmes_python_runs_from_top_to_bottom(in_a_folder):
    _, (trainer,) = run_page(README)
    assert "probe/embedding_sensitivity" in trainer.callback_metrics
    assert {path.name for path in in_a_folder.glob("*.*")} == {"heatmap.png"}


OWN_TESTS = ("docs/callbacks.md", "docs/your_own_metric.md")


@pytest.mark.parametrize(
    "guide",
    # The nets of case studies are in the environment `zoo`, and so are their tests.
    [guide for guide in GUIDES if guide not in OWN_TESTS and "case_studies" not in guide],
)
def test_the_python_of_every_guide_runs_from_top_to_bottom(in_a_folder, guide):
    names, trained = run_page(guide)
    # A page that has a Trainer has been trained with it, and another one has left something behind.
    assert trained or set(names) > set(readers_own()) or not blocks(guide, "python")


def test_the_metric_of_ones_own_has_the_severity_curves_of_its_quantity(in_a_folder):
    names, _ = run_page("docs/your_own_metric.md")
    # Where an augmentation does nothing no unit flips, so that a preset's curve starts at severity 0.
    assert names["rotation"].start == 0
    assert names["rotation"].worst_severity in (5, 15, 30)
    assert names["result"].table("unit_flips").quantity == names["UnitFlips"].quantity
    assert (in_a_folder / "unit_flips.png").is_file()


def test_a_metric_of_ones_own_takes_fewer_than_15_lines():
    (block,) = (block for block in blocks("docs/your_own_metric.md", "python") if "class UnitFlips" in block)
    lines = [line for line in block[block.index("class UnitFlips") : block.index("probe = ")].splitlines() if line]
    assert len(lines) < 15


def test_every_tag_that_the_callbacks_page_lists_is_logged(in_a_folder):
    names, (trainer, watched) = run_page("docs/callbacks.md")
    listed = set(re.findall(r"^\| (`.*?`) \|", TEXTS["docs/callbacks.md"], re.MULTILINE))
    tags = {tag for cell in listed for tag in re.findall(r"`(.+?)`", cell)}
    assert len(tags) > 10
    summaries = {tag for tag in tags if "{" not in tag}
    assert summaries <= set(trainer.callback_metrics)
    curves = {tag.format(layer="head", augmentation="rotation") for tag in tags - summaries}
    assert curves <= logged_in(in_a_folder)
    assert names["tag"] in watched.callback_metrics


def logged_in(folder):
    """The tags in the event files under a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tags = set()
    for path in folder.rglob("events.out*"):
        events = EventAccumulator(str(path))
        tags |= set(events.Reload().Tags()["scalars"])
    return tags


def test_the_commands_of_their_page_run_from_top_to_bottom(in_a_folder, capsys):
    pytest.importorskip("jsonargparse")
    page = "docs/command_line.md"
    run_page(page)
    lines = [line.removeprefix("$ ") for block in blocks(page, "console") for line in block.splitlines()]
    assert {shlex.split(line)[1] for line in lines} == set(COMMANDS)
    # A few made-up images move furthest, of which the probe warns.
    assert [main(shlex.split(line)[1:]) for line in lines] == [0] * len(lines), capsys.readouterr().err
    assert {path.name for path in (in_a_folder / "probed").glob("*.json")} == {"step=9.json", "step=10.json"}
    assert (in_a_folder / "probe.png").is_file()


def test_the_yaml_of_the_callbacks_page_is_part_of_the_example():
    (block,) = blocks("docs/callbacks.md", "yaml")
    (shown,) = yaml.safe_load(block)["trainer"]["callbacks"]
    (whole,) = yaml.safe_load((ROOT / "examples/cli.yaml").read_text())["trainer"]["callbacks"]
    assert shown["class_path"] == whole["class_path"]
    shown_views, views = (each["init_args"]["bank"]["init_args"]["views"] for each in (shown, whole))
    assert shown_views == {name: views[name] for name in shown_views}


def test_the_readme_is_read_in_five_minutes():
    assert len(TEXTS[README].split()) <= MOST_WORDS


def anchors_of(text):
    """The anchors that GitHub makes of headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_relative_link_leads_to_a_file_and_every_anchor_to_a_heading(document):
    folder = (ROOT / document).parent
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[document]):
        path, _, anchor = target.partition("#")
        if target.startswith("http"):
            continue
        linked = folder / path if path else ROOT / document
        assert linked.is_file(), f"{document} links to {target}"
        assert not anchor or anchor in anchors_of(linked.read_text(encoding="utf-8")), f"{document} links to {target}"


def test_the_readme_links_to_every_guide():
    pages = [guide for guide in GUIDES if guide.count("/") == 1]
    assert [guide for guide in pages if f"({guide})" not in TEXTS[README]] == []


def test_the_picture_is_small():
    assert (ROOT / "docs/profile.png").stat().st_size < 100_000


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_and_tox_environment_that_is_named_exists(document):
    text = TEXTS[document]
    fenced = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
    code = " ".join(fenced.findall(text) + re.findall(r"`([^`]+)`", fenced.sub("", text)))
    files = re.findall(r"\b(?:examples|benchmarks|tests)/[\w/]+\.\w+", code)
    assert [name for name in files if not (ROOT / name).is_file()] == []
    if not (ROOT / "tox.ini").is_file():
        pytest.skip("there is no tox.ini")
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    wanted = set(re.findall(r"tox (?:run )?-e (\w+)", code))
    assert wanted <= {name.removeprefix("testenv:") for name in tox.sections()}
    if document == README:
        assert "demo" in wanted
    if document == "docs/cost.md":
        assert "bench" in wanted


def test_every_measure_that_has_a_trap_is_a_default_one():
    text = TEXTS["docs/reading_the_numbers.md"]
    table = text[text.index("| What happened") : text.index("All of them are measured by default")]
    named = set(re.findall(r"`(\w+)`", table))
    assert len(named) > 10
    assert named <= {metric.name for metric in resolve_metrics(None)}


def test_the_ladders_that_are_listed_are_all_that_there_are():
    text = TEXTS["docs/augmentations.md"]
    listed = re.findall(r"`(\w+)`", text[text.index("There are `hflip`") : text.index("Ladders that need")])
    assert sorted(listed) == sorted(set(presets.__all__) - {"NEEDS_RGB", "preset_ladders"})


def test_the_table_of_presets_has_what_they_hold():
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| ([\w, ]+) \|$", TEXTS["docs/augmentations.md"], re.MULTILINE)
    assert [name for name, _, _ in rows] == ["default", "photometric", "geometric", "corruptions"]
    for name, count, augmentations in rows:
        views = list(kornia_lightning_probe.AugmentationBank.preset(name))
        assert len(views) == int(count)
        assert list(dict.fromkeys(view.augmentation for view in views)) == augmentations.split(", ")


def test_a_metric_of_ones_own_stays_under_fifteen_lines():
    page = re.search(r"^class UnitFlips.*?\n\n\n", TEXTS["docs/your_own_metric.md"], re.MULTILINE | re.DOTALL)[0]
    example = (ROOT / "examples/own_metric.py").read_text(encoding="utf-8")
    script = re.search(r"^class UnitFlips.*?\n\n\n", example, re.MULTILINE | re.DOTALL)[0]
    for text in (page, script):
        assert len([line for line in text.splitlines() if line.strip()]) < 15


def test_the_table_of_where_things_go_has_eight_lines_of_at_most_three_places_that_exist():
    text = TEXTS["CONTRIBUTING.md"]
    table = re.search(r"^\| To add .*?\n\n", text, re.MULTILINE | re.DOTALL)[0]
    lines = table.strip().splitlines()[2:]
    assert len(lines) == 8
    for line in lines:
        places = re.findall(r"`([\w/]+(?:/|\.py))`", line)
        assert 1 <= len(places) <= 3, line
        assert [place for place in places if not (PACKAGE / place).exists()] == []


def test_the_newest_version_of_the_changelog_is_that_of_the_package():
    newest = re.findall(r"^## \[(.+?)\]", TEXTS["CHANGELOG.md"], re.MULTILINE)
    assert newest[0] == "Unreleased"
    assert newest[1] == kornia_lightning_probe.__version__


def test_every_public_name_is_in_the_changelog():
    names = set(kornia_lightning_probe.__all__) - {"__version__", "View", "ProbeImages"}
    assert [name for name in sorted(names) if name not in TEXTS["CHANGELOG.md"]] == []


# The examples, as a newcomer runs them: any warning is a failure.


def run(folder, script, *arguments, warnings="error"):
    command = [sys.executable, "-W", warnings, str(ROOT / "examples" / script), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    done = subprocess.run(  # noqa: S603 - our own scripts
        command, capture_output=True, text=True, check=False, timeout=240, cwd=folder, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_measure_a_model_runs(tmp_path):
    # A few crops speak for all logits, of which the probe warns.
    said = run(tmp_path, "measure_a_model.py", "--steps", "2", "--output", "here", warnings="default")
    assert "120 images x 19 views x 5 layers" in said
    assert "change of sensitivity" in said
    assert {path.name for path in (tmp_path / "here").iterdir()} == {
        "photographs.images.npz",
        "photographs.json",
        "photographs.png",
    }


def test_own_metric_runs(tmp_path):
    pytest.importorskip("lightning")
    said = run(tmp_path, "own_metric.py")
    assert re.search(r"features +mean height 0\.\d{3}, most at 45 degrees", said)
    assert re.search(r"before training +conv1 0\.\d{3}", said)
    assert "known to monitors as probe_unit_flips/features: 0." in said
    assert list(tmp_path.iterdir()) == []


def test_cli_runs(tmp_path):
    pytest.importorskip("jsonargparse", reason="LightningCLI needs jsonargparse[signatures]")
    said = run(tmp_path, "cli.py", "fit", f"--config={ROOT / 'examples/cli.yaml'}", "--trainer.max_epochs=1")
    assert "64 images x 5 views x 5 layers, epoch 0" in said
    assert "severities: rotation 15, 45; blur 1, 2; hflip" in said
    assert (tmp_path / "demo_output/probe/fit-epoch=-1-step=0.json").is_file()


@pytest.mark.slow
def test_the_demo_says_in_forty_lines_what_it_found_and_where_everything_is(tmp_path):
    # As its users run it: whatever warns is seen.
    said = run(tmp_path, "digits.py", "--output", "here", warnings="default")
    lines = said.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    titles = ["before training", "trained", "trained with rotation"]
    assert [line for line in lines if line in titles] == titles
    assert "About 90 s on two cores" in " ".join(lines[: lines.index("before training")])
    (first,) = [line for line in lines if line.startswith("open first: ")]
    assert (tmp_path / first.removeprefix("open first: ").strip()).is_file()
    assert {"profile.png", "bank.png", "plain", "rotate"} <= {path.name for path in (tmp_path / "here").iterdir()}
    (start,) = [line for line in lines if line.startswith("TensorBoard: ")]
    python, *arguments = start.removeprefix("TensorBoard: ").split()
    shown = subprocess.run([python, *arguments, "--version_tb"], cwd=tmp_path, capture_output=True, check=True)  # noqa: S603
    assert shown.returncode == 0
    for word in ("Warning", "warning", "Tip", "litlogger", "GPU"):
        assert word not in said
