"""When SensitivityProbe measures: at the start, at the end of validation and of test, every so many epochs."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import BatchSizeFinder, EarlyStopping, LearningRateFinder, ModelCheckpoint
from support.trainings import (
    LAYERS,
    QUIET,
    LoggedCalls,
    Net,
    assert_same_numbers,
    fit,
    images_of,
    loader,
    probe_of,
    trainer_of,
)

pytestmark = [pytest.mark.filterwarnings(line) for line in QUIET]


def moments(probe):
    return [(result.epoch, result.step) for result in probe.history]


def test_a_training_is_probed_before_its_first_step_and_after_each_validation(tmp_path):
    probe = probe_of()
    fit(tmp_path, probe)
    # 64 images in batches of 16 are steps 0 to 3 and 4 to 7, and Lightning draws its own curves at the last of them.
    assert moments(probe) == [(-1, 0), (0, 3), (1, 7)]
    assert probe.result is probe.history[-1]
    assert probe.result.layers == LAYERS
    assert [view.augmentation for view in probe.result.views] == ["rotation", "rotation", "flip"]


def test_the_first_result_is_that_of_the_untrained_model(tmp_path):
    probe, validated = probe_of(), probe_of()
    model = Net()
    trainer_of(tmp_path, validated).validate(model, loader(seed=1), verbose=False)
    fit(tmp_path, probe, model=model, max_epochs=1)
    first, alone = probe.history[0], validated.result
    for metric in first.metrics:
        torch.testing.assert_close(first.tensor(metric), alone.tensor(metric), rtol=0, atol=0, equal_nan=True)
    assert not torch.equal(first.tensor("sensitivity"), probe.result.tensor("sensitivity"))


def test_without_at_start_the_first_result_is_that_of_epoch_0(tmp_path):
    probe = probe_of(at_start=False)
    fit(tmp_path, probe)
    assert moments(probe) == [(0, 3), (1, 7)]


def test_the_sanity_check_is_not_probed(tmp_path):
    without, with_check = probe_of(at_start=False), probe_of(at_start=False)
    fit(tmp_path, without, num_sanity_val_steps=0)
    fit(tmp_path, with_check, num_sanity_val_steps=2)
    assert moments(with_check) == moments(without)


def test_validate_and_test_are_probed_once_and_not_at_their_start(tmp_path):
    probe = probe_of()
    trainer = trainer_of(tmp_path, probe)
    model = Net()
    trainer.validate(model, loader(seed=1), verbose=False)
    assert [(result.epoch, result.step) for result in probe.validations] == [(0, 0)]
    assert probe.result is probe.validations[0]
    trainer.test(model, loader(seed=2), verbose=False)
    assert [(result.epoch, result.step) for result in probe.tests] == [(0, 0)]
    assert probe.result is probe.tests[0]
    assert probe.history == []
    # The images are those of the test loader, so the numbers are others.
    assert probe.validations[0].metadata["content_hash"] != probe.tests[0].metadata["content_hash"]


@pytest.mark.parametrize(
    ("every", "options", "epochs"),
    [
        (1, {}, [0, 1, 2, 3, 4]),
        (2, {}, [0, 2, 4]),
        (3, {}, [0, 3]),
        # Validations in epochs 1, 3, 5: the first, then the next one after a multiple of 2.
        (2, {"check_val_every_n_epoch": 2, "max_epochs": 6}, [1, 3, 5]),
        # Validations in epochs 1, 3, 5: the first, 3 is a multiple of 3.
        (3, {"check_val_every_n_epoch": 2, "max_epochs": 6}, [1, 3]),
        # Every validation of a probed epoch.
        (2, {"val_check_interval": 0.5, "max_epochs": 3}, [0, 0, 2, 2]),
    ],
)
def test_epochs_divisible_by_every_n_epochs_are_probed_and_the_first(tmp_path, every, options, epochs):
    probe = probe_of(every_n_epochs=every, at_start=False)
    fit(tmp_path, probe, limit_train_batches=2, limit_val_batches=1, **{"max_epochs": 5} | options)
    assert [result.epoch for result in probe.history] == epochs


def test_with_images_of_its_own_a_training_that_validates_late_is_probed_before_its_first_step(tmp_path):
    probe = probe_of(images=images_of())
    fit(tmp_path, probe, check_val_every_n_epoch=2, num_sanity_val_steps=0)
    assert moments(probe) == [(-1, 0), (1, 7)]


def test_without_a_validation_loader_the_start_is_left_out_with_a_sentence(tmp_path):
    probe = probe_of()
    with pytest.warns(UserWarning, match=r"'probe' does not measure before the first step: .*num_sanity_val_steps"):
        fit(tmp_path, probe, check_val_every_n_epoch=2, num_sanity_val_steps=0)
    assert moments(probe) == [(1, 7)]


class Loading(Net):
    """Brings its own loaders, as the finder of a batch size asks for."""

    batch_size = 4

    def train_dataloader(self):
        return loader(batch_size=self.batch_size)

    def val_dataloader(self):
        return loader(seed=1)


@pytest.mark.parametrize(
    "finder",
    [
        lambda: LearningRateFinder(num_training_steps=3, early_stop_threshold=None),
        lambda: BatchSizeFinder(max_trials=1, steps_per_trial=1),
    ],
    ids=["learning rate", "batch size"],
)
@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_a_finder_before_the_training_does_not_pass_for_a_resume(tmp_path, finder):
    pl.seed_everything(0, verbose=False)
    probe = probe_of()
    trainer = trainer_of(tmp_path, finder(), probe, max_epochs=1)
    trainer.fit(Loading())
    # It leaves its own file in trainer.ckpt_path, which a resume would.
    assert trainer.ckpt_path
    assert [result.epoch for result in probe.history] == [-1, 0]


def test_the_trainer_does_not_look_as_in_training_while_a_probe_runs_and_does_again_behind_it(tmp_path):
    seen = []

    class Asking(Net):
        def forward(self, images):
            if not self.training:
                seen.append(self.trainer.training)
            return super().forward(images)

        def on_train_batch_start(self, batch, batch_idx):
            assert self.trainer.training

    probe = probe_of(images=images_of(), when="train_epoch_end")
    fit(tmp_path, probe, model=Asking, limit_val_batches=0)
    assert moments(probe) == [(-1, 0), (0, 3), (1, 7)]
    assert set(seen) == {False}


@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no `validation_step`:UserWarning")
def test_a_training_without_validation_is_probed_at_the_end_of_its_epochs(tmp_path):
    class Unvalidated(Net):
        validation_step = pl.LightningModule.validation_step

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.log("epoch_loss", loss, on_step=False, on_epoch=True)
            return loss

    logger = LoggedCalls()
    probe = probe_of(images=images_of(), when="train_epoch_end")
    stop = EarlyStopping("probe/embedding_sensitivity", mode="min", stopping_threshold=1e9)
    fit(tmp_path, probe, stop, model=Unvalidated, logger=logger)
    # It stops at the first value that it sees, which is that of the first epoch.
    assert moments(probe) == [(-1, 0), (0, 3)]
    steps = {tag: step for values, step in logger.calls for tag in values}
    assert steps["probe_sensitivity/head"] == steps["probe/spread"] == steps["epoch_loss"] == 3


def test_probes_at_the_end_of_training_epochs_need_images():
    with pytest.raises(Exception, match=r"when='train_epoch_end' needs images="):
        probe_of(when="train_epoch_end")


@pytest.mark.parametrize(
    ("watcher", "advice"),
    [
        (EarlyStopping("probe/spread", patience=2), "patience=4 instead of 2 in EarlyStopping"),
        (ModelCheckpoint(monitor="probe/spread"), r"Trainer\(check_val_every_n_epoch=2\)"),
        (EarlyStopping("probe_sensitivity/head"), "every_n_epochs=1 in the probe"),
    ],
    ids=["early stopping", "checkpoint", "a monitored curve"],
)
def test_who_watches_a_value_between_two_probes_is_named_once_with_what_to_set(tmp_path, watcher, advice):
    probe = probe_of(every_n_epochs=2, monitor=["probe_sensitivity/head"])
    with pytest.warns(UserWarning, match=rf"watches 'probe.*measures every 2 epochs.*{advice}") as said:
        fit(tmp_path, probe, watcher, enable_checkpointing=isinstance(watcher, ModelCheckpoint), max_epochs=1)
    assert sum("measures every 2 epochs" in str(warning.message) for warning in said) == 1


def test_a_checkpoint_is_told_that_an_old_value_may_be_ranked_again(tmp_path):
    keep = ModelCheckpoint(tmp_path, monitor="probe/spread")
    with pytest.warns(UserWarning, match="an old value may be ranked again, for weights that it was not measured of"):
        fit(tmp_path, probe_of(every_n_epochs=2), keep, enable_checkpointing=True, max_epochs=1)


def test_a_checkpoint_that_is_written_as_rarely_as_is_measured_is_not_warned_of(tmp_path):
    # A warning would be an error here.
    keep = ModelCheckpoint(tmp_path, monitor="probe/spread", every_n_epochs=2)
    probe = probe_of(every_n_epochs=2)
    fit(tmp_path, probe, keep, enable_checkpointing=True)
    assert not [said for said in probe._said if "watches" in said]
    assert keep.best_model_path


def test_a_schedule_of_the_learning_rate_that_watches_between_two_probes_is_named(tmp_path):
    class Scheduled(Net):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=3)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "probe/spread"}}

    with pytest.warns(UserWarning, match=r"ReduceLROnPlateau watches 'probe/spread'.*patience=6 instead of 3"):
        fit(tmp_path, probe_of(every_n_epochs=2), model=Scheduled, max_epochs=1)


@pytest.mark.parametrize(
    ("options", "trainer"),
    [({}, {}), ({"every_n_epochs": 2}, {"check_val_every_n_epoch": 2}), ({"name": "other", "every_n_epochs": 2}, {})],
    ids=["every epoch", "every validation", "another probe's value"],
)
def test_nothing_is_said_where_every_look_sees_a_new_value(tmp_path, options, trainer):
    # A warning would be an error here.
    watcher = EarlyStopping("probe/spread", strict=False)
    probes = [probe_of(images=images_of(), **options)]
    if options.get("name"):
        probes.append(probe_of())
    fit(tmp_path, *probes, watcher, **trainer)


def test_a_checkpoint_at_the_end_of_validation_comes_before_a_probe_at_the_end_of_the_epoch(tmp_path):
    probe = probe_of(images=images_of(), when="train_epoch_end")
    keep = ModelCheckpoint(tmp_path, monitor="probe/spread", save_on_train_epoch_end=False)
    with (
        pytest.warns(UserWarning, match=r"pass save_on_train_epoch_end=True to ModelCheckpoint"),
        pytest.raises(Exception, match="could not find the monitored key"),
    ):
        fit(tmp_path, probe, keep, enable_checkpointing=True)
    keep = ModelCheckpoint(tmp_path / "late", monitor="probe/spread", save_on_train_epoch_end=True)
    fit(tmp_path, probe_of(images=images_of(), when="train_epoch_end"), keep, enable_checkpointing=True)


def test_steps_are_those_of_the_validations_within_an_epoch(tmp_path):
    probe = probe_of(at_start=False)
    fit(tmp_path, probe, val_check_interval=0.5, max_epochs=1)
    # Halves of steps 0 to 3.
    assert moments(probe) == [(0, 1), (0, 3)]


def test_fast_dev_run_probes_one_block_and_writes_nothing(tmp_path):
    probe = probe_of(num_images=50)
    fit(tmp_path, probe, fast_dev_run=True, logger=True)
    assert [result.metadata["num_images"] for result in probe.history] == [32, 32]
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize(("images", "count"), [(images_of(), 32), (None, 16)])
def test_fast_dev_run_never_probes_more_than_asked_for(tmp_path, images, count):
    probe = probe_of(images=images)
    fit(tmp_path, probe, fast_dev_run=True)
    assert probe.result.metadata["num_images"] == count


def test_a_new_training_with_the_same_probe_starts_a_new_history(tmp_path):
    probe = probe_of()
    fit(tmp_path, probe)
    before = list(probe.history)
    fit(tmp_path, probe)
    assert len(before) == len(probe.history)
    assert_same_numbers(probe.history, before)


def test_a_training_that_goes_on_keeps_its_history(tmp_path):
    probe = probe_of()
    trainer = fit(tmp_path, probe, max_epochs=1)
    trainer.fit_loop.max_epochs = 2
    trainer.fit(trainer.lightning_module, loader(), loader(seed=1))
    assert moments(probe) == [(-1, 0), (0, 3), (1, 7)]


def test_every_epoch_sees_the_same_images_and_views_bit_for_bit(tmp_path):
    probe = probe_of()
    # With a learning rate of 0 and no batch in train mode that moves statistics, nothing changes between epochs.
    model = Net(lr=0.0)
    model.stem[1].momentum = 0.0
    fit(tmp_path, probe, model=model)
    tables = [result.tensor("sensitivity") for result in probe.history]
    assert torch.equal(tables[0], tables[1])
    assert torch.equal(tables[0], tables[2])
    assert len({result.metadata["content_hash"] for result in probe.history}) == 1
