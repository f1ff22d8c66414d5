"""SensitivityProbe from a YAML file: LightningCLI builds the nested bank and trains."""

import pytest
import yaml
from support.trainings import QUIET, Net, loader

pytest.importorskip("jsonargparse", reason="LightningCLI needs jsonargparse[signatures]")

import lightning.pytorch as pl
from lightning.pytorch.cli import LightningCLI

pytestmark = [
    *(pytest.mark.filterwarnings(line) for line in QUIET),
    # It looks at pytest's own arguments.
    pytest.mark.filterwarnings("ignore:LightningCLI's args parameter is intended to run from within:UserWarning"),
]

NESTED = """
class_path: kornia_lightning_probe.AugmentationBank
init_args:
  seed: 3
  mean: [0.0, 0.0, 0.0]
  std: [1.0, 1.0, 1.0]
  value_range: [0.0, 1.0]
  views:
    hflip:
      class_path: kornia.augmentation.RandomHorizontalFlip
      init_args: {p: 1.0}
    blur:
      - class_path: kornia.augmentation.RandomGaussianBlur
        init_args: {kernel_size: [3, 3], sigma: [0.5, 0.5], p: 1.0}
      - class_path: kornia.augmentation.RandomGaussianBlur
        init_args: {kernel_size: [3, 3], sigma: [1.0, 1.0], p: 1.0}
    rotation:
      5.0:
        class_path: kornia.augmentation.RandomRotation
        init_args: {degrees: [5.0, 5.0], p: 1.0}
      15.0:
        class_path: kornia.augmentation.RandomRotation
        init_args: {degrees: [15.0, 15.0], p: 1.0}
"""

PRESET = """
class_path: kornia_lightning_probe.AugmentationBank.preset
init_args:
  name: geometric
  exclude: [elastic]
"""


@pytest.fixture(autouse=True)
def _quiet_jsonargparse(monkeypatch):
    # Lightning calls it in a way that it has deprecated.
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")


class Data(pl.LightningDataModule):
    def train_dataloader(self):
        return loader()

    def val_dataloader(self):
        return loader(seed=1)


def run(folder, bank, **options):
    arguments = {"layers": ["stem", "head"], "num_images": 8, "figures": False} | options
    probe = {"class_path": "kornia_lightning_probe.SensitivityProbe", "init_args": {"bank": bank} | arguments}
    config = {
        "trainer": {
            "max_epochs": 1,
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": str(folder),
            "callbacks": [probe],
        }
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    cli = LightningCLI(
        Net, Data, args=["fit", f"--config={path}"], save_config_callback=None, seed_everything_default=False
    )
    (made,) = [callback for callback in cli.trainer.callbacks if type(callback).__name__ == "SensitivityProbe"]
    return made


def test_a_nested_bank_is_built_from_yaml_and_trains(tmp_path):
    probe = run(tmp_path, yaml.safe_load(NESTED))
    assert [(view.augmentation, view.severity) for view in probe.bank] == [
        ("hflip", 1.0),
        ("blur", 1.0),
        ("blur", 2.0),
        ("rotation", 5.0),
        ("rotation", 15.0),
    ]
    assert probe.bank.seed == 3
    assert [result.epoch for result in probe.history] == [-1, 0]
    assert probe.result.layers == ("stem", "head")


def test_a_preset_is_built_from_yaml_and_trains(tmp_path):
    probe = run(tmp_path, yaml.safe_load(PRESET))
    assert "rotation" in probe.result.augmentations
    assert "elastic" not in probe.result.augmentations


def test_a_preset_by_its_name_is_taken_from_yaml(tmp_path):
    probe = run(tmp_path, "geometric", num_images=None)
    assert "rotation" in probe.result.augmentations
    assert probe.result.metadata["num_images"] == 64


@pytest.mark.parametrize(
    "options",
    [
        {"layers": "auto"},
        {"progress": None, "on_error": "warn", "when": "validation"},
        {"layers": "re:stem|head", "metrics": "sensitivity"},
        {"metrics": ["sensitivity", "relative_change"], "monitor": ["probe_relative_change/head"]},
        {"forward": "forward", "to_inputs": 0, "embedding": "stem"},
        {"log_curves": "all", "every_n_epochs": 2, "at_start": False, "name": "layers", "progress": False},
    ],
)
def test_everything_that_yaml_can_say_is_taken(tmp_path, options):
    probe = run(tmp_path, yaml.safe_load(NESTED), **options)
    assert probe.result.epoch == 0
