"""What a probe costs the network: a handful of collectives, however many layers, views and images there are."""

import json
from collections import Counter
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import lightning.pytorch as pl
import pytest
import torch
from support.processes import ddp
from support.trainings import QUIET, trainer_of
from torch import nn
from torch.distributed import distributed_c10d
from torch.utils.data import DataLoader, TensorDataset

from kornia_lightning_probe import AugmentationBank, DriftProbe, SensitivityProbe

pytestmark = [
    pytest.mark.distributed,
    *(pytest.mark.filterwarnings(line) for line in QUIET),
    pytest.mark.filterwarnings("ignore:Using `DistributedSampler` with the dataloaders:UserWarning"),
]

# What torch's other collectives, those of Python objects among them, are made of.
PRIMITIVES = (
    "all_gather",
    "all_gather_into_tensor",
    "all_reduce",
    "all_to_all",
    "all_to_all_single",
    "barrier",
    "broadcast",
    "gather",
    "monitored_barrier",
    "recv",
    "reduce",
    "reduce_scatter",
    "reduce_scatter_tensor",
    "scatter",
    "send",
)


# A text from every process takes two gathers: once where images are read, once for their labels, once for the layers
# that run, once where all are done, and once where a probe has a result everywhere or nowhere. Then there is one sum.
# The broadcasts are Lightning's, when it is asked for the folder of the logs.
HANDFUL = {"all_gather": 8, "all_reduce": 1, "broadcast": 2}
# What the processes have drawn of the worst images, which are known after the first sum, is a second one.
WITH_PICTURES = HANDFUL | {"all_reduce": 2}


@contextmanager
def counted():
    """How often each collective of torch.distributed is called, by name."""
    calls = Counter()

    def counting(name, call):
        def run(*args, **kwargs):
            calls[name] += 1
            return call(*args, **kwargs)

        return run

    with ExitStack() as stack:
        for name in PRIMITIVES:
            counts = counting(name, getattr(distributed_c10d, name))
            for module in (torch.distributed, distributed_c10d):
                stack.enter_context(patch.object(module, name, counts))
        yield calls


class Counts:
    """Makes a probe write what each measurement called, since its process ends with the training."""

    def __init__(self, folder, **options):
        super().__init__(**options)
        self.folder = folder

    def probe(self, trainer, module, *, epoch):
        with counted() as calls:
            super().probe(trainer, module, epoch=epoch)
        path = self.folder / f"{self.name} {trainer.global_rank} {len(self.history)}.json"
        path.write_text(json.dumps(calls))


class CountsSensitivity(Counts, SensitivityProbe):
    pass


class CountsDrift(Counts, DriftProbe):
    pass


class Deep(pl.LightningModule):
    """A stack of layers, each of which is measured."""

    def __init__(self, depth):
        super().__init__()
        self.layers = nn.Sequential(*(nn.Conv2d(1, 1, 1) for _ in range(depth)))
        for layer in self.layers:
            # Many random factors below 1 would leave nothing to be seen.
            nn.init.ones_(layer.weight)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(9, 2))

    def forward(self, images):
        return self.head(self.layers(images))

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Darker(nn.Module):
    """Multiplies the pixels; it draws nothing and costs nothing."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, images):
        return images * self.factor


def calls_of(folder, kind, *, depth, count, **options):
    """What each of two processes has called in a training's one measurement."""
    folder.mkdir()
    images = torch.rand(count, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(images, torch.arange(count) % 2)
    probe = kind(
        folder, num_images=count, layers=["re:layers\\..*"], batch_size=512, figures=False, at_start=False, **options
    )
    trainer = trainer_of(folder, probe, max_epochs=1, strategy=ddp(), devices=2, num_sanity_val_steps=0)
    trainer.fit(Deep(depth), DataLoader(data, 256), DataLoader(data, 256))
    first, second = (json.loads((folder / f"{probe.name} {rank} 1.json").read_text()) for rank in range(2))
    assert first == second
    return first


def views(number):
    return AugmentationBank({"darker": [Darker(1 - 0.01 * (level + 1)) for level in range(number)]})


@pytest.mark.parametrize(("depth", "number", "count"), [(2, 1, 64), (40, 50, 512)])
def test_a_probe_syncs_in_a_handful_of_collectives_whatever_its_size(tmp_path, depth, number, count):
    calls = calls_of(tmp_path / "here", CountsSensitivity, depth=depth, count=count, bank=views(number))
    assert calls == WITH_PICTURES


def test_drift_syncs_in_a_handful_of_collectives_too(tmp_path):
    calls = calls_of(tmp_path / "here", CountsDrift, depth=40, count=512)
    assert calls == HANDFUL
