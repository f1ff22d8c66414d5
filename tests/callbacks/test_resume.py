"""A resumed training has the history of an uninterrupted one, and a checkpoint stays small."""

import io
import re
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from support.trainings import (
    QUIET,
    Net,
    assert_same_numbers,
    fit,
    loader,
    probe_of,
    trainer_of,
)

from kornia_lightning_probe import AugmentationBank, SensitivityProbe

pytestmark = [
    *(pytest.mark.filterwarnings(line) for line in QUIET),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch:UserWarning"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create:UserWarning"),
]


class Calm(Net):
    """Without dropout: Lightning does not resume the random stream, and so can't repeat what it draws."""

    def __init__(self):
        super().__init__()
        self.body[4] = torch.nn.Identity()


def saved(folder, probe, *, epochs, keep=None, **options):
    """The checkpoints of a training, oldest first."""
    keep = ModelCheckpoint(folder, filename="{epoch}-{step}", save_top_k=-1, **(keep or {}))
    fit(folder, probe, keep, model=Calm, max_epochs=epochs, enable_checkpointing=True, **options)
    return sorted(Path(folder).glob("*.ckpt"), key=_step)


def _step(path):
    return int(path.stem.split("step=")[1])


@pytest.mark.parametrize("keep", [{}, {"save_on_train_epoch_end": True}], ids=str)
def test_a_resumed_training_has_the_history_of_an_uninterrupted_one(tmp_path, keep):
    whole = probe_of()
    checkpoints = saved(tmp_path / "whole", whole, epochs=3, keep=keep)
    assert [result.step for result in whole.history] == [0, 3, 7, 11]
    assert len(checkpoints) == 3
    for path in checkpoints:
        resumed = probe_of()
        # Nothing is said about weights_only: the default must do.
        fit(tmp_path / "again", resumed, model=Calm, ckpt_path=path, max_epochs=3)
        assert_same_numbers(resumed.history, whole.history)
        # The grids of the probes before come back, and those after are found anew.
        assert [result.metadata["grids"] for result in resumed.history] == [
            result.metadata["grids"] for result in whole.history
        ]


def test_a_training_resumed_within_an_epoch_keeps_what_was_measured_before(tmp_path):
    whole, half = probe_of(), {"val_check_interval": 0.5}
    for path in saved(tmp_path / "whole", whole, epochs=2, **half):
        resumed = probe_of()
        fit(tmp_path / "again", resumed, model=Calm, ckpt_path=path, max_epochs=2, **half)
        assert [(result.epoch, result.step) for result in resumed.history] == [(-1, 0), (0, 1), (0, 3), (1, 5), (1, 7)]
        # Lightning reads the epoch's batches from the front again, so what comes after may be another training.
        before = [result for result in whole.history if result.step < _step(path)]
        assert_same_numbers(resumed.history[: len(before)], before)
        assert [result.metadata for result in resumed.history[: len(before)]] == [result.metadata for result in before]


def test_a_resumed_training_is_not_probed_at_its_start(tmp_path):
    *_, path = saved(tmp_path, probe_of(), epochs=1)
    late = probe_of(name="late")
    fit(tmp_path, late, model=Calm, ckpt_path=path, max_epochs=2)
    # This probe was not in the checkpoint, and the model is no longer untrained.
    assert [result.epoch for result in late.history] == [1]


def test_probed_epochs_go_on_after_a_resume_as_without_one(tmp_path):
    whole = probe_of(every_n_epochs=2)
    first, *_ = saved(tmp_path, whole, epochs=4)
    resumed = probe_of(every_n_epochs=2)
    fit(tmp_path, resumed, model=Calm, ckpt_path=first, max_epochs=4)
    assert [result.epoch for result in resumed.history] == [-1, 0, 2]
    assert_same_numbers(resumed.history, whole.history)


def test_two_probes_keep_their_own_histories(tmp_path):
    left, right = probe_of(name="left"), probe_of(name="right", layers=["stem", "head"])
    keep = ModelCheckpoint(tmp_path, filename="last")
    fit(tmp_path, left, right, keep, max_epochs=1, enable_checkpointing=True)
    resumed = probe_of(name="left"), probe_of(name="right", layers=["stem", "head"])
    fit(tmp_path, *resumed, ckpt_path=keep.best_model_path, max_epochs=1)
    assert_same_numbers(resumed[0].history, left.history)
    assert_same_numbers(resumed[1].history, right.history)


def test_a_test_of_an_earlier_checkpoint_keeps_the_longer_history(tmp_path):
    probe = probe_of()
    first, *_ = saved(tmp_path, probe, epochs=2)
    before = list(probe.history)
    trainer_of(tmp_path, probe).test(Calm(), loader(seed=2), ckpt_path=first, verbose=False)
    assert_same_numbers(probe.history, before)
    assert len(probe.tests) == 1


def test_a_test_in_a_new_process_takes_up_the_history_of_its_checkpoint(tmp_path):
    probe = probe_of()
    *_, last = saved(tmp_path, probe, epochs=1)
    new = probe_of()
    trainer_of(tmp_path, new).test(Calm(), loader(seed=2), ckpt_path=last, verbose=False)
    assert_same_numbers(new.history, probe.history)
    assert new.result is new.tests[0]


def test_a_training_behind_an_evaluation_does_not_take_its_checkpoint_for_its_own_past(tmp_path):
    *_, path = saved(tmp_path, probe_of(), epochs=1)
    probe = probe_of()
    trainer = trainer_of(tmp_path, probe, max_epochs=1)
    trainer.validate(Calm(), loader(seed=1), ckpt_path=path, verbose=False)
    run = probe.result.metadata["run"]
    trainer.fit(Calm(), loader(), loader(seed=1))
    assert [result.epoch for result in probe.history] == [-1, 0]
    assert run not in {result.metadata["run"] for result in probe.history}


def test_each_checkpoint_that_is_evaluated_has_the_run_and_the_origin_of_its_own_training(tmp_path):
    trained, paths = [probe_of(), probe_of(seed=1)], []
    for number, probe in enumerate(trained):
        folder = tmp_path / str(number)
        paths += saved(folder, probe, epochs=1, seed=number)
    evaluating = probe_of()
    trainer = trainer_of(tmp_path, evaluating)
    for path in (paths[0], paths[1], paths[0]):
        trainer.validate(Calm(), loader(seed=1), ckpt_path=path, verbose=False)
    left, right = (probe.history[0].metadata["run"] for probe in trained)
    assert [result.metadata["run"] for result in evaluating.validations] == [left, right, left]
    assert_same_numbers(evaluating.history, trained[0].history)


def test_the_spread_of_an_evaluated_checkpoint_is_relative_to_its_own_training(tmp_path):
    spreads, paths = [], []
    for seed in (0, 1):
        probe = probe_of()
        folder = tmp_path / str(seed)
        paths += saved(folder, probe, epochs=1, seed=seed)
        spreads.append(spread_of(tmp_path, [paths[-1]]))
    # What was evaluated before by the same probe changes nothing.
    assert spread_of(tmp_path, paths) == spreads[1]
    assert spreads[0] != spreads[1]


def spread_of(folder, paths):
    """The summary of the last of some checkpoints, all evaluated by one probe."""
    trainer = trainer_of(folder, probe_of())
    for path in paths:
        trainer.validate(Calm(), loader(seed=1), ckpt_path=path, verbose=False)
    return float(trainer.callback_metrics["probe_validate/spread"])


def test_a_state_that_cannot_be_read_is_named_by_its_file(tmp_path):
    *_, path = saved(tmp_path, probe_of(), epochs=1)
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["callbacks"]["SensitivityProbe[probe]"]["history"] = 3
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=rf"in the checkpoint '{re.escape(str(path))}' can't be read: .*a list of res"):
        fit(tmp_path, probe_of(), model=Calm, ckpt_path=path, max_epochs=2)


def test_weights_that_a_forward_changes_are_looked_for_after_a_resume_too(tmp_path):
    class Following(Calm):
        def forward(self, images):
            if not self.training:
                self.head.bias.data.mul_(0.5)
            return super().forward(images)

    *_, path = saved(tmp_path, probe_of(), epochs=1)
    with pytest.raises(RuntimeError, match=r"has changed its parameters 'head\.bias'"):
        fit(tmp_path, probe_of(), model=Following, ckpt_path=path, max_epochs=2, num_sanity_val_steps=0)


def _size(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.tell()


def test_a_state_loads_as_weights_only_with_nothing_lost(tmp_path):
    probe = probe_of()
    fit(tmp_path, probe)
    buffer = io.BytesIO()
    torch.save(probe.state_dict(), buffer)
    buffer.seek(0)
    again = probe_of()
    again.load_state_dict(torch.load(buffer, weights_only=True))
    assert_same_numbers(again.history, probe.history)
    assert [result.metadata for result in again.history] == [result.metadata for result in probe.history]


def test_what_does_not_change_from_probe_to_probe_is_stored_once(tmp_path):
    probe = probe_of()
    fit(tmp_path, probe)
    start, first, second = probe.state_dict()["history"]
    assert start["metadata"]["bank"] is second["metadata"]["bank"]
    assert start["metadata"]["image_ids"] is second["metadata"]["image_ids"]
    assert start["views"] is first["views"]
    sensitivity = [state["tables"]["sensitivity"] for state in (first, second)]
    assert sensitivity[0]["num_images"] is sensitivity[1]["num_images"]
    assert sensitivity[0]["value"] is not sensitivity[1]["value"]


def test_the_state_of_a_large_probe_stays_small(tmp_path):
    bank = AugmentationBank.preset("default")
    probe = SensitivityProbe(bank, layers="stem.*", num_images=64, figures=False)
    model = Net()
    model.stem.extend([torch.nn.ReLU() for _ in range(13)])
    fit(tmp_path, probe, model=model, max_epochs=5, limit_train_batches=1)
    assert (len(bank), len(probe.result.layers)) == (19, 16)
    history = probe.history
    sizes = []
    for probe.history in (history[:2], history):
        sizes.append(_size(probe.state_dict()))
    # 19 views x 17 layers x 2 float64 are 5 kB a metric.
    tables = 5_200 * len(history[0].metrics)
    assert (sizes[1] - sizes[0]) / 4 < 2 * tables
