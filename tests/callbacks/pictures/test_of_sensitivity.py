"""The pictures of a training: in every logger that takes some, in the probe's folder, and drawn on demand."""

from pathlib import Path

import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger
from support.trainings import QUIET, fit, loader, probe_of

from kornia_lightning_probe import ProbeResult

pytest.importorskip("matplotlib")

pytestmark = [pytest.mark.filterwarnings(line) for line in QUIET]


class ImageLogger(Logger):
    """A logger with `log_image`, that keeps the tags and steps of its pictures."""

    name, version = "run", 0

    def __init__(self):
        super().__init__()
        self.pictures = []

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params):
        pass

    def log_image(self, key, images, step=None):
        self.pictures.append((key, step))


def steps_of(logger, tag):
    return [step for key, step in logger.pictures if key == tag]


def test_any_logger_with_log_image_gets_each_picture_and_that_of_the_bank_once(tmp_path):
    logger = ImageLogger()
    trainer = fit(tmp_path, probe_of(figures=True), logger=logger)
    trainer.validate(trainer.lightning_module, loader(seed=1), verbose=False)
    assert steps_of(logger, "probe/layers") == steps_of(logger, "probe/history") == [0, 3, 7]
    assert steps_of(logger, "probe/worst") == [0, 3, 7]
    assert steps_of(logger, "probe/bank") == [0]
    # A validation has no history.
    assert steps_of(logger, "probe_validate/layers") == steps_of(logger, "probe_validate/worst") == [8]
    assert steps_of(logger, "probe_validate/history") == []


def test_tensorboard_gets_the_history_as_a_card(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit(tmp_path, probe_of(figures=True), logger=TensorBoardLogger(tmp_path, name="run"))
    (path,) = Path(tmp_path).rglob("events.out*")
    found = EventAccumulator(str(path)).Reload()
    assert [image.step for image in found.Images("probe/history")] == [0, 3, 7]
    # 4.4 inches of 160 pixels.
    assert {image.width for image in found.Images("probe/history")} == {704}


def test_a_file_of_the_training_draws_its_worst_images(tmp_path):
    probe = probe_of()
    fit(tmp_path, probe, max_epochs=1)
    read = ProbeResult.from_json(tmp_path / "probe" / "fit-epoch=0-step=3.json")
    assert read.plot("worst").get_suptitle() == probe.result.plot("worst").get_suptitle()


def test_without_a_logger_the_history_is_a_file_that_is_renewed(tmp_path):
    from matplotlib.image import imread

    fit(tmp_path, probe_of(figures=True), max_epochs=1)
    path = tmp_path / "probe" / "history.png"
    assert imread(path).ndim == 3
    before = path.read_bytes()
    fit(tmp_path, probe_of(figures=True), max_epochs=2)
    assert path.read_bytes() != before
    assert not list(path.parent.glob(".*"))


def test_without_figures_or_in_a_trial_there_is_no_picture(tmp_path):
    logger = ImageLogger()
    fit(tmp_path, probe_of(figures=False), logger=logger, max_epochs=1)
    fit(tmp_path, probe_of(figures=True), logger=logger, fast_dev_run=True)
    assert logger.pictures == []
    assert not list(tmp_path.rglob("*.png"))


def test_a_history_that_can_not_be_drawn_is_a_warning_and_the_training_goes_on(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("matplotlib has refused")

    monkeypatch.setattr("kornia_lightning_probe.reporting.figures.over_epochs.history.plot_history", refuse)
    probe = probe_of(figures=True)
    with pytest.warns(UserWarning, match=r"could not write 'history.png' \(ValueError: matplotlib has refused"):
        fit(tmp_path, probe)
    assert len(probe.history) == 3


def test_without_matplotlib_and_logger_that_is_said_once(tmp_path, monkeypatch):
    monkeypatch.setattr("kornia_lightning_probe.callbacks.logbook.find_spec", lambda _: None)
    with pytest.warns(UserWarning, match="no figures of the probe, as matplotlib is not installed") as said:
        fit(tmp_path, probe_of(figures=True))
    assert sum("no figures" in str(warning.message) for warning in said) == 1


def test_the_probe_draws_its_history_and_what_its_latest_result_draws(tmp_path):
    probe = probe_of()
    for kind in ("history", "heatmap"):
        with pytest.raises(ValueError, match="there is no result to draw; a SensitivityProbe has one after its first"):
            probe.plot(kind)
    fit(tmp_path, probe)
    assert "over the training" in probe.plot().get_suptitle()
    assert "epoch 1" in probe.plot("heatmap").get_supxlabel()
    with pytest.raises(ValueError, match="no kind of plot 'hist'"):
        probe.plot("hist")
