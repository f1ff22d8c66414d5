"""CSV, TensorBoard, both at once, and no logger: the curves and files of a training and its validation."""

import csv
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from support.logged import (
    FILES,
    assert_curves_arrived,
    assert_files_are_in,
    assert_runs_keep_apart,
    awkward_probe,
    contents,
    run,
)
from support.trainings import QUIET, fit, probe_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytestmark = [
    *(pytest.mark.filterwarnings(line) for line in QUIET),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning"),
]


def in_tensorboard(folder):
    """The steps and values of each tag, from all files of a run."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in tags}


def in_csv(folder):
    """The same of a CSV file."""
    found = {}
    with (Path(folder) / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            for tag, value in row.items():
                if value and tag != "step":
                    found.setdefault(tag, []).append((int(row["step"]), float(value)))
    return found


KINDS = {CSVLogger: in_csv, TensorBoardLogger: in_tensorboard}
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


@kinds
def test_curves_arrive_and_those_of_a_validation_have_tags_of_their_own(tmp_path, kind):
    logger = kind(tmp_path, name="run")
    probe, _ = run(tmp_path, logger)
    assert_curves_arrived(KINDS[kind](logger.log_dir), probe)


@kinds
def test_each_run_has_its_files_beside_its_checkpoints(tmp_path, kind):
    assert_runs_keep_apart(tmp_path, lambda: kind(tmp_path, name="run"))


@kinds
def test_awkward_names_arrive_as_they_are(tmp_path, kind):
    logger = kind(tmp_path, name="run")
    fit(tmp_path, awkward_probe(), logger=logger, max_epochs=1)
    found = KINDS[kind](logger.log_dir)
    assert [step for step, _ in found["probe_sensitivity_pooled_flip [1]: a/stem"]] == [0, 3]


@pytest.mark.parametrize(
    "order", [(CSVLogger, TensorBoardLogger), (TensorBoardLogger, CSVLogger)], ids=lambda order: order[0].__name__
)
def test_two_at_once_have_the_same_curves_and_the_files_are_with_the_first(tmp_path, order):
    loggers = [kind(tmp_path / kind.__name__, name="run") for kind in order]
    probe, checkpoints = run(tmp_path, loggers)
    for logger in loggers:
        assert_curves_arrived(KINDS[type(logger)](logger.log_dir), probe)
    assert checkpoints.parent == Path(loggers[0].log_dir)
    assert_files_are_in(checkpoints.parent / "probe", probe)
    assert len(contents(tmp_path)) == len(FILES)


def test_without_a_logger_two_runs_share_a_folder_and_lose_nothing(tmp_path):
    probe, checkpoints = run(tmp_path, False)
    assert checkpoints.parent == tmp_path
    assert_files_are_in(tmp_path / "probe", probe)
    before = contents(tmp_path)
    fit(tmp_path, probe_of(num_images=8), ModelCheckpoint(), enable_checkpointing=True)
    after = contents(tmp_path)
    assert {path: after[path] for path in before} == before
    assert len(after) == len(before) + 3
