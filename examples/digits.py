"""Train a small CNN on scikit-learn's digits with two probes: which layers move, and which of them settle first?

Run it as it is, with --rotate to train under random rotations, with --compare to do both and draw them in one picture,
or with --devices 2 on two processes. Real images, no download, about half a minute on two cores. Open
report.html first, which needs the extra [report].
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
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
from kornia_lightning_probe.functional.similarity import debiased_cka
from kornia_lightning_probe.plotting import plot_bank, plot_profile
from kornia_lightning_probe.results.drift import Snapshot

LAYERS = ["conv1", "conv2", "conv3", "features", "logits"]
TRAIN_AUGMENTATIONS: dict[str, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "rotation": partial(K.RandomRotation, 60.0, p=1.0),
    "noise": partial(K.RandomGaussianNoise, std=0.3, p=1.0),
}
RUNS = {"none": "plain", "rotation": "rotate", "noise": "noise"}


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
    return min((n for n in range(1, last + 1) if last % n == 0), key=lambda n: abs(n - last / 5), default=1)


class Keep(pl.Callback):
    """Keeps every snapshot of a drift probe, since the last one is known at the end only.

    Args:
        probe: the drift probe, which must come before this callback.
    """

    def __init__(self, probe: DriftProbe) -> None:
        self.probe = probe
        self.snapshots: dict[int, Snapshot] = {}

    def on_train_start(self, _trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Take the untrained net's snapshot."""
        self._take()

    def on_validation_end(self, _trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Take the latest snapshot."""
        self._take()

    def _take(self) -> None:
        # There is none yet in Lightning's sanity check.
        if self.probe.snapshot is not None:
            self.snapshots[self.probe.snapshot.epoch] = self.probe.snapshot


def settling(keep: Keep) -> str:
    """How far each layer is, probe by probe: its similarity to the previous, the first and the last probe, as text."""
    last = list(keep.snapshots.values())[-1]
    compared: dict[str, list[list[float]]] = {
        "cka_previous, the probe before": [seen.tensor("cka_previous")[0].tolist() for seen in keep.probe.history],
        "cka_first, the untrained net": [seen.tensor("cka_first")[0].tolist() for seen in keep.probe.history],
        "to the last probe": [
            [float(debiased_cka(seen.gram(layer), last.gram(layer))) for layer in LAYERS]
            for seen in keep.snapshots.values()
        ],
    }
    lines = ["similarity (debiased CKA) of each layer on the same clean images, 1: the same up to rotation and scale"]
    for title, table in compared.items():
        lines += ["", f"{title:<34}" + "".join(f"{layer:>10}" for layer in LAYERS)]
        for seen, values in zip(keep.probe.history, table, strict=True):
            if not all(map(math.isnan, values)):
                name = "untrained" if seen.epoch < 0 else f"epoch {seen.epoch}"
                lines.append(f"  {name:<32}" + "".join(f"{value:>10.3f}" for value in values))
    return "\n".join(lines)


def train(
    folder: Path, *, train_augmentation: str, epochs: int, devices: int, seed: int
) -> tuple[SensitivityProbe, Keep]:
    """One training with both probes.

    Args:
        folder: where TensorBoard logs and the probe's JSON go.
        train_augmentation: "none", "rotation" or "noise".
        epochs: how many.
        devices: the number of processes.
        seed: of the weights and the batches.

    Returns:
        The probe, with its history, and the drift probe with all of its snapshots.
    """
    pl.seed_everything(seed, verbose=False)
    train_set, val_set = digits()
    every = probe_interval(epochs)
    probe = SensitivityProbe(digits_bank(), layers=LAYERS, num_images=512, every_n_epochs=every)
    # Flattened, since the net reads its maps by position: their spatial means don't tell which layers settle first.
    keep = Keep(DriftProbe(layers=LAYERS, num_images=512, every_n_epochs=every, flatten=True))
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        callbacks=[probe, keep.probe, keep, ProbeReport()],
        logger=TensorBoardLogger(folder, name=RUNS[train_augmentation], version=""),
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
    if trainer.is_global_zero:
        print(f"clean accuracy: {float(trainer.callback_metrics['val/accuracy']):.3f}")
    return probe, keep


def draw(probe: SensitivityProbe, drift: DriftProbe, folder: Path) -> None:
    """Write the bank, the last probe's heatmap and severity curves, and the drift as PNG."""
    _, val_set = digits()
    plot_bank(probe.bank, val_set.tensors[0][:4]).savefig(folder / "bank.png", dpi=120)
    result = probe.history[-1]
    result.plot("heatmap").savefig(folder / "heatmap.png", dpi=120)
    result.plot("severity").savefig(folder / "severity.png", dpi=120)
    drift.plot().savefig(folder / "drift.png", dpi=120)


def main() -> None:
    """Train, print the summaries, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rotate", action="store_true", help="train under random rotations")
    parser.add_argument("--compare", action="store_true", help="train both ways and draw the two in one picture")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--devices", type=int, default=1, help="number of processes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("demo_output"))
    args = parser.parse_args()
    # The net is so small that a second thread costs more than it brings, many times more on a busy machine.
    torch.set_num_threads(1)
    args.output.mkdir(parents=True, exist_ok=True)
    results: dict[str, ProbeResult] = {}
    for rotate in (False, True) if args.compare else (args.rotate,):
        name = "trained with rotation" if rotate else "trained"
        probe, keep = train(
            args.output,
            train_augmentation="rotation" if rotate else "none",
            epochs=args.epochs,
            devices=args.devices,
            seed=args.seed,
        )
        if torch.distributed.is_initialized() and torch.distributed.get_rank() > 0:
            continue
        results.setdefault("untrained", probe.history[0])
        results[name] = probe.history[-1]
        print(f"\n--- before training ---\n{probe.history[0].summary()}\n")
        print(f"--- {name} ---\n{probe.history[-1].summary()}\n")
        print(f"--- {name}: which layers settle first ---\n{settling(keep)}\n")
        draw(probe, keep.probe, args.output)
        probe.history[-1].to_json(args.output / "result.json")
    if results:
        figure = plot_profile(results, metric="sensitivity", augmentation="rotation")
        figure.savefig(args.output / "profile.png", dpi=120)
        for page in sorted(args.output.glob("*/report.html")):
            print(f"open first:  {page}")
        print(f"pictures:    {args.output}/profile.png, heatmap.png, severity.png, drift.png, bank.png")
        print(f"numbers:     {args.output}/result.json, and every probe under {args.output}/*/probe/")
        print(f"TensorBoard: tensorboard --logdir {args.output}")


if __name__ == "__main__":
    main()
