"""A model of several outputs in a training: what is taken for class scores is so from first to last."""

import lightning.pytorch as pl
import pytest
import torch
from support.probing import images_of, plain_bank
from support.trainings import QUIET, trainer_of
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from kornia_lightning_probe import SensitivityProbe

pytestmark = [pytest.mark.filterwarnings(line) for line in QUIET]


class Detector(pl.LightningModule):
    """Boxes, and a logit of there being something."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.boxes, self.logit = nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, images):
        features = self.stem(images)
        return self.boxes(features), self.logit(features)

    def training_step(self, batch, _):
        images, labels = batch
        return nn.functional.binary_cross_entropy_with_logits(self(images)[1], labels)

    def validation_step(self, batch, _):
        self(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


def test_the_choice_stays_through_a_training(tmp_path):
    images = images_of(40)
    # As its loss takes them: floats, in a column.
    data = TensorDataset(images, (images.mean((1, 2, 3), keepdim=False) > 0.5).float()[:, None])
    probe = SensitivityProbe(plain_bank(), figures=False)
    torch.manual_seed(0)
    trainer = trainer_of(tmp_path, probe, max_epochs=2)
    trainer.fit(Detector(), DataLoader(data, 20), DataLoader(data, 20))
    assert {result.metadata["output"] for result in probe.history} == {"output[1]"}
    assert {result.metadata["output_kind"] for result in probe.history} == {"logit"}
    assert len(probe.history) == 3
    assert all(result.tensor("accuracy").isfinite().all() for result in probe.history)
