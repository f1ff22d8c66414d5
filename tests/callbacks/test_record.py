"""A probe's files: each result has one of its own, in the run's folder, and none replaces another."""

from pathlib import Path

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.logger import DummyLogger
from support.trainings import QUIET, Net, assert_same_numbers, fit, loader, probe_of, trainer_of, validate

from kornia_lightning_probe import ProbeResult
from kornia_lightning_probe.callbacks.record import write_new

pytestmark = [
    *(pytest.mark.filterwarnings(line) for line in QUIET),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create:UserWarning"),
]


def names(folder):
    """The results in a folder; each image's part lies beside each."""
    found = sorted(path.name for path in Path(folder).glob("*.json"))
    rest = sorted(path.name for path in Path(folder).iterdir() if path.suffix != ".json")
    assert rest in ([], sorted(name.replace(".json", ".images.npz") for name in found))
    return found


def test_each_result_is_a_file_in_the_folder_of_the_run(tmp_path):
    probe = probe_of(name="layers")
    trainer = fit(tmp_path, probe, logger=CSVLogger(tmp_path, name="run"))
    trainer.test(trainer.lightning_module, loader(seed=2), verbose=False)
    stems = ["fit-epoch=-1-step=0", "fit-epoch=0-step=3", "fit-epoch=1-step=7", "test-epoch=2-step=8"]
    folder = tmp_path / "run" / "version_0" / "layers"
    assert names(folder) == sorted(f"{stem}.json" for stem in stems)
    for stem, result in zip(stems, [*probe.history, *probe.tests], strict=True):
        read = ProbeResult.from_json(folder / f"{stem}.json")
        assert_same_numbers(read, result)
        assert len(read.worst_images()) == 6
        assert read.metadata == result.metadata


def test_without_a_logger_the_files_are_in_the_default_root_directory(tmp_path):
    fit(tmp_path, probe_of(at_start=False), max_epochs=1)
    assert names(tmp_path / "probe") == ["fit-epoch=0-step=3.json"]


class SharedFolder(DummyLogger):
    """A logger as those of W&B and MLflow: all runs have one folder."""

    def __init__(self, folder, version):
        super().__init__()
        self.folder, self.run = folder, version

    @property
    def save_dir(self):
        return str(self.folder)

    @property
    def name(self):
        return "project"

    @property
    def version(self):
        return self.run


def test_two_runs_whose_loggers_share_a_folder_keep_their_files_beside_their_checkpoints(tmp_path):
    for version in ("a", "b"):
        keep = ModelCheckpoint()
        fit(
            tmp_path,
            probe_of(),
            keep,
            logger=SharedFolder(tmp_path, version),
            enable_checkpointing=True,
            max_epochs=1,
        )
        assert Path(keep.dirpath) == tmp_path / "project" / version / "checkpoints"
        assert len(names(tmp_path / "project" / version / "probe")) == 2


@pytest.mark.filterwarnings("ignore:probe_validate/spread was relative to:UserWarning")
def test_validating_three_times_leaves_three_files(tmp_path):
    probe = probe_of()
    for seed in (1, 2, 3):
        validate(tmp_path, probe, val=loader(seed=seed))
    stem = "validate-epoch=0-step=0"
    assert names(tmp_path / "probe") == sorted([f"{stem}.json", f"{stem}-1.json", f"{stem}-2.json"])
    hashes = {ProbeResult.from_json(path).metadata["content_hash"] for path in (tmp_path / "probe").glob("*.json")}
    assert len(hashes) == 3


def test_two_trainings_in_one_folder_keep_their_files_and_are_told_apart_by_their_run(tmp_path):
    first, second = probe_of(), probe_of(num_images=8)
    fit(tmp_path, first, max_epochs=1)
    before = {path.name: path.read_text() for path in (tmp_path / "probe").glob("*.json")}
    fit(tmp_path, second, max_epochs=1)
    assert len(names(tmp_path / "probe")) == 4
    assert {name: (tmp_path / "probe" / name).read_text() for name in before} == before
    runs = {}
    for path in (tmp_path / "probe").glob("*.json"):
        result = ProbeResult.from_json(path)
        runs.setdefault(result.metadata["run"], []).append(result.metadata["num_images"])
    assert sorted(runs.values()) == [[8, 8], [16, 16]]
    assert runs[first.result.metadata["run"]] == [16, 16]


def test_a_resumed_training_is_the_same_run_and_its_test_too(tmp_path):
    first, resumed, fresh = probe_of(), probe_of(), probe_of()
    fit(tmp_path, first, ModelCheckpoint(tmp_path, filename="last"), enable_checkpointing=True, max_epochs=1)
    trainer = fit(tmp_path, resumed, ckpt_path=tmp_path / "last.ckpt", max_epochs=2)
    trainer.test(trainer.lightning_module, loader(seed=2), verbose=False)
    trainer_of(tmp_path, fresh).test(Net(), loader(seed=2), ckpt_path=tmp_path / "last.ckpt", verbose=False)
    results = [*first.history, *resumed.history, *resumed.tests, *fresh.tests]
    assert len(results) == 2 + 3 + 1 + 1
    assert len({result.metadata["run"] for result in results}) == 1


def test_a_new_training_with_the_same_object_is_another_run(tmp_path):
    probe = probe_of()
    fit(tmp_path, probe, max_epochs=1)
    run = probe.result.metadata["run"]
    fit(tmp_path, probe, max_epochs=1)
    assert probe.result.metadata["run"] != run
    assert len({result.metadata["run"] for result in probe.history}) == 1


@pytest.mark.parametrize("links", [True, False], ids=["with links", "on a file system without links"])
def test_a_file_is_never_written_over(tmp_path, monkeypatch, links):
    if not links:

        def refuse(self, target):
            raise PermissionError("no links here")

        monkeypatch.setattr(Path, "hardlink_to", refuse)
    written = [write_new(tmp_path / "new", "result", text) for text in ("one", "two", "three")]
    assert [path.name for path in written] == ["result.json", "result-1.json", "result-2.json"]
    assert [path.read_text() for path in written] == ["one", "two", "three"]
    assert len(names(tmp_path / "new")) == 3


def test_where_writing_fails_half_way_nothing_is_left_and_what_was_there_is_whole(tmp_path, monkeypatch):
    write_new(tmp_path, "result", "one")

    def fill(self, text, encoding=None):
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fill)
    with pytest.raises(OSError, match="No space left"):
        write_new(tmp_path, "result", "two")
    assert names(tmp_path) == ["result.json"]
    assert (tmp_path / "result.json").read_text() == "one"


def test_where_a_file_without_links_cannot_be_moved_no_empty_one_is_left(tmp_path, monkeypatch):
    def refuse(self, target):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        write_new(tmp_path, "result", "one")
    assert names(tmp_path) == []


def test_a_folder_of_another_machine_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match=r"s3://bucket/probe is not a folder of this machine"):
        write_new("s3://bucket/probe", "result", "{}")
    assert names(tmp_path) == []
