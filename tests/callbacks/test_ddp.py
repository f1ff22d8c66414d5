"""SensitivityProbe on several processes: the same numbers and weights, and nobody waits for one that has failed."""

import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from support.processes import ddp, run_forked
from support.trainings import (
    QUIET,
    Net,
    Shaky,
    assert_same_numbers,
    assert_same_weights,
    fit,
    images_of,
    probe_of,
    validate,
    weights,
)
from torch.utils.data import DataLoader, IterableDataset

from kornia_lightning_probe import ProbeImages, ProbeResult
from kornia_lightning_probe.metrics import ProbeMetric, mean_with_error

pytestmark = [
    pytest.mark.distributed,
    *(pytest.mark.filterwarnings(line) for line in QUIET),
    # Lightning's, and a matter of the evaluation, not of the probe.
    pytest.mark.filterwarnings("ignore:Using `DistributedSampler` with the dataloaders:UserWarning"),
]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    # OpenMP's threads do not survive a fork, and a process that waits for them hangs; Lightning would ask for more.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def results_in(folder):
    """Every result that rank 0 has written, oldest first: the processes' own callbacks are gone."""
    read = [ProbeResult.from_json(path) for path in (Path(folder) / "probe").glob("*.json")]
    return sorted(read, key=lambda result: result.step)


def validated(folder, processes, *, images=None, **options):
    world = {} if processes == 1 else {"strategy": ddp(), "devices": processes}
    validate(folder, probe_of(images=images, num_images=128), **world | options)
    (result,) = results_in(folder)
    return result


# Blocks hold at most 32 images: 4, 31 are one block, 33 are two of 17 and 16, 80 are three of 27, 27 and 26. So with
# three processes one or two are idle, and with two one of them works on two blocks of three.
@pytest.mark.parametrize("count", [4, 31, 33, 80])
@pytest.mark.parametrize("processes", [2, 3])
def test_any_number_of_processes_gives_the_same_numbers(tmp_path, count, processes):
    images = images_of(count, seed=3)
    alone = validated(tmp_path / "alone", 1, images=images)
    together = validated(tmp_path / "together", processes, images=images)
    assert together.metadata["world_size"] == processes
    assert together.metadata["num_images"] == alone.metadata["num_images"] == count
    assert together.metadata["content_hash"] == alone.metadata["content_hash"]
    for metric in alone.metrics:
        assert torch.equal(together.table(metric).num_images, alone.table(metric).num_images)
    assert_same_numbers(together, alone, rtol=1e-5)


class UnitFlips(ProbeMetric):
    name = "unit_flips"
    statistics = ("flips",)

    def measure(self, clean, augmented, about):
        return {"flips": ((clean > 0) != (augmented > 0)).flatten(1).float().mean(1)}

    def reduce(self, table):
        estimate = mean_with_error(table["flips"])
        return estimate.value, estimate.std_error


def test_a_metric_of_ones_own_gives_the_same_numbers_on_two_processes(tmp_path):
    found = []
    for processes in (1, 2):
        world = {} if processes == 1 else {"strategy": ddp(), "devices": processes}
        folder = tmp_path / str(processes)
        validate(folder, probe_of(images=images_of(80), metrics=["sensitivity", UnitFlips()]), **world)
        (result,) = results_in(folder)
        found.append(result.tensor("unit_flips"))
    assert torch.equal(*found)
    assert (found[0] > 0).any()


def test_the_images_of_a_random_validation_dataset_are_the_same_on_any_number_of_processes(tmp_path):
    def val():
        return DataLoader(Shaky(images_of(80, seed=3)), 16)

    alone = validated(tmp_path / "alone", 1, val=val())
    together = validated(tmp_path / "together", 2, val=val())
    assert together.metadata["content_hash"] == alone.metadata["content_hash"]
    assert_same_numbers(together, alone, rtol=1e-5)


class Stream(IterableDataset):
    """Gives every process other images, as a sharded stream does."""

    def __iter__(self):
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        yield from ((image, number % 2) for number, image in enumerate(images_of(50, seed=10 + rank)))


def test_of_an_iterable_dataset_every_process_uses_what_rank_0_has_read(tmp_path):
    alone = validated(tmp_path / "alone", 1, val=DataLoader(Stream(), 16))
    together = validated(tmp_path / "together", 2, val=DataLoader(Stream(), 16))
    assert together.metadata["content_hash"] == alone.metadata["content_hash"]
    assert_same_numbers(together, alone, rtol=1e-5)


def test_a_training_on_two_processes_writes_a_file_for_each_probed_epoch(tmp_path):
    fit(tmp_path, probe_of(), strategy=ddp(), devices=2)
    # 64 images in batches of 16 on two processes: 2 steps an epoch.
    assert [(result.epoch, result.step) for result in results_in(tmp_path)] == [(-1, 0), (0, 1), (1, 3)]


def test_a_training_on_two_processes_ends_in_the_same_weights_with_the_probe(tmp_path):
    def trained(*callbacks):
        trainer = fit(
            tmp_path,
            *callbacks,
            strategy=ddp(),
            devices=2,
            train=DataLoader(Shaky(images_of()), 16, shuffle=True),
            val=DataLoader(Shaky(images_of(seed=1)), 16),
        )
        return weights(trainer.lightning_module)

    without = trained()
    assert_same_weights(trained(probe_of()), without)
    assert not torch.equal(without["head.weight"], weights(Net())["head.weight"])


class Broken(Shaky):
    """One image can't be read: the last that the probe takes, which is in block 1 of two, and so rank 1's alone."""

    def __getitem__(self, index):
        if index == ProbeImages(self.images, num_images=64).image_ids[-1]:
            msg = "this file is gone"
            raise OSError(msg)
        return super().__getitem__(index)


class BrokenStream(IterableDataset):
    """Rank 0, which reads for all, can't."""

    def __iter__(self):
        msg = "this stream is gone"
        raise OSError(msg)


def _validate_broken(rank, folder, images):
    warnings.simplefilter("ignore")
    try:
        validate(folder, probe_of(images=images, num_images=64), strategy=ddp(method="popen"), devices=3)
    except (OSError, RuntimeError) as error:
        (folder / f"{rank}.txt").write_text(f"{type(error).__name__}: {error}")


@pytest.mark.parametrize(
    ("images", "rank", "reason"),
    [(Broken(images_of(64, seed=3)), 1, "this file is gone"), (BrokenStream(), 0, "this stream is gone")],
)
def test_where_one_process_fails_all_stop_with_its_reason(tmp_path, images, rank, reason):
    run_forked(3, _validate_broken, tmp_path, images)
    said = [(tmp_path / f"{each}.txt").read_text() for each in range(3)]
    # One has the error itself, the others are told whose it is.
    expected = [f"OtherRankError: the probe failed on rank {rank}: OSError: {reason}"] * 3
    expected[rank] = f"OSError: {reason}"
    assert said == expected


class Sharded(Net):
    """Its parameters are cut over the processes, or its layers' rows."""

    def configure_model(self):
        from torch.distributed.fsdp import fully_shard
        from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

        mesh = self.device_mesh
        if mesh["tensor_parallel"].size() > 1:
            from torch.distributed.tensor import Replicate

            parallelize_module(self, mesh["tensor_parallel"], {"head": ColwiseParallel(output_layouts=Replicate())})
        if mesh["data_parallel"].size() > 1:
            for child in (self.stem, self.body, self.head, self):
                fully_shard(child, mesh=mesh["data_parallel"])

    def validation_step(self, batch, batch_idx):
        self(batch[0])


def _validate_sharded(rank, folder, images, sizes):
    warnings.simplefilter("ignore")
    data, tensor = sizes
    strategy = ModelParallelStrategy(data_parallel_size=data, tensor_parallel_size=tensor, process_group_backend="gloo")
    validate(folder, probe_of(images=images), model=Sharded, strategy=strategy, devices=2)


@pytest.mark.parametrize("count", [20, 80])
@pytest.mark.parametrize("sizes", [(2, 1), (1, 2)], ids=["FSDP2", "tensor parallel"])
def test_sharded_models_run_in_step_and_give_the_same_numbers(tmp_path, count, sizes):
    images = images_of(count, seed=3)
    alone = validated(tmp_path / "alone", 1, images=images)
    run_forked(2, _validate_sharded, tmp_path / "sharded", images, sizes)
    (sharded,) = results_in(tmp_path / "sharded")
    assert_same_numbers(sharded, alone, rtol=1e-5)
