"""W&B offline: what a later upload would send is in one file for each run."""

import json

import pytest
import wandb
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from support.logged import FILES, assert_curves_arrived, assert_runs_keep_apart, awkward_probe, contents, run
from support.trainings import QUIET, fit, probe_of
from wandb.proto import wandb_internal_pb2

pytestmark = [
    *(pytest.mark.filterwarnings(line) for line in QUIET),
    # W&B's own, and what it uses.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

# The file is a log as LevelDB writes it: blocks, in them records of a checksum, a length and a kind.
_FRONT, _BLOCK, _HEAD = 7, 32768, 7
_WHOLE, _LAST = 1, 4


@pytest.fixture(autouse=True)
def _quiet(tmp_path, monkeypatch):
    for variable in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "wandb-of-its-own"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_CONSOLE", "off")
    yield
    end()


def end():
    """Finish the run, and its service with it, which writes the file when it ends."""
    wandb.finish()
    wandb.teardown()


def logger_in(folder):
    """A logger of a new run."""
    wandb.finish()
    return WandbLogger(save_dir=folder, project="digits", offline=True)


def records_in(content):
    """The records of such a file."""
    place, record = _FRONT, b""
    while place + _HEAD <= len(content):
        room = _BLOCK - place % _BLOCK
        if room < _HEAD:
            place += room
            continue
        length = int.from_bytes(content[place + 4 : place + 6], "little")
        kind = content[place + 6]
        record += content[place + _HEAD : place + _HEAD + length]
        place += _HEAD + length
        if kind in (_WHOLE, _LAST):
            yield wandb_internal_pb2.Record.FromString(record)
            record = b""


def found_in(folder, run_id):
    """The steps and values of each tag."""
    end()
    (path,) = folder.rglob(f"run-{run_id}.wandb")
    found = {}
    for record in records_in(path.read_bytes()):
        items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for tag, value in items.items():
            found.setdefault(tag, []).append((items.get("trainer/global_step"), value))
    return found


def test_curves_arrive_and_those_of_a_validation_have_tags_of_their_own(tmp_path):
    logger = logger_in(tmp_path)
    probe, _ = run(tmp_path, logger)
    assert_curves_arrived(found_in(tmp_path, logger.version), probe)


def test_each_run_has_its_files_beside_its_checkpoints(tmp_path):
    assert_runs_keep_apart(tmp_path, lambda: logger_in(tmp_path))


def test_awkward_names_arrive_as_they_are(tmp_path):
    logger = logger_in(tmp_path)
    fit(tmp_path, awkward_probe(), logger=logger, max_epochs=1)
    found = found_in(tmp_path, logger.version)
    assert [step for step, _ in found["probe_sensitivity_pooled_flip [1]: a/stem"]] == [0, 3]


def test_beside_another_logger_the_files_are_with_the_first(tmp_path):
    logger = logger_in(tmp_path / "first")
    probe, checkpoints = run(tmp_path, [logger, CSVLogger(tmp_path / "second", name="run")])
    assert_curves_arrived(found_in(tmp_path, logger.version), probe)
    assert checkpoints.parent == tmp_path / "first" / "digits" / logger.version
    assert len(contents(checkpoints.parent)) == len(contents(tmp_path)) == len(FILES)


def test_pictures_arrive_at_their_steps(tmp_path):
    pytest.importorskip("matplotlib")
    logger = logger_in(tmp_path)
    fit(tmp_path, probe_of(figures=True), logger=logger, max_epochs=1)
    found = found_in(tmp_path, logger.version)
    for tag, steps in {"history": [0, 3], "worst": [0, 3], "bank": [0]}.items():
        points = found[f"probe/{tag}/filenames"]
        assert [step for step, _ in points] == steps
        for _, (name,) in points:
            assert len(list(tmp_path.rglob(name))) == 1
