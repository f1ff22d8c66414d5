"""MLflow on this machine: in a database, and in files, as earlier versions of it do."""

import pytest
from lightning.pytorch.loggers import MLFlowLogger
from mlflow.tracking import MlflowClient
from support.logged import assert_curves_arrived, assert_runs_keep_apart, awkward_probe, run
from support.trainings import QUIET, fit, probe_of

pytestmark = [
    *(pytest.mark.filterwarnings(line) for line in QUIET),
    # MLflow's own, and what it uses.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(params=["database", "files"])
def place(tmp_path, request, monkeypatch):
    """Where MLflow keeps its runs."""
    if request.param == "files":
        # MLflow 3 keeps them for those who ask.
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        return (tmp_path / "runs").as_uri()
    return f"sqlite:///{tmp_path}/runs.db"


def found_in(logger):
    """The steps and values of each tag."""
    client = MlflowClient(logger._tracking_uri)
    found = {}
    for tag in client.get_run(logger.run_id).data.metrics:
        points = [(metric.step, metric.value) for metric in client.get_metric_history(logger.run_id, tag)]
        found[tag] = sorted(points)
    return found


def test_curves_arrive_and_those_of_a_validation_have_tags_of_their_own(tmp_path, place):
    logger = MLFlowLogger("digits", tracking_uri=place)
    probe, _ = run(tmp_path, logger)
    assert_curves_arrived(found_in(logger), probe)


def test_each_run_has_its_files_beside_its_checkpoints(tmp_path, place):
    assert_runs_keep_apart(tmp_path, lambda: MLFlowLogger("digits", tracking_uri=place))


@pytest.mark.filterwarnings("ignore:MLFlow only allows:RuntimeWarning")
def test_awkward_names_arrive_without_what_mlflow_refuses(tmp_path, place):
    logger = MLFlowLogger("digits", tracking_uri=place)
    fit(tmp_path, awkward_probe(), logger=logger, max_epochs=1)
    found = found_in(logger)
    assert [step for step, _ in found["probe_sensitivity_pooled_flip 1 a/stem"]] == [0, 3]


def test_pictures_arrive_as_files_of_their_step(tmp_path, place):
    pytest.importorskip("matplotlib")
    logger = MLFlowLogger("digits", tracking_uri=place, artifact_location=(tmp_path / "artifacts").as_uri())
    fit(tmp_path, probe_of(figures=True), logger=logger, max_epochs=1)
    client = MlflowClient(logger._tracking_uri)
    for tag, steps in {"history": (0, 3), "worst": (0, 3), "bank": (0,)}.items():
        files = [artifact.path for artifact in client.list_artifacts(logger.run_id, f"probe/{tag}")]
        assert sorted(files) == [f"probe/{tag}/step={step:06d}.png" for step in steps]
