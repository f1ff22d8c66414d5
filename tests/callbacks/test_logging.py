"""What SensitivityProbe leaves behind: curves, summaries, pictures and files, and the line that says what it cost."""

import csv
import logging
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from support.trainings import LAYERS, QUIET, LoggedCalls, Net, assert_same_numbers, fit, loader, probe_of, trainer_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kornia_lightning_probe import DriftProbe
from kornia_lightning_probe.callbacks.summaries import work_ahead

pytestmark = [pytest.mark.filterwarnings(line) for line in QUIET]

SECTIONS = ("probe_sensitivity", "probe_sensitivity_rotation", "probe_sensitivity_flip")
CURVES = {f"{section}/{layer}" for section in SECTIONS for layer in LAYERS}
SUMMARIES = {f"probe/{name}" for name in ("embedding_sensitivity", "spread", "flip_rate", "accuracy_drop", "seconds")}


def events(folder):
    (run,) = {path.parent for path in Path(folder).rglob("events.out.tfevents.*")}
    accumulator = EventAccumulator(str(run), size_guidance={"images": 0, "scalars": 0})
    accumulator.Reload()
    return accumulator


def test_tensorboard_has_every_curve_at_lightnings_own_steps(tmp_path):
    probe = probe_of()
    fit(tmp_path, probe, logger=TensorBoardLogger(tmp_path, name="run"))
    found = events(tmp_path)
    tags = found.Tags()["scalars"]
    assert set(tags) >= CURVES | SUMMARIES
    for tag in sorted(CURVES | SUMMARIES):
        assert [event.step for event in found.Scalars(tag)] == [0, 3, 7], tag
    # The curve of Lightning's own validation loss has the same steps, but for the start.
    assert [event.step for event in found.Scalars("val/loss")] == [3, 7]
    written = [event.value for event in found.Scalars("probe_sensitivity_rotation/body")]
    measured = [result.value("sensitivity", "body", "rotation") for result in probe.history]
    assert written == pytest.approx(measured, rel=1e-6)


def test_a_csv_file_has_every_curve(tmp_path):
    probe = probe_of()
    fit(tmp_path, probe, logger=CSVLogger(tmp_path, name="run"))
    (path,) = tmp_path.rglob("metrics.csv")
    with path.open() as file:
        rows = [row for row in csv.DictReader(file) if row["probe_sensitivity/stem"]]
    assert [int(row["step"]) for row in rows] == [0, 3, 7]
    written = [float(row["probe_sensitivity/stem"]) for row in rows]
    assert written == pytest.approx([result.value("sensitivity", "stem") for result in probe.history])


def test_every_logger_gets_the_same_keys_in_every_epoch(tmp_path):
    loggers = [LoggedCalls(), LoggedCalls()]
    fit(tmp_path, probe_of(), logger=loggers)
    for logger in loggers:
        calls = logger.of("probe")
        curves = [(set(values) - SUMMARIES, step) for values, step in calls if CURVES & set(values)]
        assert curves == [(CURVES, 0), (CURVES, 3), (CURVES, 7)]
        # At the start there is no epoch for Lightning's own log, so they go with the curves; then through it.
        summaries = [(SUMMARIES & set(values), step) for values, step in calls if SUMMARIES & set(values)]
        assert summaries == [(SUMMARIES, 0), (SUMMARIES, 3), (SUMMARIES, 7)]


def test_summaries_say_embedding_spread_predictions_and_seconds(tmp_path):
    probe = probe_of()
    trainer = fit(tmp_path, probe)
    result, first = probe.result, probe.history[0]
    assert result.metadata["embedding"] == "body"
    summaries = {tag: float(trainer.callback_metrics[tag]) for tag in SUMMARIES}
    assert summaries["probe/embedding_sensitivity"] == pytest.approx(result.value("sensitivity", "body"), rel=1e-6)
    spread = result.value("spread", "body") / first.value("spread", "body")
    assert summaries["probe/spread"] == pytest.approx(spread, rel=1e-6)
    assert summaries["probe/flip_rate"] == pytest.approx(result.value("flip_rate"), rel=1e-6)
    assert summaries["probe/accuracy_drop"] == pytest.approx(result.value("accuracy_drop"), rel=1e-6)
    assert 0 < summaries["probe/seconds"] < 60


def test_the_embedding_can_be_named(tmp_path):
    trainer = fit(tmp_path, probe := probe_of(embedding="stem"), max_epochs=1)
    expected = probe.result.value("sensitivity", "stem")
    assert float(trainer.callback_metrics["probe/embedding_sensitivity"]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "metrics"), [("layers", ["sensitivity"]), ("all", ["sensitivity", "spread"]), ("summary", [])]
)
def test_log_curves_chooses_the_metrics(tmp_path, kind, metrics):
    recorder = LoggedCalls()
    fit(tmp_path, probe_of(log_curves=kind, metrics=("sensitivity", "spread")), logger=recorder, max_epochs=1)
    tags = {tag for values, _ in recorder.of("probe") for tag in values} - SUMMARIES
    augmentations = ("", "_rotation", "_flip")
    assert {tag for tag in tags if "sensitivity" in tag} == (
        {f"probe_sensitivity{name}/{layer}" for name in augmentations for layer in LAYERS} if metrics else set()
    )
    assert any("spread" in tag for tag in tags) == ("spread" in metrics)


def test_above_200_curves_only_the_means_over_views_are_logged(tmp_path):
    model = Net()
    model.stem.extend([torch.nn.ReLU() for _ in range(65)])
    recorder = LoggedCalls()
    # 68 layers in the stem; for each the mean over the views and those of two augmentations.
    with pytest.warns(UserWarning, match=r"probe: 204 curves are more than 200, so only the 68 means") as caught:
        fit(tmp_path, probe_of(layers="stem.*"), model=model, logger=recorder)
    tags = {tag for values, _ in recorder.of("probe") for tag in values} - SUMMARIES
    assert len(tags) == 68
    assert {tag.split("/")[0] for tag in tags} == {"probe_sensitivity"}
    assert sum("204 curves" in str(warning.message) for warning in caught) == 1


def test_a_probe_of_another_metric_logs_only_its_time(tmp_path):
    trainer = fit(tmp_path, probe_of(metrics="relative_change"), max_epochs=1)
    assert {tag for tag in trainer.callback_metrics if "probe" in tag} == {"probe/seconds"}


def test_a_monitored_curve_is_known_in_the_same_epoch_and_drawn_once(tmp_path):
    recorder = LoggedCalls()
    tag = "probe_sensitivity_flip/head"
    probe = probe_of(monitor=[tag])
    trainer = fit(tmp_path, probe, logger=recorder, max_epochs=1)
    expected = probe.result.value("sensitivity", "head", "flip")
    assert float(trainer.callback_metrics[tag]) == pytest.approx(expected, rel=1e-6)
    assert [step for values, step in recorder.of("probe") if tag in values] == [0, 3]


def test_a_monitored_curve_that_is_not_among_the_logged_ones_is_drawn_all_the_same(tmp_path):
    recorder = LoggedCalls()
    fit(tmp_path, probe_of(monitor="probe_spread/head", log_curves="summary"), logger=recorder, max_epochs=1)
    assert [step for values, step in recorder.of("probe") if "probe_spread/head" in values] == [0, 3]


def test_a_monitored_curve_that_does_not_exist_stops_before_the_first_step(tmp_path):
    trainer = trainer_of(tmp_path, probe_of(monitor=["probe_sensitivity/heat"]))
    with pytest.raises(MisconfigurationException, match=r"monitor: .*heat.*probe_sensitivity/head"):
        trainer.fit(Net(), loader(), loader(seed=1))
    assert trainer.global_step == 0


class Worse(EarlyStopping):
    """Stops as soon as a value exists: its threshold is below every one."""

    def __init__(self, monitor):
        super().__init__(monitor, stopping_threshold=1e9, mode="min", check_on_train_epoch_end=False)


@pytest.mark.parametrize("tag", ["probe/embedding_sensitivity", "probe_sensitivity/head"])
def test_early_stopping_acts_on_a_probe_value_in_the_same_epoch(tmp_path, tag):
    probe = probe_of(monitor=["probe_sensitivity/head"])
    trainer = fit(tmp_path, Worse(tag), probe, max_epochs=5)
    assert trainer.current_epoch == 1
    assert [result.epoch for result in probe.history] == [-1, 0]


def test_a_checkpoint_is_chosen_and_named_by_a_probe_value_of_its_epoch(tmp_path):
    probe = probe_of()
    keep = ModelCheckpoint(tmp_path, monitor="probe/embedding_sensitivity", mode="max", filename="best")
    fit(tmp_path, probe, keep, max_epochs=3, enable_checkpointing=True)
    values = {result.epoch: result.value("sensitivity", "body") for result in probe.history if result.epoch >= 0}
    best = max(values, key=lambda epoch: values[epoch])
    assert torch.load(keep.best_model_path, weights_only=True)["epoch"] == best
    assert float(keep.best_model_score) == pytest.approx(values[best], rel=1e-6)


def test_tensorboard_gets_a_chart_for_each_augmentation(tmp_path):
    from tensorboard.plugins.custom_scalar import layout_pb2

    fit(tmp_path, probe_of(), logger=TensorBoardLogger(tmp_path, name="run"), max_epochs=1)
    (layout,) = events(tmp_path).Tensors("custom_scalars__config__")
    parsed = layout_pb2.Layout.FromString(layout.tensor_proto.string_val[0])
    (category,) = parsed.category
    assert [chart.title for chart in category.chart] == ["all views", "rotation", "flip"]
    assert list(category.chart[1].multiline.tag) == [f"^probe_sensitivity_rotation/{layer}$" for layer in LAYERS]


def test_tensorboard_gets_a_figure_of_each_probe_and_one_picture_of_the_bank(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="run")
    probe = probe_of(figures=True)
    trainer = fit(tmp_path, probe, logger=logger)
    trainer.validate(trainer.lightning_module, loader(seed=1), verbose=False)
    found = events(tmp_path)
    assert [image.step for image in found.Images("probe/bank")] == [0]
    assert [image.step for image in found.Images("probe/layers")] == [0, 3, 7]
    assert [image.step for image in found.Images("probe_validate/layers")] == [8]
    assert min(found.Images("probe/layers")[-1].width, found.Images("probe/bank")[0].width) > 300


def test_the_bank_is_drawn_again_in_another_run(tmp_path):
    probe = probe_of(figures=True)
    for name in ("one", "two"):
        fit(tmp_path, probe, logger=TensorBoardLogger(tmp_path, name=name), max_epochs=1)
        assert len(events(tmp_path / name).Images("probe/bank")) == 1


def test_without_matplotlib_the_training_goes_on_and_says_so_once(tmp_path, monkeypatch):
    monkeypatch.setattr("kornia_lightning_probe.callbacks.logbook.find_spec", lambda _: None)
    with pytest.warns(UserWarning, match=r"no figures.*pip install matplotlib \(the extra \[plots\]\)") as caught:
        fit(tmp_path, probe_of(figures=True), logger=TensorBoardLogger(tmp_path, name="run"))
    assert sum("no figures" in str(warning.message) for warning in caught) == 1
    assert events(tmp_path).Tags()["images"] == []


def test_the_probe_does_not_import_pyplot(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    fit(tmp_path, probe_of(figures=True), logger=TensorBoardLogger(tmp_path, name="run"), max_epochs=1)
    assert "matplotlib.pyplot" not in sys.modules


def test_lines_say_what_is_about_to_be_done_and_what_each_probe_has_cost(tmp_path, caplog):
    probes = [probe_of(batch_size=6), DriftProbe(num_images=16)]
    with caplog.at_level(logging.INFO, logger="lightning.pytorch.utilities.rank_zero"):
        fit(tmp_path, *probes, max_epochs=1)
    said = [record.message for record in caplog.records]
    ahead, *costs = [line for line in said if line.startswith("probe: ")]
    # Sixteen images are three blocks of up to six, each passed clean and under three views.
    assert ahead == "probe: 16 images x 3 views, about 12 forward passes of up to 6 images"
    assert len(costs) == 2
    # Three views of 16 images of 3 x 8 x 8 floats are 36 KiB.
    sizes = "probe: 16 images x 3 views x 3 layers, embedding body, 0.0 MiB of views kept: "
    assert costs[0].startswith(sizes)
    assert costs[0].endswith(" s")
    assert costs[1].startswith(sizes)
    assert costs[1].endswith(" % of the epoch")
    ahead, *costs = [line for line in said if line.startswith("drift: ")]
    assert ahead == "drift: 16 images, about 1 forward pass of up to 32 images"
    assert all(line.startswith("drift: 16 images x 3 layers, embedding body: ") for line in costs)


@pytest.mark.parametrize(
    ("sizes", "views", "size", "twins", "expected"),
    [
        ((32, 32), 3, 32, 0, "64 images x 3 views, about 8 forward passes of up to 32 images"),
        # A rest of eight images, of which four views go into a pass; a block is passed clean by itself.
        ((32, 8), 3, 32, 0, "40 images x 3 views, about 6 forward passes of up to 32 images"),
        # Of cut blocks every piece of each view is a pass.
        ((32,), 3, 20, 0, "32 images x 3 views, about 8 forward passes of up to 20 images"),
        ((32,), 3, 32, 3, "32 images x 3 views and their noise, about 7 forward passes of up to 32 images"),
        ((5,), 0, 32, 0, "5 images, about 1 forward pass of up to 32 images"),
    ],
)
def test_passes_ahead_are_counted_as_they_will_be_cut(sizes, views, size, twins, expected):
    assert work_ahead([range(count) for count in sizes], views, size, twins=twins) == expected


@pytest.mark.parametrize(("seconds", "epoch", "warns"), [(9.0, 100.0, False), (11.0, 100.0, True), (5.0, 6.0, False)])
def test_above_ten_percent_of_the_epoch_is_warned_of_but_not_of_a_few_seconds(seconds, epoch, warns, monkeypatch):
    probe = probe_of()
    probe._epoch_started = 0.0
    monkeypatch.setattr("kornia_lightning_probe.callbacks.schedule.time.perf_counter", lambda: epoch)
    said = []
    monkeypatch.setattr(probe, "say_once", said.append)
    probe.say_cost("16 images", seconds)
    assert bool(said) == warns
    assert not warns or "takes more than 10 % of an epoch: raise every_n_epochs" in said[0]


def test_two_probes_of_two_names_write_beside_each_other(tmp_path):
    recorder = LoggedCalls()
    left, right = probe_of(name="left"), probe_of(name="right", layers=["stem", "head"])
    fit(tmp_path, left, right, logger=recorder, max_epochs=1)
    tags = {tag for values, _ in recorder.calls for tag in values}
    assert {"left_sensitivity/body", "right_sensitivity/stem", "left/spread", "right/spread"} <= tags
    assert "right_sensitivity/body" not in tags


def test_a_dead_embedding_gives_nan_for_its_spread_and_no_error(tmp_path):
    class Dead(Net):
        def forward(self, images):
            return self.head(self.body(self.stem(images)) * 1.0)

    model = Dead()
    model.body = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d((2, 3)), torch.nn.Flatten(), Zero())
    with pytest.warns(UserWarning, match="same activation"):
        trainer = fit(tmp_path, probe_of(), model=model, max_epochs=1)
    assert trainer.callback_metrics["probe/spread"].isnan()


class Zero(torch.nn.Module):
    def forward(self, x):
        return x * 0.0


def test_a_probe_with_its_logbook_can_be_pickled(tmp_path):
    import pickle

    probe = probe_of(figures=True)
    fit(tmp_path, probe, logger=TensorBoardLogger(tmp_path, name="run"), max_epochs=1)
    copied = pickle.loads(pickle.dumps(probe))  # noqa: S301 - our own bytes
    assert_same_numbers(copied.history, probe.history)
    assert isinstance(copied, pl.Callback)
