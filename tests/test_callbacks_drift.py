"""DriftProbe inside real trainings: its curves, what it keeps, and what it refuses."""

import csv
import json
import math

import lightning.pytorch as pl
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from kornia_lightning_probe.callbacks.drift import DriftProbe
from kornia_lightning_probe.result import ProbeResult
from kornia_lightning_probe.similarity import debiased_cka

pytestmark = [
    # Lightning 2.6 makes torch's LeafSpec, which torch 2.13 warns of.
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.* is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]


class Net(pl.LightningModule):
    def __init__(self, *, width=6, frozen=False, dead=False):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(width, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.flat = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, 3)
        self.stem.requires_grad_(not frozen)
        if dead:
            nn.init.zeros_(self.stem[0].weight)
            nn.init.constant_(self.stem[0].bias, -1.0)

    def forward(self, x):
        return self.head(self.flat(self.body(self.stem(x))))

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self.log("loss", nn.functional.cross_entropy(self(batch[0]), batch[1]), sync_dist=True)

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.Adam((p for p in self.parameters() if p.requires_grad), lr=0.01)


LAYERS = ["stem", "body", "flat", "head"]


def data(count=48, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.rand(count, 1, 8, 8, generator=draw), torch.randint(3, (count,), generator=draw))


def fit(tmp_path, *callbacks, net=None, epochs=2, logger=False, ckpt=None, val=None, seed=0, **options):
    pl.seed_everything(seed, verbose=False)
    net = net or Net()
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=logger,
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        num_sanity_val_steps=0,
        **options,
    )
    # Not shuffled: a resumed training must see the batches of an uninterrupted one.
    trainer.fit(
        net, DataLoader(data(), batch_size=16), DataLoader(val or data(40, seed=1), batch_size=20), ckpt_path=ckpt
    )
    return trainer


def probe(**options):
    return DriftProbe(**{"layers": LAYERS, "num_images": 32, "figures": False} | options)


def saving(folder):
    return ModelCheckpoint(folder, save_last=True)


def curve(found, metric="cka_previous"):
    return torch.cat([result.tensor(metric) for result in found.history])


def test_each_epoch_is_compared_with_the_previous_and_the_first_probe(tmp_path):
    found = probe()
    fit(tmp_path, found, epochs=3)
    assert [result.epoch for result in found.history] == [-1, 0, 1, 2]
    assert [result.step for result in found.history] == [0, 2, 5, 8]
    assert found.result is found.history[-1]
    assert found.result.layers == tuple(LAYERS)
    assert found.result.metrics == ("cka_previous", "cka_first", "rankme")
    assert found.result.metadata["references"] == {"previous": 1, "first": -1}
    assert found.result.metadata["embedding"] == "flat"
    previous, first = curve(found), curve(found, "cka_first")
    assert previous[0].isnan().all()
    # The previous probe of the second one is the first.
    assert torch.equal(previous[1], first[1])
    assert ((previous[1:] > 0) & (previous[1:] < 1)).all()
    assert not torch.equal(previous[2], first[2])


def test_the_numbers_are_those_of_the_models_own_features(tmp_path):
    images = data(40, seed=1).tensors[0]
    net, found = Net(), probe(images=images)
    features = []

    class Keep(pl.Callback):
        def on_train_start(self, trainer, pl_module):
            self.on_validation_end(trainer, pl_module)

        def on_validation_end(self, trainer, pl_module):
            was = pl_module.training
            with torch.no_grad():
                features.append(pl_module.eval().stem(images).double().mean((2, 3)))
            pl_module.train(was)

    fit(tmp_path, found, Keep(), net=net, epochs=1)
    grams = [(x - x.mean(0)) @ (x - x.mean(0)).T for x in features]
    # CKA does not depend on the order of the images.
    expected = float(debiased_cka(*grams))
    assert found.result.value("cka_previous", layer="stem") == pytest.approx(expected, abs=1e-6)


def test_the_first_probe_has_no_rows_and_nan(tmp_path):
    found = probe()
    fit(tmp_path, found, epochs=1)
    first, second = found.history
    assert {row.metric for row in first.rows} == {"rankme"}
    assert {row.metric for row in second.rows} == {"cka_previous", "cka_first", "rankme"}
    assert {row.num_images for row in second.rows} == {32}
    assert {row.layer for row in second.rows if row.metric == "rankme"} == {"flat"}
    assert math.isnan(first.value("cka_previous"))
    assert first.metadata["references"] == {"previous": None, "first": None}


def test_a_frozen_layer_reads_one(tmp_path):
    found = probe()
    fit(tmp_path, found, net=Net(frozen=True), epochs=3)
    for metric in ("cka_previous", "cka_first"):
        stem, body = (curve(found, metric)[1:, LAYERS.index(name)] for name in ("stem", "body"))
        assert torch.allclose(stem, torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-12)
        assert (body < 1 - 1e-6).all()


@pytest.mark.filterwarnings("ignore:these layers give every clean image the same activation")
def test_a_dead_layer_is_nan_and_named_and_left_out_of_the_mean(tmp_path):
    found = probe(layers=["stem", "head"])
    net = Net(dead=True)
    net.head = nn.Linear(8 + 64, 3)
    net.forward = lambda x: net.head(torch.cat([net.flat(net.body(net.stem(x))), x.flatten(1)], 1))
    fit(tmp_path, found, net=net, epochs=2)
    assert curve(found)[1:, 0].isnan().all()
    assert found.result.metadata["dead_layers"] == ["stem"]
    assert found.result.value("cka_previous") == found.result.value("cka_previous", layer="head")


def test_a_dead_layer_is_said_aloud_once(tmp_path):
    with pytest.warns(UserWarning, match=r"same activation, so nothing can be compared there \(NaN\): stem") as said:
        fit(tmp_path, probe(layers=["stem", "head"]), net=Net(dead=True), epochs=2, logger=False)
    assert sum("same activation" in str(warning.message) for warning in said) == 1


def test_a_resumed_training_has_the_curve_of_an_uninterrupted_one(tmp_path):
    whole = probe()
    fit(tmp_path / "whole", whole, epochs=4)
    fit(tmp_path / "half", probe(), saving(tmp_path / "half"), epochs=2)
    resumed = probe()
    fit(tmp_path / "half", resumed, saving(tmp_path / "half"), epochs=4, ckpt=tmp_path / "half" / "last.ckpt")
    assert [result.epoch for result in resumed.history] == [-1, 0, 1, 2, 3]
    for metric in ("cka_previous", "cka_first", "rankme"):
        torch.testing.assert_close(curve(resumed, metric), curve(whole, metric), rtol=0, atol=1e-6, equal_nan=True)


def test_a_checkpoint_loads_as_weights_only_and_its_size_does_not_depend_on_the_width(tmp_path):
    sizes = {}
    for width in (4, 400):
        found = probe(layers=["stem"])
        fit(tmp_path, found, net=Net(width=width), epochs=1)
        path = tmp_path / f"{width}.pt"
        torch.save(found.state_dict(), path)
        sizes[width] = path.stat().st_size
        state = torch.load(path, weights_only=True)
        assert set(state["references"]) == {"previous", "first"}
    # Two references of 32 * 33 / 2 float32.
    assert abs(sizes[400] - sizes[4]) < 500
    assert sizes[4] < 2 * 4 * 32 * 33 / 2 + 30_000


def test_only_the_references_that_are_asked_for_are_kept(tmp_path):
    found = probe(reference="first")
    fit(tmp_path, found, epochs=2)
    assert found.result.metrics == ("cka_first", "rankme")
    assert found.result.metadata["references"] == {"first": -1}
    assert set(found.state_dict()["references"]) == {"first"}
    assert found.snapshot is None


def test_other_images_after_a_resume_are_refused_with_both_hashes(tmp_path):
    first = probe()
    fit(tmp_path, first, saving(tmp_path), epochs=1)
    with pytest.raises(ValueError, match=r"only be measured on the same images") as refused:
        fit(tmp_path, probe(seed=5), saving(tmp_path), epochs=2, ckpt=tmp_path / "last.ckpt")
    old = first.result.metadata["content_hash"]
    assert f"of epoch 0 have the content hash {old} (N=32)" in str(refused.value)
    assert str(refused.value).count("(N=32)") == 2


def test_other_features_after_a_resume_are_refused(tmp_path):
    fit(tmp_path, probe(), saving(tmp_path), epochs=1)
    with pytest.raises(ValueError, match=r"epoch 0 are pooled, those of epoch 1 flattened; set flatten= as it was"):
        fit(tmp_path, probe(flatten=True), saving(tmp_path), epochs=2, ckpt=tmp_path / "last.ckpt")


def test_a_layer_that_a_reference_does_not_have_is_nan(tmp_path):
    fit(tmp_path, probe(layers=["head"]), saving(tmp_path), epochs=1)
    found = probe(layers=["stem", "head"])
    fit(tmp_path, found, saving(tmp_path), epochs=3, ckpt=tmp_path / "last.ckpt")
    resumed = found.history[-2]
    assert math.isnan(resumed.value("cka_previous", layer="stem"))
    assert resumed.value("cka_previous", layer="head") <= 1
    assert found.result.value("cka_previous", layer="stem") <= 1
    assert math.isnan(found.result.value("cka_first", layer="stem"))


def test_flattened_features_tell_more_than_pooled_ones(tmp_path):
    pooled, flattened = probe(name="pooled"), probe(name="flattened", flatten=True)
    fit(tmp_path, pooled, flattened, epochs=1)
    layer = LAYERS.index("stem")
    assert curve(pooled)[1, layer] != curve(flattened)[1, layer]
    # A layer of vectors has nothing to pool.
    layer = LAYERS.index("head")
    assert float(curve(pooled)[1, layer]) == pytest.approx(float(curve(flattened)[1, layer]), abs=1e-9)


def test_every_n_epochs_and_at_start_choose_the_probes(tmp_path):
    found = probe(every_n_epochs=2, at_start=False)
    fit(tmp_path, found, epochs=4)
    assert [result.epoch for result in found.history] == [0, 2]
    assert found.result.metadata["references"] == {"previous": 0, "first": 0}


def test_a_second_training_with_the_same_object_starts_over(tmp_path):
    found = probe()
    fit(tmp_path, found, epochs=1)
    fit(tmp_path, found, epochs=1, val=data(40, seed=7))
    assert [result.epoch for result in found.history] == [-1, 0]
    assert curve(found)[0].isnan().all()


def test_validate_and_test_leave_the_curve_alone(tmp_path):
    found = probe()
    trainer = fit(tmp_path, found, epochs=1)
    other = DataLoader(data(40, seed=9), batch_size=20)
    trainer.validate(trainer.lightning_module, other, verbose=False)
    trainer.test(trainer.lightning_module, other, verbose=False)
    assert [result.epoch for result in found.history] == [-1, 0]


def test_a_training_with_the_probe_ends_in_bitwise_the_same_weights(tmp_path):
    with_probe, without = Net(), Net()
    without.load_state_dict(with_probe.state_dict())
    fit(tmp_path, probe(flatten=True), net=with_probe)
    fit(tmp_path, net=without)
    for one, other in zip(with_probe.state_dict().values(), without.state_dict().values(), strict=True):
        assert torch.equal(one, other)


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
    assert files == ["epoch=-1-step=0.json", "epoch=0-step=2.json", "epoch=1-step=5.json"]
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


def test_activations_that_are_not_finite_are_left_out_and_named(tmp_path):
    images = data(40, seed=1).tensors[0].clone()
    images[4] = torch.inf
    found = probe(images=images, layers=["stem", "head"])
    with pytest.warns(UserWarning, match=r"not finite were left out at stem, head \(images 4 of the source\)"):
        fit(tmp_path, found, epochs=1)
    assert {row.num_images for row in found.result.rows} == {39}
    assert 0 < found.result.value("cka_previous") < 1


def test_the_snapshot_of_an_epoch_can_be_compared_with_a_later_one(tmp_path):
    found, kept = probe(), []

    class Keep(pl.Callback):
        def on_validation_end(self, trainer, pl_module):
            kept.append(found.snapshot)

    fit(tmp_path, found, Keep(), epochs=2)
    value = float(debiased_cka(kept[0].gram("body"), kept[1].gram("body")))
    assert value == found.result.value("cka_previous", layer="body")


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


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_images": 3}, "num_images must be at least 4, got 3"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"dataloader_idx": -1}, "dataloader_idx must be at least 0, got -1"),
        ({"every_n_epochs": 0}, "every_n_epochs must be at least 1, got 0"),
        ({"reference": ("previous", "frist")}, "did you mean 'first'"),
        ({"reference": ()}, "reference is empty; it names what to compare with: previous, first"),
    ],
)
def test_arguments_out_of_range_are_refused(options, text):
    with pytest.raises(MisconfigurationException, match=text):
        DriftProbe(**options)


def test_too_few_images_are_refused(tmp_path):
    with pytest.raises(
        MisconfigurationException, match=r"at least 4 images, since debiased CKA divides by N - 3; got 3"
    ):
        fit(tmp_path, probe(images=torch.rand(3, 1, 8, 8)))
