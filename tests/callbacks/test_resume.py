"""A resumed training has the history of an uninterrupted one, and a checkpoint stays small."""

import io
import itertools
import re
from pathlib import Path

import lightning.pytorch as pl
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

from kornia_lightning_probe import AugmentationBank, ProbeResult, SensitivityProbe
from kornia_lightning_probe.reporting.figures.drawing import figure_pixels
from kornia_lightning_probe.reporting.html.gathered import Probed
from kornia_lightning_probe.reporting.html.numbers import page_numbers
from kornia_lightning_probe.results.kept.rounded import rounded

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


def saved(folder, *probes, epochs, keep=None, **options):
    """The checkpoints of a training, oldest first."""
    keep = ModelCheckpoint(folder, filename="{epoch}-{step}", save_top_k=-1, **(keep or {}))
    fit(folder, *probes, keep, model=Calm, max_epochs=epochs, enable_checkpointing=True, **options)
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
    for name in ("views", "layers", "tables", "pixels"):
        assert start[name] is first[name] is second[name]
    assert start["metadata"]["bank"] is second["metadata"]["bank"]
    assert start["metadata"]["image_ids"] is second["metadata"]["image_ids"]
    assert first["numbers"] is not second["numbers"]


def test_the_state_of_a_large_probe_grows_by_15_kb_at_most(tmp_path):
    bank = AugmentationBank.preset("default")
    probe = SensitivityProbe(bank, layers="stem.*", num_images=64, figures=False)
    model = Net()
    model.stem.extend([torch.nn.ReLU() for _ in range(13)])
    fit(tmp_path, probe, model=model, max_epochs=8, limit_train_batches=1)
    assert (len(bank), len(probe.result.layers)) == (19, 16)
    assert len(probe.history[0].metrics) > 15
    history = probe.history
    sizes = []
    for probe.history in (history[:5], history):
        sizes.append(_size(probe.state_dict()))
    # 4000 numbers of 19 views and 17 layers have 4 bytes each, which are fewer where they are alike, and an error.
    assert (sizes[1] - sizes[0]) / 4 < 15_000


# A training as one that was interrupted half way.


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training of six epochs, and the same one resumed behind its third in another folder."""
    folder = tmp_path_factory.mktemp("trained")
    whole, resumed, kept = probe_of(), probe_of(), Kept()
    path = saved(folder / "whole", whole, kept, epochs=6)[2]
    fit(folder / "again", resumed, model=Calm, ckpt_path=path, max_epochs=6)
    return whole, resumed, kept.results, path


class Kept(pl.Callback):
    """Holds each result as it was when it was the latest."""

    def __init__(self):
        self.results = []

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            probe = next(callback for callback in trainer.callbacks if isinstance(callback, SensitivityProbe))
            self.results = [*(self.results or probe.history[:1]), probe.result]


def test_a_resumed_history_has_every_number_and_error_of_an_uninterrupted_one(trained):
    whole, resumed, _, _ = trained
    assert len(whole.history) == 7
    assert_same_numbers(resumed.history, whole.history)
    for one, other in zip(resumed.history, whole.history, strict=True):
        assert repr(one.rows) == repr(other.rows)
        assert one.std_error("sensitivity") == other.std_error("sensitivity")
        assert one.worst_images() == other.worst_images()
        assert one.by_label() == other.by_label()


def test_any_two_results_of_a_resumed_history_compare_as_those_of_an_uninterrupted_one(trained):
    whole, resumed, _, _ = trained
    for first, second in itertools.combinations(range(7), 2):
        expected = whole.history[first].compare(whole.history[second])
        found = resumed.history[first].compare(resumed.history[second])
        # As a text NaN is equal to NaN.
        assert repr((found.rows, found.view_rows)) == repr((expected.rows, expected.view_rows))
        assert found.notes == expected.notes
        assert {row.metric for row in found.rows if row.paired} == {"sensitivity"}


def test_a_resumed_history_says_and_shows_the_same(trained):
    whole, resumed, _, _ = trained
    verdicts, tables, pictures = [], [], []
    for probe in (whole, resumed):
        before, first, *_, latest = probe.history
        verdicts.append(latest.verdict(before=before, first=first))
        tables.append(repr(page_numbers(Probed("probe", probe.history)).cells))
        pictures.append(figure_pixels(probe.plot("history")))
    assert verdicts[0] == verdicts[1] != ""
    assert tables[0] == tables[1]
    assert (pictures[0] == pictures[1]).all()


def test_what_the_latest_result_is_relative_to_keeps_every_digit_and_the_others_those_of_rounded(trained):
    whole, _, live, _ = trained
    for place, (older, latest) in enumerate(zip(whole.history, live, strict=True)):
        is_whole = place in (0, 1, 5, 6)
        for metric in older.metrics:
            expected = latest.table(metric)
            if not is_whole:
                expected = rounded(metric, expected)
            for column in ("value", "std_error", "num_images", "attempted"):
                pair = (getattr(table, column) for table in (older.table(metric), expected))
                torch.testing.assert_close(*pair, rtol=0, atol=0, equal_nan=True)
        assert (older.table("sensitivity").influence is not None) == (place == 6)
        assert (older.images_held is not None) == (place in (0, 6))


def test_an_older_result_is_written_and_read_again(trained, tmp_path):
    whole, _, _, _ = trained
    whole.history[3].to_json(tmp_path / "third.json")
    again = ProbeResult.from_json(tmp_path / "third.json")
    assert_same_numbers(again, whole.history[3])
    assert again.worst_images() == whole.history[3].worst_images()


def test_a_checkpoint_of_an_earlier_version_gives_the_same_history(trained):
    whole, _, live, _ = trained
    again = probe_of()
    # It held each result as it writes itself.
    again.load_state_dict({**whole.state_dict(), "history": [result.state() for result in live]})
    assert_same_numbers(again.history, whole.history)
    assert [result.metadata for result in again.history] == [result.metadata for result in whole.history]


def test_without_the_files_a_resumed_history_is_compared_unpaired_and_says_so(trained, tmp_path):
    *_, path = trained
    state = torch.load(path, weights_only=True)["callbacks"]["SensitivityProbe[probe]"]
    for entry in state["history"]:
        entry["images"]["path"] = str(tmp_path / Path(entry["images"]["path"]).name)
    probe = probe_of()
    probe.load_state_dict(state)
    comparison = probe.history[0].compare(probe.history[-1])
    assert not any(row.paired for row in comparison.rows)
    assert comparison.notes[0].startswith("not paired, though the images are the same: ")
    assert comparison.notes[1] == (
        "each image's own rows are not where they were written, or are of another result: "
        f"{tmp_path}/fit-epoch=-1-step=0.images.npz, {tmp_path}/fit-epoch=2-step=11.images.npz"
    )
    with pytest.raises(ValueError, match=r"each image's own movement isn't kept here"):
        probe.history[1].worst_images()
