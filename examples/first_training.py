"""A first training with a probe, told in docs/first_training.md: patches of two photographs, half a minute on one core.

No download, the photographs come with scikit-learn. It needs the extras [examples] and [all].
"""

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from kornia_lightning_probe import AugmentationBank, ProbeReport, SensitivityProbe

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def patches(columns: slice) -> TensorDataset:
    """Patches (3, 32, 32) of some columns of a temple and a flower, normalised, and which of the two each shows."""
    photographs = torch.stack([torch.tensor(photograph) for photograph in load_sample_images().images])
    cells = photographs.permute(0, 3, 1, 2)[..., columns].unfold(2, 32, 32).unfold(3, 32, 32)
    images = cells.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 32, 32) / 255
    labels = torch.arange(2).repeat_interleave(len(images) // 2)
    return TensorDataset((images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1), labels)


class TempleOrFlower(pl.LightningModule):
    """Three strided convolutions and a head of two logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.middle = nn.Sequential(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.late = nn.Sequential(nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU())
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(64, 2)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 2) of images (B, 3, H, W)."""
        logits: Tensor = self.head(self.pool(self.late(self.middle(self.stem(images)))))
        return logits

    def training_step(self, batch: list[Tensor], _batch_idx: int) -> Tensor:
        """Cross-entropy."""
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)

    def validation_step(self, batch: list[Tensor], _batch_idx: int) -> None:
        """Accuracy."""
        images, labels = batch
        self.log("val/accuracy", (self(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


# The net is so small that a second thread costs more than it brings.
torch.set_num_threads(1)
pl.seed_everything(0, verbose=False)
train_set, val_set = patches(slice(0, 448)), patches(slice(448, 640))

# What the data set has normalised with is undone before an image is augmented, and redone after.
probe = SensitivityProbe(AugmentationBank.preset(mean=MEAN, std=STD), every_n_epochs=3)
trainer = pl.Trainer(
    max_epochs=10,
    callbacks=[probe, ProbeReport()],
    default_root_dir="first_training",
    log_every_n_steps=4,
)
trainer.fit(TempleOrFlower(), DataLoader(train_set, batch_size=32, shuffle=True), DataLoader(val_set, batch_size=64))
print(probe.history[-1].verdict(before=probe.history[0]))
