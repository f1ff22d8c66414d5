"""Has a layer learned to ignore rotation, or is it merely smooth? The noise ratio tells them apart, on real digits.

Sensitivity falls with depth after any training, for noise as for rotation: a trained layer ignores whatever is small.
The noise ratio holds the movement under a rotation against that under noise of the same length in pixels. After plain
training it is above 1 in every layer: a rotation is noticed more than noise. After training with rotation it is so in
the first convolutions still, and far below 1 in features and logits: they have learned to ignore a rotation.

Two trainings for each seed, half a minute on one core. A plain training loop and probe_model: no Trainer.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence

import torch
from digits import LAYERS, DigitsNet, digits
from digits_science import BATCH

from kornia_lightning_probe import AugmentationBank, ProbeResult, presets, probe_model

TRAININGS = {"none": "trained plainly", "rotation": "trained with rotation"}
MEASURES = ("noise_ratio", "sensitivity_flat")
DEGREES = 15.0


def probe_trained(seed: int, *, train_augmentation: str, epochs: int) -> ProbeResult:
    """Train once, and probe the trained net under a rotation and its noise.

    Args:
        seed: of the split, the weights and the batches.
        train_augmentation: "none" or "rotation".
        epochs: how many.
    """
    torch.manual_seed(seed)
    train_set, val_set = digits(seed)
    net = DigitsNet(train_augmentation=train_augmentation)
    optimizer = net.configure_optimizers()
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(train_set)), BATCH):
            optimizer.zero_grad()
            net.loss(*train_set[rows]).backward()  # type: ignore[no-untyped-call]  # torch's own backward
            optimizer.step()
    bank = AugmentationBank({"rotation": presets.rotation((DEGREES,))})
    return probe_model(net, val_set, bank, layers=LAYERS, metrics=MEASURES, batch_size=512)


def profile(result: ProbeResult, metric: str) -> list[float]:
    """A metric from the first layer to the last."""
    return [result.value(metric, layer) for layer in LAYERS]


def table(results: Sequence[Mapping[str, ProbeResult]]) -> str:
    """Each measure of each training, a line for each seed.

    Args:
        results: for each seed, the result of each way of training.
    """
    lines: list[str] = []
    for metric in MEASURES:
        lines += ["", f"{metric:26}" + "".join(f"{name:>10}" for name in LAYERS)]
        for training, text in TRAININGS.items():
            for seed, by_training in enumerate(results):
                values = profile(by_training[training], metric)
                lines.append(f"{text:22} {seed:3}" + "".join(f"{value:>10.2f}" for value in values))
    return "\n".join(lines[1:])


def main() -> None:
    """Train, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0")
    parser.add_argument("--epochs", type=int, default=40, help="of each training")
    args = parser.parse_args()
    # The net is so small that a second thread costs more than it brings, many times more on a busy machine.
    torch.set_num_threads(1)
    started = time.perf_counter()
    results = [
        {training: probe_trained(seed, train_augmentation=training, epochs=args.epochs) for training in TRAININGS}
        for seed in range(args.seeds)
    ]
    print(table(results))
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
