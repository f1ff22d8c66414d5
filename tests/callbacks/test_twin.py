"""The callback in the Trainer of `pytorch_lightning`, Lightning's twin with classes of its own."""

import pytest
import torch
from support.trainings import QUIET, loader, probe_of
from torch import nn

pytestmark = [pytest.mark.filterwarnings(line) for line in QUIET]


def test_a_probe_works_in_the_trainer_of_pytorch_lightning(tmp_path):
    twin = pytest.importorskip("pytorch_lightning", reason="the twin package is not installed")

    class Net(twin.LightningModule):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(144, 8), nn.ReLU())
            self.head = nn.Linear(8, 2)

        def forward(self, images):
            return self.head(self.body(self.stem(images)))

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            self(batch[0])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    probe = probe_of(name="twin")
    trainer = twin.Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=[probe],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(Net(), loader(), loader(seed=1))
    assert [result.epoch for result in probe.history] == [-1, 0]
    assert float(trainer.callback_metrics["twin/seconds"]) > 0

    trainer = twin.Trainer(accelerator="cpu", callbacks=[probe_of()], logger=False, default_root_dir=tmp_path)
    with pytest.raises(ValueError, match="has no forward"):
        trainer.validate(
            type("Unrunnable", (Net,), {"forward": twin.LightningModule.forward})(), loader(), verbose=False
        )
