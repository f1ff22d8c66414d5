"""Holds a rework to its numbers: record a fixed set of configurations in one tree, compare them with those of another.

python benchmarks/same_numbers.py record before.json    # in the tree before the rework
python benchmarks/same_numbers.py compare before.json   # in the tree after it
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kornia.augmentation as K  # noqa: N812 - the name that Kornia's own documentation uses
import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from kornia_lightning_probe import AugmentationBank, DriftProbe, ProbeResult, SensitivityProbe, probe_model

# Of a number, relative to it; of one that is nothing but rounding, absolute.
RELATIVE, ABSOLUTE = 1e-6, 1e-7
RENAMED = {"sensitivity": "sensitivity_flat", "sensitivity_median": "channel_median", "headline": "sensitivity"}

Numbers = dict[str, dict[str, Any]]


def images_of(count: int, *, size: int = 16, channels: int = 3) -> Tensor:
    """Smooth random images, (count, channels, size, size) in [0, 1]."""
    coarse = torch.rand(count, channels, 5, 5, generator=torch.Generator().manual_seed(count))
    return nn.functional.interpolate(coarse, (size, size), mode="bilinear").clamp(0, 1)


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """A net with the same weights every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build().eval()


def cnn(channels: int = 3) -> nn.Module:
    """Convolutions, pooling, a linear head of five classes."""
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 24), nn.ReLU(inplace=True), nn.Linear(24, 5),
    )  # fmt: skip


def unpadded() -> nn.Module:
    """Convolutions without padding, and scores for each pixel."""
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1))


class Tokens(nn.Module):
    """A transformer with a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 16))
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True) for _ in range(3))
        self.head = nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores."""
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(tokens), -1, -1), tokens], 1)
        for block in self.blocks:
            tokens = block(tokens)
        scores: Tensor = self.head(tokens[:, 0])
        return scores


class Pair(nn.Module):
    """Two images in, one shared encoder called twice, a dict out."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten())
        self.head = nn.LazyLinear(4)

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        """The scores under "logits"."""
        return {"logits": self.head(torch.cat([self.encoder(left), self.encoder(right)], 1))}


def roll(images: Tensor) -> Tensor:
    """A callable of one's own."""
    return images.roll(1, -1)


def unit_flips(clean: Tensor, augmented: Tensor) -> Tensor:
    """A metric of one's own."""
    return ((clean > 0) != (augmented > 0)).flatten(1).float().mean(1)


def small_bank() -> AugmentationBank:
    """Random rotations, noise, a chain, a callable."""
    chain = K.AugmentationSequential(K.RandomHorizontalFlip(), K.ColorJiggle(0.2, 0.2, 0.2, 0.1))
    rotation = {angle: K.RandomRotation((-angle, angle), p=1.0) for angle in (10.0, 30.0)}
    return AugmentationBank(
        {"rotation": rotation, "noise": K.RandomGaussianNoise(std=0.1), "chain": chain, "roll": roll}
    )


def configurations() -> Iterator[tuple[str, Callable[[], ProbeResult]]]:
    """Every configuration by name."""
    preset = AugmentationBank.preset
    labels = torch.arange(40) % 5

    def probing(model: nn.Module, inputs: Any, bank: AugmentationBank, **options: Any) -> Callable[[], ProbeResult]:
        return lambda: probe_model(model, inputs, bank, **options)

    yield "cnn, default", probing(seeded(cnn), images_of(40), preset(), labels=labels)
    yield "cnn, small batches", probing(seeded(cnn), images_of(40), preset(), labels=labels, batch_size=7)
    yield "cnn, large batches", probing(seeded(cnn), images_of(40), preset(), labels=labels, batch_size=256)
    yield "cnn, photometric", probing(seeded(cnn), images_of(40), preset("photometric"))
    yield "cnn, geometric", probing(seeded(cnn), images_of(40), preset("geometric"))
    yield "cnn, corruptions", probing(seeded(cnn), images_of(40), preset("corruptions", small=True))
    yield "cnn, own bank", probing(seeded(cnn), images_of(70), small_bank())
    yield "cnn, 33 images", probing(seeded(cnn), images_of(33), small_bank(), seed=3)
    yield "cnn, 2 images", probing(seeded(cnn), images_of(2), small_bank())
    yield "cnn, 1 image", probing(seeded(cnn), images_of(1), small_bank())
    yield "cnn, 1 image and reference", probing(seeded(cnn), images_of(1), small_bank(), reference=images_of(30))
    yield "cnn, float64", probing(seeded(cnn).double(), images_of(40), preset())
    yield "cnn, bfloat16", probing(seeded(cnn).bfloat16(), images_of(40), preset())
    yield "cnn, grey", probing(seeded(lambda: cnn(1)), images_of(40, channels=1), preset("photometric", channels=1))
    normal = preset(mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.25])
    shift, scale = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.25]).view(3, 1, 1)
    yield "cnn, normalised", probing(seeded(cnn), (images_of(40) - shift) / scale, normal)
    yield "cnn, channels last", probing(seeded(cnn).to(memory_format=torch.channels_last), images_of(40), small_bank())
    yield "cnn, some layers", probing(seeded(cnn), images_of(40), small_bank(), layers=["0", "re:[79]"], embedding="7")
    yield (
        "cnn, own metrics",
        probing(
            seeded(cnn), images_of(40), small_bank(), metrics=["sensitivity", "relative_change", "cosine", unit_flips]
        ),
    )
    yield (
        "unpadded, masks",
        probing(seeded(unpadded), images_of(40, size=20), preset(), labels=torch.arange(40 * 256).view(40, 16, 16) % 4),
    )
    yield "tokens", probing(seeded(Tokens), images_of(40), preset())
    yield "tokens, own bank", probing(seeded(Tokens), images_of(50, size=24), small_bank(), layers="blocks.*")
    yield "pair", lambda: pair_result()
    spoilt = images_of(40)
    yield "dataset", probing(seeded(cnn), TensorDataset(spoilt, labels), small_bank())
    yield "training", lambda: training(SensitivityProbe(small_bank(), num_images=40, figures=False))
    yield (
        "training, two processes",
        lambda: training(SensitivityProbe(small_bank(), num_images=70, figures=False), devices=2),
    )
    yield "drift", lambda: training(DriftProbe(num_images=40, figures=False))
    yield "drift, two processes", lambda: training(DriftProbe(num_images=70, figures=False), devices=2)


def pair_result() -> ProbeResult:
    """Of a model of two images."""
    model = seeded(Pair)
    left, right = images_of(40), images_of(41)[:40]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model(left, right)
    return probe_model(model, (left, right), small_bank(), image_keys=(0, 1))


class Trained(pl.LightningModule):
    """The CNN in a training of two epochs."""

    def __init__(self) -> None:
        super().__init__()
        self.net = seeded(cnn)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores."""
        scores: Tensor = self.net(images)
        return scores

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002 - Lightning's
        """Cross entropy."""
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Nothing."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain SGD without shuffling, so that one process or two see the same weights where rates are 0."""
        return torch.optim.SGD(self.parameters(), lr=0.0)


def training(probe: Any, *, devices: int = 1) -> ProbeResult:
    """The last result of a short training; two processes are forked, and what they wrote is read."""
    loader = DataLoader(TensorDataset(images_of(80), torch.arange(80) % 5), 20)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=2, accelerator="cpu", devices=devices, strategy="ddp_notebook" if devices > 1 else "auto",
            logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=folder, callbacks=[probe],
        )  # fmt: skip
        trainer.fit(Trained(), loader, loader)
        newest = max(Path(folder).rglob("*epoch=1*.json"))
        return ProbeResult.from_json(newest)


def numbers_of(result: ProbeResult) -> Numbers:
    """Every table of a result as plain data."""
    try:
        names = [*result.metrics, *["headline"][: bool(result.table("headline").layers)]]
    except ValueError:
        names = list(result.metrics)
    found: Numbers = {}
    for metric in names:
        table = result.table(metric)
        found[metric] = {
            "layers": list(table.layers),
            "value": table.value.tolist(),
            "std_error": table.std_error.tolist(),
            "num_images": table.num_images.tolist(),
        }
    return found


def record() -> dict[str, Numbers]:
    """The numbers of all configurations."""
    found = {}
    for name, measure in configurations():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found[name] = numbers_of(measure())
        print(f"{name}: {len(found[name])} tables")
    return found


def differences(before: Numbers, after: Numbers) -> Iterator[str]:
    """What differs, by the names of today."""
    for name, table in before.items():
        metric = RENAMED.get(name, name) if "sensitivity_flat" in after else name
        if metric not in after:
            yield f"{name} -> {metric} is missing"
            continue
        there = after[metric]["layers"]
        for column, layer in enumerate(table["layers"]):
            if layer not in there:
                yield f"{metric} at {layer} is missing"
                continue
            for field in ("value", "std_error", "num_images"):
                pairs = [
                    (row[column], new[there.index(layer)])
                    for row, new in zip(table[field], after[metric][field], strict=True)
                ]
                worst = max((_apart(*pair) for pair in pairs), default=0.0)
                if worst > 1:
                    yield f"{metric}.{field} at {layer}: {worst:.3g} times the tolerance"


def _apart(one: float, other: float) -> float:
    """In tolerances."""
    if math.isnan(one) or math.isnan(other):
        return 0.0 if math.isnan(one) and math.isnan(other) else math.inf
    return abs(one - other) / (ABSOLUTE + RELATIVE * max(abs(one), abs(other)))


def main() -> None:
    """Record or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("record", "compare"))
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    found = record()
    if arguments.what == "record":
        arguments.file.write_text(json.dumps(found))
        return
    before = json.loads(arguments.file.read_text())
    for name, numbers in before.items():
        lines = list(differences(numbers, found[name]))
        print(f"{name}: {'equal' if not lines else ''}")
        for line in lines:
            print(f"  {line}")


if __name__ == "__main__":
    main()
