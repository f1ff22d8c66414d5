"""A training and a validation whose logger is read afterwards: what it must have, and where the files must be."""

from pathlib import Path

import kornia.augmentation as K  # noqa: N812 - Kornia's own convention
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from kornia_lightning_probe import AugmentationBank, ProbeResult, SensitivityProbe
from support.trainings import LAYERS, assert_same_numbers, fit, loader, probe_of

AUGMENTATIONS = ("rotation", "flip")
FILES = {
    "fit-epoch=-1-step=0.json",
    "fit-epoch=0-step=3.json",
    "fit-epoch=1-step=7.json",
    "validate-epoch=2-step=8.json",
}


def run(folder, logger, **options):
    """Train two epochs and validate; the probe, and the folder of the run's checkpoints."""
    probe, keep = probe_of(**options), ModelCheckpoint()
    trainer = fit(folder, probe, keep, logger=logger, enable_checkpointing=True)
    trainer.validate(trainer.lightning_module, loader(seed=1), verbose=False)
    return probe, Path(keep.dirpath)


def awkward_probe():
    """A probe all of whose metrics are curves, under an augmentation whose name has what some loggers refuse."""
    bank = AugmentationBank({"flip [1]: a": K.RandomHorizontalFlip(p=1.0)})
    return SensitivityProbe(bank, layers=list(LAYERS), num_images=16, figures=False, log_curves="all")


def curves(probe):
    """What every logger must have of :func:`run`: the steps and values of each tag."""
    expected = {}
    for name, results in (("probe", probe.history), ("probe_validate", probe.validations)):
        for layer in LAYERS:
            points = [(result.step, result.value("sensitivity", layer)) for result in results]
            expected[f"{name}_sensitivity/{layer}"] = points
            for augmentation in AUGMENTATIONS:
                points = [(result.step, result.value("sensitivity", layer, augmentation)) for result in results]
                expected[f"{name}_sensitivity_{augmentation}/{layer}"] = points
        points = [(result.step, result.value("sensitivity", result.metadata["embedding"])) for result in results]
        expected[f"{name}/embedding_sensitivity"] = points
    return expected


def assert_curves_arrived(found, probe):
    """A logger's steps and values by tag are those that were measured, neither fewer nor more."""
    for tag, points in curves(probe).items():
        assert [step for step, _ in found[tag]] == [step for step, _ in points], tag
        values = [value for _, value in points]
        assert [value for _, value in found[tag]] == pytest.approx(values, rel=1e-6), tag


def assert_files_are_in(folder, probe):
    """Each result has a file in this folder, and nothing else is there."""
    beside = {name.replace(".json", ".images.npz") for name in FILES}
    assert {path.name for path in folder.iterdir()} == FILES | beside
    for result in [*probe.history, *probe.validations]:
        stage = "fit" if result in probe.history else "validate"
        path = folder / f"{stage}-epoch={result.epoch}-step={result.step}.json"
        assert_same_numbers(ProbeResult.from_json(path), result)


def contents(folder):
    """Every result's file by path, as text."""
    return {path: path.read_text() for path in Path(folder).rglob("*-epoch=*.json")}


def assert_runs_keep_apart(folder, make_logger):
    """Two runs whose loggers are made in one way have a folder each, beside their checkpoints, and lose nothing."""
    probe, checkpoints = run(folder, make_logger())
    assert_files_are_in(checkpoints.parent / "probe", probe)
    before = contents(folder)
    second, others = run(folder, make_logger(), num_images=8)
    assert others.parent != checkpoints.parent
    assert_files_are_in(others.parent / "probe", second)
    after = contents(folder)
    assert {path: after[path] for path in before} == before
    assert len(after) == 2 * len(before) == 2 * len(FILES)
