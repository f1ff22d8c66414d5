"""Four findings about a small CNN on scikit-learn's digits, as the probe sees them, seed by seed.

1. After training, deep layers move less than early ones when the image is rotated; before training they move more.
2. Training with rotation acts on the late layers: the convolutions move as far as before.
3. It is specific: training with noise makes layers steadier under noise, and not under rotation.
4. Early layers settle first: after one epoch they are nearly what they are after the last.

Three trainings for each seed (plain, with rotation, with noise), about ten seconds on one core. A plain training loop
and probe_model: nothing here needs a Trainer. Prints the table and draws digits_science.png.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from digits import LAYERS, TRAIN_AUGMENTATIONS, DigitsNet, digits
from matplotlib.figure import Figure
from torch.utils.data import TensorDataset

from kornia_lightning_probe import AugmentationBank, ProbeImages, ProbeResult, drawing, presets, probe_model
from kornia_lightning_probe.drift import DriftRecord
from kornia_lightning_probe.features import Features, collect_features
from kornia_lightning_probe.probe import choose_subject

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BATCH = 64
SMALL_ROTATION, LARGE_ROTATION, NOISE = ("rotation", 15.0), ("rotation", 45.0), ("noise", 0.2)
COLUMNS = [*LAYERS, "accuracy", "clean"]


@dataclass(frozen=True)
class Study:
    """What the probe saw of one training.

    Args:
        before: the probe before the first step.
        after: the probe after the last epoch.
        drift: the last epoch's features compared with those of the first epoch.
    """

    before: ProbeResult
    after: ProbeResult
    drift: ProbeResult

    def sensitivity(self, view: tuple[str, float], *, trained: bool = True) -> list[float]:
        """Each layer's sensitivity to (augmentation, severity)."""
        result = self.after if trained else self.before
        return [result.value("sensitivity", layer, view[0], _level(result, view)) for layer in LAYERS]

    def accuracy(self, view: tuple[str, float]) -> list[float]:
        """The trained net's accuracy under (augmentation, severity), and without."""
        level = _level(self.after, view)
        under, drop = (self.after.value(name, None, view[0], level) for name in ("accuracy", "accuracy_drop"))
        return [under, under + drop]

    def similarity(self) -> list[float]:
        """Each layer's debiased CKA between the first epoch and the last."""
        return [self.drift.value("cka_first", layer) for layer in LAYERS]


@dataclass(frozen=True)
class Row:
    """One line of the findings, measured once for each seed.

    Args:
        finding: 1 to 4.
        label: what was measured.
        values: for each seed the numbers of the five layers, then accuracies where there are some.
    """

    finding: int
    label: str
    values: Sequence[Sequence[float]]

    @property
    def mean(self) -> list[float]:
        """The mean over the seeds."""
        return [sum(column) / len(column) for column in zip(*self.values, strict=True)]


def study(seed: int, *, train_augmentation: str, epochs: int) -> Study:
    """Train once, and probe before, after the first epoch and at the end.

    Args:
        seed: of the split, the weights and the batches.
        train_augmentation: "none", "rotation" or "noise".
        epochs: how many, at least 2.
    """
    torch.manual_seed(seed)
    train_set, val_set = digits(seed)
    net = DigitsNet(train_augmentation=train_augmentation)
    optimizer = net.configure_optimizers()
    record = DriftRecord(("first",))
    before = probe(net, val_set)
    for epoch in range(epochs):
        for rows in torch.randperm(len(train_set)).split(BATCH):
            optimizer.zero_grad()
            net.loss(*train_set[rows]).backward()  # type: ignore[no-untyped-call]  # torch's own backward
            optimizer.step()
        if epoch == 0:
            record.compare(features_of(net, val_set), epoch=0, step=0)
    drift = record.compare(features_of(net, val_set), epoch=epochs - 1, step=0)
    return Study(before, probe(net, val_set), drift)


def probe(net: DigitsNet, images: TensorDataset) -> ProbeResult:
    """The net under two rotations and noise."""
    bank = AugmentationBank({"rotation": presets.rotation((15, 45)), "noise": presets.gaussian_noise((0.2,))})
    metrics = ["sensitivity", "accuracy", "accuracy_drop"]
    return probe_model(net, images, bank, layers=LAYERS, metrics=metrics, batch_size=512)


def features_of(net: DigitsNet, images: TensorDataset) -> Features:
    """The net's features of the clean images; of maps all of it, since the net reads its maps by position."""
    subject = choose_subject(net, net, layers=LAYERS, embedding=None, device=torch.device("cpu"))
    return collect_features(subject, ProbeImages(images, num_images=len(images)), batch_size=512, flatten=True)


def findings(studies: Sequence[dict[str, Study]]) -> list[Row]:
    """The rows of the table.

    Args:
        studies: for each seed, the study of each way of training.
    """
    plain, rotation, noise = ([seed[name] for seed in studies] for name in TRAIN_AUGMENTATIONS)
    at_45 = [
        Row(2, f"{label}, rotation 45", [s.sensitivity(LARGE_ROTATION) + s.accuracy(LARGE_ROTATION) for s in group])
        for label, group in (("trained plainly", plain), ("trained with rotation", rotation))
    ]
    specific = [
        Row(3, f"trained {label}, {view[0]} {view[1]:g}", [s.sensitivity(view) for s in group])
        for view in (NOISE, SMALL_ROTATION)
        for label, group in (("plainly", plain), ("with noise", noise), ("with rotation", rotation))
    ]
    return [
        Row(1, "untrained, rotation 15", [s.sensitivity(SMALL_ROTATION, trained=False) for s in plain]),
        Row(1, "trained plainly, rotation 15", [s.sensitivity(SMALL_ROTATION) for s in plain]),
        *at_45,
        *specific,
        Row(4, "epoch 1, CKA to the last epoch", [s.similarity() for s in plain]),
    ]


TITLES = {
    1: "Before training sensitivity rises with depth, after training it falls",
    2: "Training with rotation acts on the late layers",
    3: "Training with noise helps against noise, not against rotation; and the other way round",
    4: "Early layers settle first",
}


def table(rows: Sequence[Row]) -> str:
    """The findings as text, each seed and the mean."""
    width = max(len(row.label) for row in rows)
    lines = []
    for finding, title in TITLES.items():
        lines += ["", f"{finding}. {title}", " " * (width + 10) + "".join(f"{name:>10}" for name in COLUMNS)]
        for row in rows:
            if row.finding == finding:
                named = [*((f"seed {seed}", values) for seed, values in enumerate(row.values)), ("mean", row.mean)]
                lines += [_line(row.label if i == 0 else "", width, *entry) for i, entry in enumerate(named)]
    return "\n".join(lines[1:])


def _line(label: str, width: int, name: str, values: Sequence[float]) -> str:
    return f"{label:<{width}}  {name:<8}" + "".join(f"{value:>10.3f}" for value in values)


def draw(rows: Sequence[Row]) -> Figure:
    """The four findings in one picture: lines are means over the seeds, dots are seeds."""
    one, two, three, four = ([row for row in rows if row.finding == finding] for finding in TITLES)
    grey, orange, blue, green = drawing.COLOURS[:4]
    with drawing.house_look():
        figure = Figure(figsize=(9.6, 7.2), layout="constrained")
        panels = figure.subplots(2, 2).flatten().tolist()
        _lines(panels[0], one, ["before training", "after training"], [grey, blue])
        labels = [f"{row.label.split(',')[0]}: accuracy {row.mean[5]:.2f}, clean {row.mean[6]:.2f}" for row in two]
        _lines(panels[1], two, labels, [blue, orange])
        by_label = {row.label: row for row in three}
        ratios = [
            _relative(by_label[f"trained with {way}, {view}"], by_label[f"trained plainly, {view}"])
            for way in ("noise", "rotation")
            for view in ("noise 0.2", "rotation 15")
        ]
        labels = [
            f"trained with {way}, seen under {view}" for way in ("noise", "rotation") for view in ("noise", "rotation")
        ]
        _lines(panels[2], ratios, labels, [green, green, orange, orange], ["-", "--", "--", "-"])
        panels[2].axhline(1.0, color="#555555", linewidth=0.9, linestyle=(0, (1, 2)), zorder=1.5)
        _lines(panels[3], four, [""], [blue])
        for panel, (number, title), quantity in zip(panels, TITLES.items(), QUANTITIES, strict=True):
            panel.set_title(f"{number}. {title}")
            panel.set_ylabel(quantity)
        drawing.small_print(figure, f"512 images; lines: mean of {len(rows[0].values)} seeds; dots: each seed")
        return figure


QUANTITIES = (
    "sensitivity to rotation by 15°",
    "sensitivity to rotation by 45°",
    "sensitivity, relative to plain training",
    "debiased CKA of epoch 1 and the last epoch",
)


def _lines(
    ax: Axes, rows: Sequence[Row], labels: Sequence[str], colours: Sequence[str], styles: Sequence[str] | None = None
) -> None:
    for i, (row, label, colour) in enumerate(zip(rows, labels, colours, strict=True)):
        ax.plot(row.mean[: len(LAYERS)], color=colour, linestyle=styles[i] if styles else "-", label=label)
        for values in row.values:
            ax.plot(values[: len(LAYERS)], drawing.MARKERS[i], color=colour, alpha=0.6, markeredgewidth=0)
    ax.set_ylim(bottom=0)
    ax.grid(axis="y")
    drawing.ticks(ax.xaxis, LAYERS)
    if any(labels):
        ax.legend(loc="lower left")


def _relative(row: Row, reference: Row) -> Row:
    pairs = zip(row.values, reference.values, strict=True)
    return Row(row.finding, row.label, [[a / b for a, b in zip(*pair, strict=True)] for pair in pairs])


def _level(result: ProbeResult, view: tuple[str, float]) -> int:
    return next(known.level for known in result.views if (known.augmentation, known.severity) == view)


def main() -> None:
    """Train, print the table, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0")
    parser.add_argument("--epochs", type=int, default=40, help="of each training, at least 2")
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder of the picture")
    args = parser.parse_args()
    if args.seeds < 1 or args.epochs < 2:
        parser.error("at least 1 seed and 2 epochs are needed")
    started = time.perf_counter()
    studies = [
        {name: study(seed, train_augmentation=name, epochs=args.epochs) for name in TRAIN_AUGMENTATIONS}
        for seed in range(args.seeds)
    ]
    rows = findings(studies)
    args.output.mkdir(parents=True, exist_ok=True)
    draw(rows).savefig(args.output / "digits_science.png", dpi=120)
    print(table(rows))
    print(f"\n{time.perf_counter() - started:.0f} s; picture: {args.output / 'digits_science.png'}")


if __name__ == "__main__":
    main()
