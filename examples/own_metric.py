"""A metric of one's own: which share of a layer's units does an augmentation switch on or off?

It is given to probe_model, and to SensitivityProbe in a short training on scikit-learn's digits. What its Quantity says
is read by severity curves, figures and the summary. No download, about ten seconds on one core.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping

import lightning.pytorch as pl
import torch
from digits import DigitsNet, digits
from torch import Tensor
from torch.utils.data import DataLoader

from kornia_lightning_probe import AugmentationBank, SensitivityProbe, presets, probe_model
from kornia_lightning_probe.metrics import About, ProbeMetric, Quantity


class UnitFlips(ProbeMetric):
    """The share of units that the augmentation switches on or off, in [0, 1]; its value is the mean over the images."""

    name = "unit_flips"
    statistics = ("flips",)
    quantity = Quantity(meaning="0: no unit is switched; 1: every one", range=(0, 1), at_identity=0, scale=(0, 1))

    def measure(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:  # noqa: ARG002 - not needed
        """One number for each image."""
        return {"flips": ((clean > 0) != (augmented > 0)).flatten(1).float().mean(1)}


def main() -> None:
    """Measure an untrained net, then train one and watch the metric."""
    # The net is so small that a second thread costs more than it brings, many times more on a busy machine.
    torch.set_num_threads(1)
    pl.seed_everything(0, verbose=False)
    train_set, val_set = digits()
    bank = AugmentationBank({"rotation": presets.rotation((15, 45))})
    layers = ["conv1", "conv2", "conv3", "features"]

    result = probe_model(DigitsNet(), val_set.tensors[0], bank, layers=layers, metrics=["sensitivity", UnitFlips()])
    print(result.summary())
    print("\nshare of units that a rotation switches, a curve over its degrees that starts at none")
    for curve in result.severity("unit_flips"):
        print(f"{curve.layer:<10} mean height {curve.area:.3f}, most at {curve.worst_severity:g} degrees")

    # A curve named in monitor= is known to EarlyStopping and ModelCheckpoint in the same epoch.
    tag = "probe_unit_flips/features"
    probe = SensitivityProbe(
        bank, layers=layers, metrics=["sensitivity", UnitFlips()], monitor=[tag], num_images=64, every_n_epochs=5
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=6,
            accelerator="cpu",
            callbacks=[probe],
            logger=False,
            default_root_dir=folder,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(DigitsNet(), DataLoader(train_set, batch_size=64, shuffle=True), DataLoader(val_set, 256))
    print("\nshare of units that a rotation switches, while it trains")
    for seen in probe.history:
        row = ", ".join(f"{layer} {seen.value('unit_flips', layer):.3f}" for layer in layers)
        print(f"{seen.when:<18} {row}")
    print(f"known to monitors as {tag}: {float(trainer.callback_metrics[tag]):.3f}")


if __name__ == "__main__":
    # Lightning's own, and what is true of every epoch as short as these.
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")
    warnings.filterwarnings("ignore", message=".*takes more than 10 % of an epoch")
    main()
