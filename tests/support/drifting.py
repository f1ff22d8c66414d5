"""A small net, its training and a DriftProbe, that the tests of drift share."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from kornia_lightning_probe.callbacks.drift import DriftProbe
from support import trainings

LIGHTNINGS_OWN_WARNINGS = [
    # Lightning 2.6 makes torch's LeafSpec, which torch 2.13 warns of.
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.* is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    # On a busy machine.
    pytest.mark.filterwarnings("ignore:.*takes more than 10 % of an epoch.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]


class Net(pl.LightningModule):
    def __init__(self, *, width=6, frozen=False, dead=False):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(width, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.flat = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, 3)
        self.stem.requires_grad_(not frozen)
        if dead:
            nn.init.zeros_(self.stem[0].weight)
            nn.init.constant_(self.stem[0].bias, -1.0)

    def forward(self, x):
        return self.head(self.flat(self.body(self.stem(x))))

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self.log("loss", nn.functional.cross_entropy(self(batch[0]), batch[1]), sync_dist=True)

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.Adam((p for p in self.parameters() if p.requires_grad), lr=0.01)


LAYERS = ["stem", "body", "flat", "head"]


def data(count=48, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.rand(count, 1, 8, 8, generator=draw), torch.randint(3, (count,), generator=draw))


def fit(tmp_path, *callbacks, net=None, epochs=2, ckpt=None, val=None, **options):
    """Train such a net, the same as every call does or a given one; returns the Trainer."""
    return trainings.fit(
        tmp_path,
        *callbacks,
        model=net or Net,
        # Not shuffled: a resumed training must see the batches of an uninterrupted one.
        train=DataLoader(data(), batch_size=16),
        val=DataLoader(val or data(40, seed=1), batch_size=20),
        ckpt_path=ckpt,
        max_epochs=epochs,
        num_sanity_val_steps=0,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        **options,
    )


def probe(**options):
    return DriftProbe(**{"layers": LAYERS, "num_images": 32, "figures": False} | options)


def saving(folder):
    return ModelCheckpoint(folder, save_last=True)


def curve(found, metric="cka_previous"):
    return torch.cat([result.tensor(metric) for result in found.history])
