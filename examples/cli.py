"""LightningCLI with the probe and its nested bank in YAML: `python examples/cli.py fit --config examples/cli.yaml`.

Trains the digits net of digits.py, no download, about ten seconds on one core. Everything about the probe stands in the
YAML file; this file only says which model and which data there are.
"""

from __future__ import annotations

import os
import warnings

# Lightning calls jsonargparse in a way that the latter has deprecated.
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")

import lightning.pytorch as pl
import torch
from digits import DigitsNet, digits
from lightning.pytorch.cli import LightningCLI
from torch import Tensor
from torch.utils.data import DataLoader

from kornia_lightning_probe import SensitivityProbe


class Digits(pl.LightningDataModule):
    """Scikit-learn's digits.

    Args:
        batch_size: images in a training batch.
    """

    def __init__(self, batch_size: int = 64) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.train_set, self.val_set = digits()

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """1285 images, shuffled."""
        return DataLoader(self.train_set, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """512 images."""
        return DataLoader(self.val_set, batch_size=256)


def main() -> None:
    """Run what the command line and the YAML file say, then show what the probe has found."""
    # The net is so small that a second thread costs more than it brings, many times more on a busy machine.
    torch.set_num_threads(1)
    cli = LightningCLI(DigitsNet, Digits, save_config_callback=None)
    for callback in cli.trainer.callbacks:  # type: ignore[attr-defined]  # Lightning leaves it without a type
        if isinstance(callback, SensitivityProbe) and callback.result is not None:
            print(callback.result.summary())


if __name__ == "__main__":
    # Lightning's own, and what is true of every epoch as short as these.
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")
    warnings.filterwarnings("ignore", message=".*takes more than 10 % of an epoch")
    main()
