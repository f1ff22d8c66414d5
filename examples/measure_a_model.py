"""Measure a model without a Trainer: crops of two photographs, a small CNN, before and after a few steps of training.

Sensitivity is how far a layer moves under an augmentation, as a share of how far apart two images lie in it. No
download: the photographs come with scikit-learn. About ten seconds on one core.
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from pathlib import Path

import torch
from sklearn.datasets import load_sample_images
from torch import Tensor, nn

from kornia_lightning_probe import AugmentationBank, probe_model

SIDE = 64


def crops() -> tuple[Tensor, Tensor]:
    """120 crops (3, 64, 64) in [0, 1] of a temple and a flower, and which of the two each one shows."""
    photographs = torch.stack([torch.tensor(photograph) for photograph in load_sample_images().images])
    cells = photographs.permute(0, 3, 1, 2).unfold(2, SIDE, SIDE).unfold(3, SIDE, SIDE)
    images = cells.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, SIDE, SIDE) / 255
    return images, torch.arange(2).repeat_interleave(len(images) // 2)


def small_cnn() -> nn.Sequential:
    """Three strided convolutions and a head of two logits."""

    def stage(channels: int, width: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU())

    return nn.Sequential(
        OrderedDict(
            stem=stage(3, 12),
            middle=stage(12, 24),
            late=stage(24, 48),
            embedding=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            logits=nn.Linear(48, 2),
        )
    )


def train(model: nn.Module, images: Tensor, labels: Tensor, *, steps: int) -> None:
    """Tell the photographs apart."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]  # torch's own
        optimizer.step()


def main() -> None:
    """Measure, train, measure again, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--output", type=Path, default=Path("demo_output"))
    args = parser.parse_args()
    # The net is so small that a second thread costs more than it brings, many times more on a busy machine.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images, labels = crops()
    model, bank = small_cnn(), AugmentationBank.preset("default")

    before = probe_model(model, images, bank, labels=labels)
    train(model, images, labels, steps=args.steps)
    after = probe_model(model, images, bank, labels=labels)

    print(after.summary())
    print(f"\n{before.compare(after).summary()}\n")
    moved = after.value("sensitivity", "logits", "rotation", severity=30)
    print(f"a rotation by 30 degrees moves the logits {moved:.2f} times as far as two images lie apart")

    args.output.mkdir(parents=True, exist_ok=True)
    after.to_json(args.output / "photographs.json")
    after.plot("heatmap").savefig(args.output / "photographs.png", dpi=120)
    print(f"numbers: {args.output}/photographs.json\npicture: {args.output}/photographs.png")


if __name__ == "__main__":
    main()
