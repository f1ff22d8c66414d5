"""What SensitivityProbe refuses and warns of: early, and saying what to do."""

import kornia.augmentation as K  # noqa: N812 - Kornia's own convention
import lightning.pytorch as pl
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging
from support.nets import hooks
from support.trainings import QUIET, Headless, Net, bank_of, fit, images_of, loader, probe_of, trainer_of, validate
from torch.utils.data import DataLoader, TensorDataset

from kornia_lightning_probe import AugmentationBank, SensitivityProbe

pytestmark = [pytest.mark.filterwarnings(line) for line in QUIET]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"every_n_epochs": 0}, "every_n_epochs must be at least 1, got 0"),
        ({"num_images": 0}, "num_images must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"dataloader_idx": -1}, "dataloader_idx must be at least 0, got -1"),
        ({"log_curves": "layer"}, "log_curves must be one of .*got 'layer'; did you mean 'layers'"),
    ],
)
def test_arguments_out_of_range_are_refused_when_the_probe_is_made(options, text):
    with pytest.raises(MisconfigurationException, match=text):
        probe_of(**options)


def test_a_bank_that_is_none_is_refused():
    with pytest.raises(
        MisconfigurationException,
        match=r"bank must be an AugmentationBank or the name of a preset, got a RandomRotation",
    ):
        SensitivityProbe(K.RandomRotation(15.0))


def test_an_unknown_metric_is_refused_with_near_names():
    with pytest.raises(ValueError, match=r"'sensitivty'; near names: sensitivity"):
        probe_of(metrics="sensitivty")


class OtherProbe(SensitivityProbe):
    pass


def test_two_probes_of_one_name_are_refused(tmp_path):
    # Of one class, Lightning itself refuses them, as one checkpoint could not hold both.
    with pytest.raises(RuntimeError, match=r"more than one stateful callback of type `SensitivityProbe`.*state_key"):
        fit(tmp_path, probe_of(), probe_of())
    other = OtherProbe(bank_of(), layers="head")
    with pytest.raises(MisconfigurationException, match=r"two probes of this Trainer are named 'probe'.*pass name="):
        fit(tmp_path, probe_of(), other)


class Unvalidated(Net):
    validation_step = pl.LightningModule.validation_step


@pytest.mark.parametrize(
    "options",
    [{"limit_val_batches": 0}, {"model": Unvalidated}],
    ids=["no batches", "no validation_step"],
)
@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no `validation_step`:UserWarning")
@pytest.mark.parametrize("images", [None, images_of()], ids=["validation images", "own images"])
def test_a_training_without_validation_is_refused_before_it_begins(tmp_path, options, images):
    with pytest.raises(MisconfigurationException, match=r"the probe runs at the end of validation.*has none"):
        fit(tmp_path, probe_of(images=images), **options)


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
def test_a_training_without_validation_dataloader_is_refused_before_it_begins(tmp_path):
    trainer = trainer_of(tmp_path, probe_of())
    with pytest.raises(MisconfigurationException, match="give the Trainer a validation dataloader"):
        trainer.fit(Net(), loader())


@pytest.mark.parametrize(("method", "kind"), [("validate", "validation"), ("test", "test")])
def test_a_dataloader_that_does_not_exist_is_counted(tmp_path, method, kind):
    trainer = trainer_of(tmp_path, probe_of(dataloader_idx=1))
    with pytest.raises(MisconfigurationException, match=f"from {kind} dataloader 1 and there are 1"):
        getattr(trainer, method)(Net(), loader(seed=1), verbose=False)


def test_a_module_without_forward_is_told_of_forward_before_any_batch(tmp_path):
    trainer = trainer_of(tmp_path, probe_of())
    with pytest.raises(ValueError, match=r"Headless has no forward\(\) of its own.*forward=.*backbone"):
        trainer.fit(Headless(), loader(), loader(seed=1))
    assert trainer.fit_loop.epoch_loop.batch_progress.total.ready == 0
    assert trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.ready == 0


def test_a_misspelt_layer_is_shown_its_near_names_before_the_first_step(tmp_path):
    trainer = trainer_of(tmp_path, probe_of(layers="steam"))
    with pytest.raises(ValueError, match=r"steam.*stem"):
        trainer.fit(Net(), loader(), loader(seed=1))
    assert trainer.global_step == 0


def test_images_outside_of_the_banks_range_are_refused(tmp_path):
    shifted = DataLoader(TensorDataset(images_of() * 4 - 2, torch.arange(64) % 2), 16)
    with pytest.raises(ValueError, match=r"mean= and std="):
        validate(tmp_path, probe_of(), val=shifted)


def test_a_batch_without_images_is_described_and_to_inputs_named(tmp_path):
    class Named(Net):
        def validation_step(self, batch, batch_idx):
            self(batch["scan"])

    items = [{"scan": image, "age": 3} for image in images_of(8)]
    with pytest.raises(ValueError, match=r"(?s)scan.*to_inputs"):
        validate(tmp_path, probe_of(), model=Named, val=DataLoader(items, 4))


class Bursting(Net):
    def forward(self, images):
        if not self.trainer.sanity_checking and len(images) == 13:
            msg = "no thirteen images"
            raise RuntimeError(msg)
        return super().forward(images)


@pytest.mark.filterwarnings("ignore:Found .* module.* in eval mode at the start of training")
def test_after_an_error_in_the_model_it_is_as_before(tmp_path):
    model = Bursting()
    model.stem.eval()
    probe = probe_of(num_images=13)
    trainer = trainer_of(tmp_path, probe)
    with pytest.raises(RuntimeError, match="no thirteen images"):
        trainer.fit(model, loader(), loader(seed=1))
    assert hooks(model) == 0
    assert (model.training, model.body.training) == (True, True)
    assert probe.history == []
    assert probe._images is None


@pytest.mark.filterwarnings("ignore:Found .* module.* in eval mode at the start of training")
def test_a_frozen_part_stays_in_eval_mode(tmp_path):
    seen = []

    class Frozen(Net):
        def on_train_batch_start(self, batch, batch_idx):
            seen.append((self.training, self.stem.training, self.body.training))

    model = Frozen()
    model.stem.eval()
    fit(tmp_path, probe_of(), model=model)
    assert set(seen) == {(True, False, True)}


def test_raw_weights_are_warned_of_where_averaged_ones_are_put_away_before_the_probe(tmp_path):
    with pytest.warns(UserWarning, match=r"EMAWeightAveraging is listed before the probe.*raw weights are measured"):
        fit(tmp_path, EMAWeightAveraging(), probe_of(), max_epochs=1)


def test_a_probe_before_weight_averaging_measures_the_averaged_weights(tmp_path):
    averaged, raw, plain = probe_of(), probe_of(), probe_of()
    averaging = EMAWeightAveraging(decay=0.9)
    fit(tmp_path, averaged, averaging)
    with pytest.warns(UserWarning, match="raw weights"):
        fit(tmp_path, EMAWeightAveraging(decay=0.9), raw)
    fit(tmp_path, plain)
    assert torch.equal(raw.result.tensor("sensitivity"), plain.result.tensor("sensitivity"))
    assert not torch.equal(averaged.result.tensor("sensitivity"), plain.result.tensor("sensitivity"))


def test_stochastic_weight_averaging_changes_no_validation_and_is_not_warned_of(tmp_path):
    probe = probe_of()
    # A warning would be an error here. Lightning adds an epoch in which the averaged weights see the data once.
    fit(tmp_path, StochasticWeightAveraging(0.01), probe, max_epochs=1)
    assert [result.epoch for result in probe.history] == [-1, 0, 1]


class Transferring(Net):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch


def test_a_module_that_changes_batches_on_the_way_is_warned_of_once(tmp_path):
    probe = probe_of()
    with pytest.warns(UserWarning, match=r"does not run Transferring\.on_after_batch_transfer; .*pass forward="):
        fit(tmp_path, probe, model=Transferring)
    validate(tmp_path, probe, model=Transferring)


def test_a_datamodule_that_changes_batches_on_the_way_is_warned_of(tmp_path):
    class Data(pl.LightningDataModule):
        def val_dataloader(self):
            return loader(seed=1)

        def on_before_batch_transfer(self, batch, dataloader_idx):
            return batch

    with pytest.warns(UserWarning, match=r"does not run Data\.on_before_batch_transfer"):
        trainer_of(tmp_path, probe_of()).validate(Net(), datamodule=Data(), verbose=False)


def test_with_forward_nothing_is_said_about_batches(tmp_path):
    probe = probe_of(forward=lambda module, images: module(images))
    # A warning would be an error here.
    fit(tmp_path, probe, model=Transferring, max_epochs=1)
    assert [result.epoch for result in probe.history] == [-1, 0]


def test_a_preset_leaves_out_what_grey_images_can_not_have_and_says_so_once(tmp_path):
    class Grey(Net):
        def forward(self, images):
            return super().forward(images.expand(-1, 3, -1, -1))

    grey = DataLoader(TensorDataset(images_of()[:, :1], torch.arange(64) % 2), 16)
    bank = AugmentationBank.preset("photometric", exclude=["motion_blur"])
    probe = SensitivityProbe(bank, layers=["stem", "head"], num_images=8, figures=False)
    with pytest.warns(UserWarning, match="Left out .*saturation") as seen:
        fit(tmp_path, probe, model=Grey, train=grey, val=grey)
    assert sum("Left out" in str(warning.message) for warning in seen) == 1
    assert len(probe.history) == 3
    assert "saturation" not in probe.result.augmentations


def test_a_view_that_changes_nothing_is_named_once(tmp_path):
    bank = AugmentationBank({"off": K.RandomHorizontalFlip(p=0.0), "on": K.RandomHorizontalFlip(p=1.0)})
    probe = SensitivityProbe(bank, layers="head", num_images=8, figures=False)
    with pytest.warns(UserWarning, match="changed no pixel of any image: off") as seen:
        fit(tmp_path, probe)
    assert sum("changed no pixel" in str(warning.message) for warning in seen) == 1


def test_the_users_bank_and_random_streams_are_left_alone(tmp_path):
    bank = bank_of()
    before = repr(bank.describe())
    fit(tmp_path, SensitivityProbe(bank, layers="head", num_images=8, figures=False), max_epochs=1)
    assert repr(bank.describe()) == before
