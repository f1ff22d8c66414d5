"""When SensitivityProbe measures: at the start, at the end of validation and of test, every so many epochs."""

import pytest
import torch
from support.trainings import LAYERS, QUIET, Net, assert_same_numbers, fit, images_of, loader, probe_of, trainer_of

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
        torch.testing.assert_close(first.tensor(metric), alone.tensor(metric), rtol=0, atol=0)
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
    assert moments(probe) == [(0, 0)]
    trainer.test(model, loader(seed=2), verbose=False)
    assert moments(probe) == [(0, 0), (0, 0)]
    # The images are those of the test loader, so the numbers are others.
    assert probe.history[0].metadata["content_hash"] != probe.history[1].metadata["content_hash"]
    assert "probe/embedding_sensitivity" in trainer.callback_metrics


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


def test_a_training_that_validates_late_is_still_probed_before_its_first_step(tmp_path):
    probe = probe_of()
    fit(tmp_path, probe, check_val_every_n_epoch=2, num_sanity_val_steps=0)
    assert moments(probe) == [(-1, 0), (1, 7)]


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
