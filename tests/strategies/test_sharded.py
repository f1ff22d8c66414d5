"""Trainings whose parameters are cut over processes: every forward is collective, and shares are unequal."""

import os
import warnings

import pytest
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from support.even import Even, assert_same_history, befall, seconds_since, train
from support.processes import SECONDS, run_forked
from support.trainings import QUIET, images_of, probe_of, validate
from torch.utils.data import TensorDataset

from kornia_lightning_probe import ProbeImages

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.usefixtures("one_thread"),
    *(pytest.mark.filterwarnings(line) for line in QUIET),
]


class Sharded(Even):
    """Each of its layers' parameters are cut over the processes; on some of them nothing is left of the smallest."""

    def configure_model(self):
        from torch.distributed.fsdp import fully_shard

        for child in (self.stem, self.body, self.head, self):
            fully_shard(child, mesh=self.device_mesh["data_parallel"])


def _options(processes):
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    strategy = ModelParallelStrategy(data_parallel_size=processes, tensor_parallel_size=1, process_group_backend="gloo")
    return {"strategy": strategy, "devices": processes}


def _train(rank, folder, processes, count):
    images = images_of(count, seed=3)
    train(folder, processes=processes, images=images, model=Sharded, **_options(processes))


# 80 images are three blocks and 33 are two, so some processes have one block more than others; 20 are one.
@pytest.mark.parametrize(("processes", "count"), [(2, 80), (3, 33), (4, 20)])
def test_a_training_has_the_history_of_one_process(tmp_path, processes, count):
    train(tmp_path / "alone", images=images_of(count, seed=3))
    run_forked(processes, _train, tmp_path / "together", processes, count)
    assert_same_history(tmp_path / "together", tmp_path / "alone", processes=processes)


def _train_with_a_mishap(rank, folder, mishap, on_error):
    try:
        befall(folder, mishap, rank=1, kind=Sharded, on_error=on_error, **_options(3))
        end = "trained"
    except BaseException as error:
        end = f"{type(error).__name__}: {error}"
    (folder / f"{rank}.txt").write_text(f"{seconds_since(folder):.1f} {end}")


@pytest.mark.parametrize(
    ("mishap", "on_error"), [("raise", "raise"), ("raise", "warn"), ("interrupt", "raise"), ("kill", "raise")]
)
def test_where_one_fails_in_a_forward_the_others_do_not_wait_for_it(tmp_path, mishap, on_error):
    run_forked(3, _train_with_a_mishap, tmp_path, mishap, on_error)
    said = {}
    for path in tmp_path.glob("*.txt"):
        seconds, _, said[int(path.stem)] = path.read_text().partition(" ")
        assert float(seconds) < SECONDS / 3
    unlucky = said.pop(1, None)
    expected = {"raise": "OSError: a disk of rank 1 is gone", "interrupt": "SystemExit: 1", "kill": None}
    assert unlucky == expected[mishap]
    # The others can't be told: they are in a forward pass that it should have joined.
    assert sorted(said) == [0, 2]
    for end in said.values():
        # The group's own words, or those of one that has ended for the same reason.
        assert end.startswith("RuntimeError: ")
        assert "Connection closed by peer" in end or "Connection reset by peer" in end


class Broken(TensorDataset):
    """The last image that the probe takes can't be read: it is in rank 1's block of two."""

    def __getitem__(self, index):
        if index == ProbeImages(self.tensors[0], num_images=64).image_ids[-1]:
            raise OSError("this file is gone")
        return super().__getitem__(index)


def _validate_broken(rank, folder):
    probe = probe_of(images=Broken(images_of(64, seed=3)), num_images=64)
    try:
        validate(folder, probe, model=Sharded, **_options(3))
    except (OSError, RuntimeError) as error:
        (folder / f"{rank}.txt").write_text(f"{type(error).__name__}: {error}")


def test_where_one_can_not_read_its_images_all_are_told_why(tmp_path):
    run_forked(3, _validate_broken, tmp_path)
    said = [(tmp_path / f"{rank}.txt").read_text() for rank in range(3)]
    reason = "OSError: this file is gone"
    other = f"OtherRankError: the probe failed on rank 1: {reason}"
    assert said == [other, reason, other]
