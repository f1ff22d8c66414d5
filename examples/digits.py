"""Train a small CNN on scikit-learn's digits twice, plainly and with rotated images: what does each layer make of it?

Real images, no download; a minute and a half on two cores. It needs the extras [examples] and [all]. --only trains one
way, --devices 2 on two processes. Prints what the probe found before and after each training, and writes one report of
both, pictures, TensorBoard logs and every number into demo_output.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import textwrap
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import kornia.augmentation as K  # noqa: N812 - Kornia's own convention
import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from kornia_lightning_probe import AugmentationBank, DriftProbe, ProbeReport, ProbeResult, SensitivityProbe, presets
from kornia_lightning_probe.plotting import plot_bank, plot_profile
from kornia_lightning_probe.reporting.html import Probed, write_report

LAYERS = ["conv1", "conv2", "conv3", "features", "logits"]
TRAIN_AUGMENTATIONS: dict[str, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "rotation": partial(K.RandomRotation, 60.0, p=1.0),
    "noise": partial(K.RandomGaussianNoise, std=0.3, p=1.0),
}
# The folder of a training, and what it is called in texts and pictures.
RUNS = {"none": ("plain", "trained"), "rotation": ("rotate", "trained with rotation")}
HOW = {"none": "as they are", "rotation": "rotated by up to 60 degrees"}
INTRODUCTION = (
    "A small CNN learns 1285 handwritten digits {how}. On 512 others a probe measures how far each layer moves when "
    "they are rotated, shifted, noisy, darker or paler: 0 not at all, 1 as far as another digit. About {seconds} s on "
    "two cores."
)


class DigitsNet(pl.LightningModule):
    """Three convolutions, a layer of features and ten logits.

    Args:
        train_augmentation: what the training images go through: "none", "rotation" (up to 60 degrees to either side)
            or "noise" (Gaussian, sigma 0.3).
    """

    def __init__(self, *, train_augmentation: str = "none") -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU())
        self.conv2 = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.conv3 = nn.Sequential(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(256, 64), nn.ReLU())
        self.logits = nn.Linear(64, 10)
        self.augmentation = TRAIN_AUGMENTATIONS[train_augmentation]()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 10) of images (B, 1, 8, 8)."""
        out: Tensor = self.logits(self.features(self.conv3(self.conv2(self.conv1(images)))))
        return out

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy on augmented images."""
        return nn.functional.cross_entropy(self(self.augmentation(images)), labels)

    def training_step(self, batch: tuple[Tensor, Tensor], _batch_idx: int) -> Tensor:
        """The loss, logged."""
        loss = self.loss(*batch)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _batch_idx: int) -> None:
        """Accuracy on images as they are."""
        images, labels = batch
        self.log("val/accuracy", (self(images).argmax(1) == labels).float().mean(), sync_dist=True, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def digits(seed: int = 0) -> tuple[TensorDataset, TensorDataset]:
    """1285 training and 512 validation images, (1, 8, 8) in [0, 1]."""
    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 16
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    train, val = order[512:], order[:512]
    labels = torch.tensor(bunch.target)
    return TensorDataset(images[train], labels[train]), TensorDataset(images[val], labels[val])


def digits_bank() -> AugmentationBank:
    """Five augmentations in steps that make sense on images of 8 x 8 pixels."""
    return AugmentationBank(
        {
            "rotation": presets.rotation((15, 30, 45)),
            "translation": presets.translation((0.0625, 0.125, 0.25)),
            "noise": presets.gaussian_noise((0.05, 0.1, 0.2)),
            "darken": presets.darken((-0.1, -0.2, -0.3)),
            "contrast": presets.contrast((0.8, 0.6, 0.4)),
        }
    )


def probe_interval(epochs: int) -> int:
    """Epochs from one probe to the next, so that there are about five, among them the first epoch and the last."""
    last = epochs - 1
    divisors = [n for n in range(1, last + 1) if last % n == 0]
    return min(divisors, key=lambda n: abs(n - last / 5), default=1)


def train(
    folder: Path, *, train_augmentation: str, epochs: int, devices: int, seed: int
) -> tuple[SensitivityProbe, DriftProbe]:
    """One training with both probes.

    Args:
        folder: where TensorBoard logs and the probes' files go.
        train_augmentation: "none" or "rotation".
        epochs: how many.
        devices: the number of processes.
        seed: of the weights and the batches.

    Returns:
        The probe and the drift probe, with their histories.
    """
    pl.seed_everything(seed, verbose=False)
    train_set, val_set = digits()
    every = probe_interval(epochs)
    probe = SensitivityProbe(digits_bank(), layers=LAYERS, num_images=512, every_n_epochs=every)
    # Flattened, since the net reads its maps by position: their spatial means don't tell which layers settle first.
    drift = DriftProbe(layers=LAYERS, num_images=512, every_n_epochs=every, flatten=True)
    run, _ = RUNS[train_augmentation]
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        callbacks=[probe, drift, ProbeReport()],
        logger=TensorBoardLogger(folder, name=run, version=""),
        log_every_n_steps=10,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(
        DigitsNet(train_augmentation=train_augmentation),
        DataLoader(train_set, batch_size=64, shuffle=True),
        DataLoader(val_set, batch_size=256),
    )
    return probe, drift


def tell(title: str, verdict: str) -> None:
    """Print a verdict under a title, each sentence in lines of 100 characters."""
    print(f"\n{title}")
    for sentence in verdict.splitlines():
        print(textwrap.fill(sentence, 100, initial_indent="  ", subsequent_indent="    "))


def draw(probe: SensitivityProbe, drift: DriftProbe, folder: Path) -> None:
    """Write the last probe's heatmap and severity curves, and the drift, as PNG."""
    result = probe.history[-1]
    result.plot("heatmap").savefig(folder / "heatmap.png", dpi=120)
    result.plot("severity").savefig(folder / "severity.png", dpi=120)
    drift.plot().savefig(folder / "drift.png", dpi=120)


def is_first_process() -> bool:
    """Whether this is not one of the processes that Lightning has started beside the first."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def be_quiet() -> None:
    """Leave out what Lightning says of itself and of other packages."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, tell, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["plain", "rotate"], help="train in one of the two ways")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--devices", type=int, default=1, help="number of processes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("demo_output"))
    args = parser.parse_args(arguments)
    # The net is so small that a second thread costs more than it brings, many times more on a busy machine.
    torch.set_num_threads(1)
    be_quiet()
    ways = [way for way, (run, _) in RUNS.items() if args.only in (None, run)]
    if is_first_process():
        how = " and, a second time, ".join(HOW[way] for way in ways)
        print(textwrap.fill(INTRODUCTION.format(how=how, seconds=45 * len(ways)), 100), flush=True)
    results: dict[str, ProbeResult] = {}
    probed: list[Probed] = []
    for way in ways:
        run, called = RUNS[way]
        probe, drift = train(
            args.output, train_augmentation=way, epochs=args.epochs, devices=args.devices, seed=args.seed
        )
        if not is_first_process():
            continue
        before, first, last = probe.history[0], probe.history[1], probe.history[-1]
        if not results:
            tell("before training", before.verdict())
        tell(called, last.verdict(before=before, first=first))
        results |= {"untrained": before, called: last}
        probed += [Probed(f"{kind.name}, {run}", kind.history, "fit", "DigitsNet") for kind in (probe, drift)]
        draw(probe, drift, args.output / run)
    if results:
        finish(args.output, results, probed)


def finish(folder: Path, results: dict[str, ProbeResult], probed: list[Probed]) -> None:
    """Write what all trainings have in common, and say where everything is."""
    _, val_set = digits()
    plot_bank(digits_bank(), val_set.tensors[0][:4]).savefig(folder / "bank.png", dpi=120)
    plot_profile(results, metric="sensitivity", augmentation="rotation").savefig(folder / "profile.png", dpi=120)
    write_report(folder / "report.html", probed)
    python = os.path.relpath(sys.executable)
    print(
        f"""
open first:  {folder}/report.html
then:        {folder}/profile.png and more pictures, {folder}/*/probe.json with all numbers
TensorBoard: {python} -m tensorboard.main --logdir {folder}"""
    )


if __name__ == "__main__":
    main()
