"""Four findings about a small CNN on scikit-learn's digits, as the probe sees them, seed by seed.

1. After training, deep layers move less than early ones when the image is rotated; before training they move more.
2. Training with rotation acts on the late layers: the convolutions move as far as before.
3. It is specific: training with noise steadies the late layers under noise, not under rotation by 15 degrees; at 45
   degrees it takes a few per cent off where training with rotation takes more than half.
4. Early layers settle first: after one epoch they are nearly what they are after the last.

Three trainings for each seed (plain, with rotation, with noise), about ten seconds on one core. A plain training loop
and probe_model: nothing here needs a Trainer. Prints the table and draws digits_science.png.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from digits import LAYERS, DigitsNet, digits
from matplotlib.figure import Figure
from torch.utils.data import TensorDataset

from kornia_lightning_probe import AugmentationBank, ProbeImages, ProbeResult, presets, probe_model
from kornia_lightning_probe.engine.features import Features, collect_features
from kornia_lightning_probe.probe import choose_subject
from kornia_lightning_probe.reporting.figures import drawing
from kornia_lightning_probe.results.drift import DriftRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BATCH = 64
SMALL_ROTATION, LARGE_ROTATION, NOISE = ("rotation", 15.0), ("rotation", 45.0), ("noise", 0.2)
TRAININGS = {"none": "trained plainly", "rotation": "trained with rotation", "noise": "trained with noise"}
TITLES = {
    1: "Deep layers move more than early ones before training, less after it",
    2: "Training with rotation acts on the late layers",
    3: "Specific: each training helps against its own augmentation",
    4: "Early layers settle first",
}


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
        net: how the net was trained.
        measured: what was measured.
        values: for each seed the numbers of the five layers; with finding 2 the accuracy under the view and without.
    """

    finding: int
    net: str
    measured: str
    values: Sequence[Sequence[float]]

    @property
    def mean(self) -> list[float]:
        """The mean over the seeds."""
        return [sum(column) / len(column) for column in zip(*self.values, strict=True)]

    def over(self, other: Row) -> Row:
        """This row divided by another one, seed by seed."""
        pairs = zip(self.values, other.values, strict=True)
        return replace(self, values=[[a / b for a, b in zip(*pair, strict=True)] for pair in pairs])


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
        for rows in torch.split(torch.randperm(len(train_set)), BATCH):
            optimizer.zero_grad()
            net.loss(*train_set[rows]).backward()  # type: ignore[no-untyped-call]  # torch's own backward
            optimizer.step()
        if epoch == 0:
            record.compare(features_of(net, val_set).clean, epoch=0, step=0)
    drift = record.compare(features_of(net, val_set).clean, epoch=epochs - 1, step=0)
    return Study(before, probe(net, val_set), ProbeResult.of(drift))


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
    groups = {net: [seed[name] for seed in studies] for name, net in TRAININGS.items()}
    plain = groups["trained plainly"]
    untrained = [seen.sensitivity(SMALL_ROTATION, trained=False) for seen in plain]
    two = [
        Row(2, net, "rotation 45", [seen.sensitivity(LARGE_ROTATION) + seen.accuracy(LARGE_ROTATION) for seen in group])
        for net, group in groups.items()
    ]
    three = [
        Row(3, net, f"{view[0]} {view[1]:g}", [seen.sensitivity(view) for seen in group])
        for view in (SMALL_ROTATION, NOISE)
        for net, group in groups.items()
    ]
    return [
        Row(1, "untrained", "rotation 15", untrained),
        replace(three[0], finding=1),
        *two,
        *three,
        Row(4, "trained plainly", "CKA of epoch 1", [seen.similarity() for seen in plain]),
    ]


def table(rows: Sequence[Row]) -> str:
    """The findings as text, each seed and the mean."""
    lines = []
    for finding, title in TITLES.items():
        columns = [*LAYERS, "accuracy", "clean"] if finding == 2 else LAYERS
        lines += ["", f"{finding}. {title}", f"{'':48}" + "".join(f"{name:>9}" for name in columns)]
        for row in (row for row in rows if row.finding == finding):
            named = {f"seed {seed}": values for seed, values in enumerate(row.values)} | {"mean": row.mean}
            for name, values in named.items():
                label = f"{row.net}, {row.measured}" if name == "seed 0" else ""
                lines.append(f"{label:<40}{name:<8}" + "".join(f"{value:>9.3f}" for value in values))
    return "\n".join(lines[1:])


def draw(rows: Sequence[Row]) -> Figure:
    """The four findings in one picture: lines are means over the seeds, dots are seeds."""
    one, two, three, four = ([row for row in rows if row.finding == finding] for finding in TITLES)
    accuracies = [f"{row.net}: accuracy {row.mean[5]:.2f}, on upright images {row.mean[6]:.2f}" for row in two]
    plain = {row.measured: row for row in three if row.net == "trained plainly"}
    relative = [row.over(plain[row.measured]) for row in three if row.net != "trained plainly"]
    grey, orange, blue, green = drawing.COLOURS[:4]
    with drawing.house_look():
        figure = Figure(figsize=(9.6, 7.2), layout="constrained")
        panels = figure.subplots(2, 2).flatten().tolist()
        for panel, title in zip(panels, TITLES.items(), strict=True):
            panel.set_title("{}. {}".format(*title))
        _lines(panels[0], one, ["before training", "after training"], [grey, blue])
        panels[0].set_ylabel("sensitivity to rotation by 15°")
        _lines(panels[1], two, accuracies, [blue, orange, green])
        panels[1].set_ylabel("sensitivity to rotation by 45°")
        _lines(panels[2], relative, [f"{row.net}, under {row.measured}" for row in relative], [orange, green] * 2)
        panels[2].axhline(1.0, color="#555555", linewidth=0.9, linestyle=(0, (4, 3)), zorder=1.5)
        panels[2].set_ylabel("sensitivity relative to plain training")
        _lines(panels[3], four, [""], [blue])
        panels[3].set_ylabel("CKA of the first epoch with the last, debiased")
        drawing.small_print(figure, f"512 images; lines: mean of {len(one[0].values)} seeds; dots: each seed")
        return figure


def _lines(ax: Axes, rows: Sequence[Row], labels: Sequence[str], colours: Sequence[str]) -> None:
    for row, label, colour in zip(rows, labels, colours, strict=True):
        noise = row.measured.startswith("noise")
        look: dict[str, Any] = {"color": colour, "marker": "s" if noise else "o"}
        line: Any = (0, (1, 1)) if noise else "-"
        ax.plot(row.mean[: len(LAYERS)], label=label, linestyle=line, **look)
        for values in row.values:
            ax.plot(values[: len(LAYERS)], linestyle="", alpha=0.45, markeredgewidth=0, **look)
    ax.set_ylim(bottom=0)
    ax.grid(axis="y")
    drawing.name_layers(ax.xaxis, LAYERS)
    if any(labels):
        ax.legend(loc="lower left")


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
    # The net is so small that a second thread costs more than it brings, many times more on a busy machine.
    torch.set_num_threads(1)
    started = time.perf_counter()
    studies = [
        {name: study(seed, train_augmentation=name, epochs=args.epochs) for name in TRAININGS}
        for seed in range(args.seeds)
    ]
    rows = findings(studies)
    args.output.mkdir(parents=True, exist_ok=True)
    draw(rows).savefig(args.output / "digits_science.png", dpi=120)
    print(table(rows))
    print(f"\n{time.perf_counter() - started:.0f} s; picture: {args.output / 'digits_science.png'}")


if __name__ == "__main__":
    main()
