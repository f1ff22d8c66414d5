"""Where DriftProbe's numbers go: loggers, monitors, files and figures, on one process and on two."""

import csv
import json

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from support.drifting import LAYERS, LIGHTNINGS_OWN_WARNINGS, Net, curve, data, fit, probe

from kornia_lightning_probe.result import ProbeResult

pytestmark = LIGHTNINGS_OWN_WARNINGS


def csv_rows(logger):
    with open(logger.experiment.metrics_file_path, encoding="utf-8") as file:  # noqa: PTH123 - a path as text
        return list(csv.DictReader(file))


@pytest.mark.parametrize("at_start", [True, False])
def test_loggers_get_the_same_columns_at_every_probe(tmp_path, at_start):
    logger = CSVLogger(tmp_path, name="", version="")
    found = probe(at_start=at_start)
    fit(tmp_path, found, epochs=2, logger=logger)
    rows = [row for row in csv_rows(logger) if row["drift/seconds"]]
    assert [int(row["step"]) for row in rows] == [result.step for result in found.history]
    tags = [f"drift_cka_{reference}/{layer}" for reference in ("previous", "first") for layer in LAYERS]
    for row, result in zip(rows, found.history, strict=True):
        assert set(row) >= {*tags, "drift/cka_previous", "drift/cka_first", "drift/rankme", "drift/seconds"}
        for tag in tags:
            section, layer = tag.split("/")
            expected = result.value(section.removeprefix("drift_"), layer=layer)
            assert float(row[tag]) == pytest.approx(expected, nan_ok=True)
        assert float(row["drift/cka_previous"]) == pytest.approx(result.value("cka_previous"), nan_ok=True)
    steps = {int(row["step"]) for row in csv_rows(logger) if row["loss"]}
    assert steps == {result.step for result in found.history if result.epoch >= 0}


def test_summaries_are_there_for_monitors_in_the_same_epoch(tmp_path):
    found = probe()
    trainer = fit(tmp_path, found, epochs=1)
    logged = trainer.callback_metrics
    for key in ("cka_previous", "cka_first", "rankme"):
        assert float(logged[f"drift/{key}"]) == pytest.approx(found.result.value(key), rel=1e-6)
    assert float(logged["drift/seconds"]) == pytest.approx(found.result.metadata["seconds"], rel=1e-6)
    assert 1 <= found.result.value("rankme") <= 8


@pytest.mark.parametrize("at_start", [True, False])
def test_early_stopping_lives_through_the_first_probe_and_stops_where_layers_have_settled(tmp_path, at_start):
    class Stopped(Net):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    found = probe(layers=["stem", "body"], at_start=at_start)
    net = Stopped()
    net.body[1].momentum = 0.0
    stop = EarlyStopping("drift/cka_previous", mode="max", patience=5, stopping_threshold=0.999)
    trainer = fit(tmp_path, found, stop, net=net, epochs=4)
    # Nothing learns, so the first comparison reads 1; a first probe in training has nothing to compare with.
    assert [result.epoch for result in found.history] == ([-1, 0] if at_start else [0, 1])
    assert float(trainer.callback_metrics["drift/cka_previous"]) == pytest.approx(1.0, abs=1e-6)


def test_rank_zero_writes_each_result(tmp_path):
    logger = CSVLogger(tmp_path, name="", version="")
    found = probe(name="slow")
    fit(tmp_path, found, epochs=2, logger=logger)
    files = sorted(path.name for path in (tmp_path / "slow").iterdir())
    assert files == ["fit-epoch=-1-step=0.json", "fit-epoch=0-step=2.json", "fit-epoch=1-step=5.json"]
    result = ProbeResult.from_json(tmp_path / "slow" / files[-1])
    assert torch.equal(result.tensor("cka_first"), found.result.tensor("cka_first"))
    assert json.loads((tmp_path / "slow" / files[0]).read_text())["tables"]["cka_first"]["value"] == [[None] * 4]


def test_tensorboard_gets_curves_charts_and_a_figure(tmp_path):
    pytest.importorskip("tensorboard")
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = TensorBoardLogger(tmp_path, name="", version="")
    fit(tmp_path, probe(figures=True), epochs=2, logger=logger)
    logger.experiment.flush()
    events = event_accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    assert {"drift_cka_previous/stem", "drift_cka_first/head", "drift/cka_previous", "drift/rankme"} <= set(
        events.Tags()["scalars"]
    )
    assert [event.step for event in events.Scalars("drift_cka_previous/stem")] == [0, 2, 5]
    # The first probe has nothing to draw.
    assert [event.step for event in events.Images("drift/layers")] == [2, 5]
    assert "custom_scalars__config__" in events.Tags()["tensors"]


def test_the_figure_has_a_row_for_each_reference(tmp_path):
    pytest.importorskip("matplotlib")
    found = probe()
    with pytest.raises(ValueError, match="there is no result to draw; a DriftProbe has one after its first probe"):
        found.plot()
    fit(tmp_path, found, epochs=3)
    figure = found.plot()
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert [title for title in titles if title] == [
        "debiased CKA to the previous probe",
        "debiased CKA to the first probe",
    ]
    lines = figure.axes[0].get_lines()[: len(LAYERS)]
    for column, line in enumerate(lines):
        assert line.get_ydata() == pytest.approx(curve(found)[1:, column].tolist())
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0", "1", "2"]
    assert len([ax for ax in found.plot(["first"]).axes if ax.get_title(loc="left")]) == 1


def test_fast_dev_run_leaves_nothing_behind(tmp_path):
    found = probe()
    fit(tmp_path, found, epochs=1, fast_dev_run=True, logger=True)
    assert [result.epoch for result in found.history] == [-1, 0]
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.distributed
def test_two_processes_write_the_numbers_of_one(tmp_path):
    images = data(75, seed=1).tensors[0]

    # Three blocks: one process has two of them. Nothing learns, so that both trainings have the same weights.
    class Still(Net):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

        def on_train_epoch_end(self):
            with torch.no_grad():
                self.stem[0].weight += torch.linspace(-0.3, 0.3, self.stem[0].weight.numel()).view_as(
                    self.stem[0].weight
                )

    def run(folder, **options):
        torch.manual_seed(0)
        net = Still()
        net.body[1].momentum = 0.0
        fit(
            folder,
            probe(images=images),
            net=net,
            epochs=2,
            logger=CSVLogger(folder, name="", version=""),
            use_distributed_sampler=True,
            **options,
        )
        return [ProbeResult.from_json(path) for path in sorted((folder / "drift").glob("*.json"))]

    one = run(tmp_path / "one")
    two = run(tmp_path / "two", devices=2, strategy="ddp_notebook")
    assert len(one) == len(two) == 3
    for single, shared in zip(one, two, strict=True):
        assert single.metadata["content_hash"] == shared.metadata["content_hash"]
        assert (single.metadata["world_size"], shared.metadata["world_size"]) == (1, 2)
        for metric in single.metrics:
            torch.testing.assert_close(single.tensor(metric), shared.tensor(metric), rtol=0, atol=1e-6, equal_nan=True)
    assert two[-1].value("cka_previous", layer="stem") < 1 - 1e-4
