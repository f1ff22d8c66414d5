"""What fails beside the measurement ends no training; what fails in it says what to do, or is left out if asked for."""

import os
import re
import warnings
from pathlib import Path

import kornia.augmentation as K  # noqa: N812 - Kornia's own convention
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from support.processes import ddp, run_forked
from support.trainings import (
    QUIET,
    LoggedCalls,
    Net,
    assert_same_weights,
    bank_of,
    fit,
    images_of,
    loader,
    probe_of,
    validate,
    weights,
)

from kornia_lightning_probe import AugmentationBank, ProbeResult, SensitivityProbe
from kornia_lightning_probe.callbacks.mishaps import agree, without_values
from kornia_lightning_probe.callbacks.record import with_facts
from kornia_lightning_probe.engine.processes import World

pytestmark = [pytest.mark.filterwarnings(line) for line in QUIET]


def said_of(said, words):
    return [str(warning.message) for warning in said if words in str(warning.message)]


def test_a_folder_that_can_not_be_written_is_warned_of_once_and_the_training_goes_on(tmp_path):
    # A file where the folder should be: not even root can write into it.
    (tmp_path / "probe").write_text("in the way")
    probe = probe_of()
    with pytest.warns(UserWarning, match="the probe 'probe' could not write its file") as said:
        fit(tmp_path, probe)
    (sentence,) = said_of(said, "could not write")
    assert "FileExistsError" in sentence or "NotADirectoryError" in sentence
    assert [result.epoch for result in probe.history] == [-1, 0, 1]
    assert (tmp_path / "probe").read_text() == "in the way"


def test_a_full_disk_leaves_what_was_written_before_whole(tmp_path, monkeypatch):
    write_text, written = Path.write_text, []

    def fill(self, text, encoding=None):
        written.append(self)
        if len(written) > 1:
            raise OSError(28, "No space left on device")
        return write_text(self, text, encoding=encoding)

    monkeypatch.setattr(Path, "write_text", fill)
    probe = probe_of()
    with pytest.warns(UserWarning, match=r"could not write its file \(OSError: .*No space left") as said:
        fit(tmp_path, probe)
    assert len(said_of(said, "No space left")) == 1
    assert len(probe.history) == 3
    (path,) = (tmp_path / "probe").glob("*.json")
    assert ProbeResult.from_json(path).epoch == -1


def refuse(*_, **__):
    raise ValueError("matplotlib has refused")


def test_a_figure_that_can_not_be_drawn_is_warned_of_once_and_the_others_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr("kornia_lightning_probe.reporting.figures.epoch.plot_epoch", refuse)
    probe = probe_of(figures=True)
    logger = TensorBoardLogger(tmp_path, name="run")
    drawn = []
    monkeypatch.setattr(logger.experiment, "add_image", lambda tag, *_, **__: drawn.append(tag))
    with pytest.warns(UserWarning, match=r"could not draw 'probe/layers' \(ValueError: matplotlib has refused") as said:
        fit(tmp_path, probe, logger=logger)
    assert len(said_of(said, "could not draw")) == 1
    assert drawn == ["probe/bank", *["probe/worst", "probe/history"] * 3]
    assert len(probe.history) == 3


@pytest.mark.filterwarnings("ignore:the probe 'probe' could not draw")
def test_names_that_are_no_mathematics_end_no_training(tmp_path):
    bank = AugmentationBank({r"$\bad{$": K.RandomHorizontalFlip(p=1.0)})
    probe = SensitivityProbe(bank, layers="head", num_images=8)
    fit(tmp_path, probe, logger=TensorBoardLogger(tmp_path, name="run"))
    assert len(probe.history) == 3


@pytest.mark.parametrize("call", ["add_image", "add_custom_scalars", "get_logdir"])
def test_a_logger_whose_pictures_fail_is_warned_of_once(tmp_path, monkeypatch, call):
    logger = TensorBoardLogger(tmp_path, name="run")
    monkeypatch.setattr(logger.experiment, call, refuse)
    probe = probe_of(figures=True)
    with pytest.warns(UserWarning, match="the probe 'probe' could not draw") as said:
        fit(tmp_path, probe, logger=logger)
    # The pictures of the bank, the layers, the worst images and the history are four.
    assert len(said_of(said, "could not draw")) == (4 if call == "add_image" else 1)
    assert len(probe.history) == 3


def test_a_logger_that_fails_to_log_leaves_the_others_their_curves(tmp_path):
    class Broken(LoggedCalls):
        def log_metrics(self, metrics, step=None):
            if "probe_sensitivity/head" in metrics:
                raise ConnectionError("the server is gone")

    other = LoggedCalls()
    with pytest.warns(UserWarning, match=r"could not log its curves \(ConnectionError: the server is gone\)") as said:
        fit(tmp_path, probe_of(), logger=[Broken(), other])
    assert len(said_of(said, "could not log")) == 1
    assert [step for values, step in other.of("probe") if "probe_sensitivity/head" in values] == [0, 3, 7]


class Failing(Net):
    """Its forward fails on the images of a probe, in some epochs."""

    def __init__(self, error, *, epochs=(1,)):
        super().__init__()
        self.error, self.epochs = error, epochs

    def forward(self, images):
        is_probe = len(images) == 13
        if is_probe and self.trainer.current_epoch in self.epochs and self.trainer.global_step > 0:
            raise self.error
        return super().forward(images)


def test_a_measurement_that_fails_ends_the_training_by_default(tmp_path):
    with pytest.raises(RuntimeError, match="no thirteen images"):
        fit(tmp_path, probe_of(num_images=13), model=Failing(RuntimeError("no thirteen images")))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_out_of_memory_error_says_what_is_needed_and_to_lower_batch_size(tmp_path, error):
    with pytest.raises(type(error)) as failed:
        fit(tmp_path, probe_of(num_images=13), model=Failing(error))
    size, note = failed.value.__notes__
    assert re.match(r"when memory ran out, the clean activations of the first block took \S+ MiB", size)
    assert "'probe' has run out of memory" in note
    assert "(0 MiB at the last probe)" in note
    assert "batch_size=32 images in one forward pass; lower batch_size=" in note


def test_with_on_error_warn_a_probe_that_fails_is_left_out_and_the_weights_are_the_same(tmp_path):
    probe = probe_of(num_images=13, on_error="warn")
    with pytest.warns(
        UserWarning, match=r"has failed in epoch 1 and is left out there.*OSError: a disk is gone"
    ) as said:
        trainer = fit(tmp_path, probe, model=lambda: Failing(OSError("a disk is gone")), max_epochs=3)
    assert len(said_of(said, "left out there")) == 1
    assert [result.epoch for result in probe.history] == [-1, 0, 2]
    without = fit(tmp_path, model=lambda: Failing(OSError("never")), max_epochs=3)
    assert_same_weights(weights(trainer.lightning_module), weights(without.lightning_module))


@pytest.mark.parametrize(
    "watcher",
    [
        EarlyStopping("probe/spread", patience=9),
        ModelCheckpoint(monitor="probe/spread"),
    ],
    ids=lambda watcher: type(watcher).__name__,
)
def test_who_watches_a_value_that_is_left_out_is_named(tmp_path, watcher):
    probe = probe_of(num_images=13, on_error="warn")
    name = type(watcher).__name__
    with pytest.warns(UserWarning, match=rf"left out there.*without a new value: {name} \('probe/spread'\)"):
        fit(
            tmp_path,
            probe,
            watcher,
            model=Failing(OSError("gone")),
            enable_checkpointing=isinstance(watcher, ModelCheckpoint),
        )


def test_under_a_sharded_strategy_a_failure_is_always_raised():
    probe = probe_of(on_error="warn")
    world = World(size=2, gather=refuse, lockstep=True)
    failure = OSError("gone")
    # Nobody is asked: the others may wait in a forward pass.
    assert agree(world, failure) is failure
    occasion = type("Occasion", (), {"world": world, "epoch": 0})
    with pytest.raises(OSError, match="gone"):
        probe._fail(None, failure, occasion)


def test_where_one_process_has_failed_the_others_are_told():
    reports = World(rank=0, size=2, gather=lambda text: [text, "OSError: gone"])
    assert str(agree(reports, None)) == "the probe failed on rank 1: OSError: gone"
    assert agree(World(), None) is None


class FailingOnOneRank(Net):
    """Rank 1 fails in epoch 1: under the views of its own block, so the others have begun to measure."""

    def forward(self, images):
        fails = self.global_rank == 1 and self.trainer.current_epoch == 1 and self.trainer.validating
        if fails and len(images) == 25:
            raise OSError("a disk of rank 1 is gone")
        return super().forward(images)


def _train_with_a_failing_rank(rank, folder, on_error):
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    # Two blocks of 25 images; rank 0 has the first, which the scout sees too.
    probe = probe_of(images=images_of(50), on_error=on_error, at_start=False)
    said = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit(
                folder,
                probe,
                model=FailingOnOneRank,
                strategy=ddp(method="popen"),
                devices=2,
                max_epochs=3,
                val=loader(32, seed=1),
            )
            said = [str(warning.message) for warning in caught if "left out there" in str(warning.message)]
    except (OSError, RuntimeError) as error:
        said = [f"{type(error).__name__}: {error}"]
    epochs = [result.epoch for result in probe.history]
    (folder / f"{rank}.txt").write_text(f"{epochs} {said}")


@pytest.mark.distributed
def test_where_one_process_fails_all_leave_this_probe_out_and_go_on(tmp_path):
    run_forked(2, _train_with_a_failing_rank, tmp_path, "warn")
    said = [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)]
    assert said[0].startswith("[0, 2] [\"the probe 'probe' has failed in epoch 1 and is left out there")
    assert "the probe failed on rank 1: OSError: a disk of rank 1 is gone" in said[0]
    assert said[1] == "[0, 2] []"


@pytest.mark.distributed
def test_where_one_process_fails_all_stop_unless_told_otherwise(tmp_path):
    run_forked(2, _train_with_a_failing_rank, tmp_path, "raise")
    said = [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)]
    assert said[0] == "[0] ['OtherRankError: the probe failed on rank 1: OSError: a disk of rank 1 is gone']"
    assert said[1] == "[0] ['OSError: a disk of rank 1 is gone']"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("one channel holds 51 % of it at layer1", "one channel holds 98 % of it at layer1", True),
        ("at stem (51%), body (70%): sensitivity", "at stem (9%), body (71%): sensitivity", True),
        ("at stem (51%): sensitivity", "at body (51%): sensitivity", False),
        ("differ by a sensitivity of 0.0012 at layer 'a'", "differ by a sensitivity of 3e-05 at layer 'a'", True),
        ("a sensitivity of 0.1 at layer '0.1'", "a sensitivity of 0.1 at layer '0.2'", False),
        ("left out at stem (images 4 of the source)", "left out at stem (images 4, 7 and 3 more of the source)", True),
        ("a sensitivity of inf at layer 'a'", "a sensitivity of 0.2 at layer 'a'", True),
        ("the images go from -2.1 to 2.6", "the images go from nan to 2.7", True),
        ("3 of 32 images are constant", "4 of 32 images are constant", True),
        ("values between 0.1 and 0.9", "values between -0.2 and 0.8", True),
        ("gave no activation: 0, 4; metadata", "gave no activation: 0, 5; metadata", False),
        ("changed no pixel: rotation 5", "changed no pixel: rotation 15", False),
    ],
)
def test_sentences_that_differ_in_measured_values_only_are_one(one, other, same):
    assert (without_values(one) == without_values(other)) == same


def test_sentences_of_one_kind_are_said_once_and_those_of_another_again(tmp_path):
    class Talking(SensitivityProbe):
        def measure(self, subject, images, occasion):
            result = super().measure(subject, images, occasion)
            layer = f"noise at layer '{occasion.epoch}'"
            return with_facts(result, warnings=[layer, f"other {layer}"], warning_kinds=["noise", layer])

    probe = Talking(bank_of(), layers="head", num_images=8, figures=False)
    with pytest.warns(UserWarning, match="noise at layer") as said:
        fit(tmp_path, probe)
    assert len(said_of(said, "other noise")) == 3
    assert len(said_of(said, "noise")) == 4


def test_a_warning_with_another_value_in_each_epoch_is_said_once(tmp_path):
    class Talking(SensitivityProbe):
        def measure(self, subject, images, occasion):
            result = super().measure(subject, images, occasion)
            return with_facts(result, warnings=[f"one channel holds {50 + occasion.epoch} % of it"])

    probe = Talking(bank_of(), layers="head", num_images=8, figures=False)
    with pytest.warns(UserWarning, match="one channel holds 49 % of it") as said:
        fit(tmp_path, probe)
    assert len(said_of(said, "one channel holds")) == 1
    validate(tmp_path, probe)
