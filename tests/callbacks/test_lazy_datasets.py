"""Trainings on files that are opened at first use: the probe opens none of them in this process."""

import lightning.pytorch as pl
import pytest
import torch
from support.datasets import DuckTyped, LazyRaw, LazyStream, LazyZip, Marked, pixels_of, traces_of, write_raw, write_zip
from support.processes import ddp
from support.trainings import QUIET, Net, assert_same_weights, probe_of, trainer_of, validate, weights
from torch.utils.data import ConcatDataset, DataLoader, Subset, random_split

from kornia_lightning_probe import DriftProbe, ProbeResult

pytestmark = [
    *(pytest.mark.filterwarnings(line) for line in QUIET),
    # Where a dataset is put together with itself.
    pytest.mark.filterwarnings("ignore:.* probe images are copies of others:UserWarning"),
]


class Seeing(Net):
    """Keeps a checksum of every batch that it is trained on."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch[0].double().sum().item())
        return super().training_step(batch, batch_idx)


def trained(folder, dataset, *probes, val=None, start_method="fork", epochs=2):
    """Train on a dataset of 64 images with two workers, and validate on it or on another."""
    pl.seed_everything(0, verbose=False)
    model = Seeing()
    workers = {"num_workers": 2, "multiprocessing_context": start_method}
    trainer = trainer_of(folder, *probes, max_epochs=epochs, num_sanity_val_steps=0)
    val = dataset if val is None else val
    trainer.fit(model, DataLoader(dataset, 8, shuffle=True, **workers), DataLoader(val, 16, **workers))
    return model


def assert_undisturbed(folder, made, *probes, **options):
    """The training is the same with and without the probes, and its dataset as it was."""
    plain = trained(folder, made(), **options)
    dataset = made()
    before = traces_of(dataset)
    probed = trained(folder, dataset, *probes, **options)
    assert traces_of(dataset) == before
    assert probed.seen == plain.seen
    assert_same_weights(weights(probed), weights(plain))


def drift_of(**options):
    return DriftProbe(**{"layers": ["stem", "head"], "num_images": 16, "figures": False} | options)


@pytest.mark.filterwarnings("ignore:Consider setting `persistent_workers:UserWarning")
@pytest.mark.parametrize(
    ("kind", "write", "start_method"),
    [
        (LazyRaw, write_raw, "fork"),
        (LazyZip, write_zip, "fork"),
        pytest.param(LazyZip, write_zip, "spawn", marks=pytest.mark.slow),
    ],
)
def test_the_training_of_a_lazily_opened_file_is_the_same_with_the_probes(tmp_path, kind, write, start_method):
    path = write(tmp_path / "images", pixels_of())
    probes = probe_of(), drift_of()
    assert_undisturbed(tmp_path, lambda: kind(path), *probes, start_method=start_method, epochs=1)
    assert [result.epoch for result in probes[0].history] == [-1, 0]
    assert len(probes[1].history) == 2


def split(dataset):
    return random_split(dataset, [32, 32], torch.Generator().manual_seed(0))[0]


@pytest.mark.parametrize(
    "wrap",
    [lambda dataset: Subset(dataset, range(10, 60)), lambda dataset: ConcatDataset([dataset, dataset]), split],
    ids=["subset", "concat", "split"],
)
def test_a_file_under_a_wrapper_is_not_opened_either(tmp_path, wrap):
    path = write_raw(tmp_path / "images", pixels_of())
    probe = probe_of()
    assert_undisturbed(tmp_path, lambda: wrap(LazyRaw(path)), probe)
    assert probe.result.metadata["num_images"] == 16


def test_a_stream_of_a_lazily_opened_file_is_not_opened_either(tmp_path):
    path = write_raw(tmp_path / "images", pixels_of())
    stream = LazyStream(LazyRaw(path))
    before = traces_of(stream)
    probe = probe_of()
    trained(tmp_path, LazyRaw(path), probe, val=stream)
    assert traces_of(stream) == before
    assert sorted(probe.result.metadata["image_ids"]) == list(range(16))
    assert any("read by one worker process" in note for note in probe.result.metadata["notes"])


@pytest.mark.parametrize("wrap", [lambda dataset: dataset, split], ids=["itself", "split"])
def test_images_from_a_dataset_that_the_training_reads_in_workers_are_read_in_one(tmp_path, wrap):
    dataset = LazyRaw(write_raw(tmp_path / "images", pixels_of()))
    before = traces_of(dataset)
    probes = probe_of(images=wrap(dataset)), drift_of(images=wrap(dataset))
    trained(tmp_path, dataset, *probes)
    assert traces_of(dataset) == before


def test_images_from_a_dataset_of_no_class_of_pytorch_are_read_in_a_worker_too(tmp_path):
    dataset = DuckTyped(write_raw(tmp_path / "images", pixels_of()))
    before = traces_of(dataset.raw)
    trained(tmp_path, dataset, probe_of(images=dataset))
    assert traces_of(dataset.raw) == before


def test_images_from_a_dataset_of_ones_own_are_read_in_this_process(tmp_path):
    others = Marked()
    trained(tmp_path, LazyRaw(write_raw(tmp_path / "images", pixels_of())), probe_of(images=others))
    assert others.calls == 16


def test_the_numbers_of_a_random_dataset_do_not_depend_on_workers(tmp_path):
    hashes = []
    for workers in (0, 2):
        probe = probe_of()
        trainer = trainer_of(tmp_path, probe)
        trainer.validate(Net(), DataLoader(Marked(), 8, num_workers=workers), verbose=False)
        hashes.append(probe.result.metadata["content_hash"])
    assert hashes[0] == hashes[1]


@pytest.mark.distributed
@pytest.mark.filterwarnings("ignore:Using `DistributedSampler` with the dataloaders:UserWarning")
@pytest.mark.parametrize("kind", [Marked, lambda: LazyStream(Marked())], ids=["by index", "stream"])
def test_every_process_reads_its_blocks_in_a_worker_of_its_own(tmp_path, monkeypatch, kind):
    # OpenMP's threads do not survive a fork.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    hashes = []
    for name, options in (("alone", {}), ("together", {"strategy": ddp(), "devices": 2})):
        folder = tmp_path / name
        validate(folder, probe_of(num_images=64), val=DataLoader(kind(), 8, num_workers=1), **options)
        (path,) = (folder / "probe").glob("*.json")
        hashes.append(ProbeResult.from_json(path).metadata["content_hash"])
    assert hashes[0] == hashes[1]
