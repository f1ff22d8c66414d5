"""What holds for any small module, Trainer and probe: the same training with it, the same history after a resume."""

import random
import tempfile
from pathlib import Path

import kornia.augmentation as K  # noqa: N812 - the name that Kornia's own documentation uses
import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lightning.pytorch.callbacks import ModelCheckpoint
from support.trainings import (
    QUIET,
    Shaky,
    assert_same_numbers,
    assert_same_weights,
    images_of,
    loader,
    trainer_of,
    weights,
)
from torch import nn
from torch.utils.data import DataLoader

from kornia_lightning_probe import AugmentationBank, DriftProbe, SensitivityProbe

# A training takes some tenths of a second; what is found once is found again.
few = settings(
    max_examples=10, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)

pytestmark = [
    *(pytest.mark.filterwarnings(line) for line in QUIET),
    # All of these are true of some of what is drawn, and none is what this is about.
    pytest.mark.filterwarnings("ignore:.*:UserWarning:kornia_lightning_probe"),
    pytest.mark.filterwarnings("ignore::UserWarning:lightning"),
]

SIDE = 8


class Drawn(pl.LightningModule):
    """A net of drawn parts.

    Args:
        width: channels.
        norm: "batch", "group" or "none".
        dropout: its probability.
        optimizer: "sgd", "adam" or "sgd with a schedule".
    """

    def __init__(self, *, width, norm, dropout, optimizer):
        super().__init__()
        norms = {"batch": nn.BatchNorm2d(width), "group": nn.GroupNorm(1, width), "none": nn.Identity()}
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), norms[norm], nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout))
        self.head = nn.Linear(width * (SIDE // 4) ** 2, 2)
        self.optimizer = optimizer

    def forward(self, images):
        return self.head(self.body(self.stem(images)))

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self.log("val/loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        if self.optimizer == "adam":
            return torch.optim.Adam(self.parameters(), 1e-2)
        optimizer = torch.optim.SGD(self.parameters(), 0.05, momentum=0.9)
        if self.optimizer == "sgd":
            return optimizer
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


@st.composite
def modules(draw, *, dropout=True):
    """How to make one, the same each time."""
    made = {
        "width": draw(st.integers(1, 4)),
        "norm": draw(st.sampled_from(["batch", "group", "none"])),
        "dropout": draw(st.sampled_from([0.0, 0.3])) if dropout else 0.0,
        "optimizer": draw(st.sampled_from(["sgd", "adam", "sgd with a schedule"])),
    }
    seed = draw(st.integers(0, 9))

    def make():
        pl.seed_everything(seed, verbose=False)
        return Drawn(**made)

    return make


LADDERS = {
    "halve": lambda: lambda x: x / 2,
    "mirror": lambda: K.RandomHorizontalFlip(p=0.5),
    "rotation": lambda: {angle: K.RandomRotation((-angle, angle), p=1.0) for angle in (5.0, 20.0)},
    "noise": lambda: K.RandomGaussianNoise(std=0.05, p=1.0),
}


@st.composite
def probes(draw):
    """How to make one, or two of both kinds, the same each time."""
    names = draw(st.lists(st.sampled_from(sorted(LADDERS)), min_size=1, max_size=2, unique=True))
    shared = {
        "num_images": draw(st.integers(4, 40)),
        "batch_size": draw(st.integers(1, 40)),
        "every_n_epochs": draw(st.integers(1, 2)),
        "at_start": draw(st.booleans()),
        "figures": False,
        "layers": ["stem", "body", "head"],
    }
    both = draw(st.booleans())

    def make():
        bank = AugmentationBank({name: LADDERS[name]() for name in names})
        made = [SensitivityProbe(bank, **shared)]
        if both:
            made.append(DriftProbe(**shared))
        return made

    return make


# Lightning does not resume float64 to the last bit.
RESUMED = ("32-true", "bf16-mixed", "bf16-true")


def trainers(*precisions):
    """Options of a Trainer."""
    return st.fixed_dictionaries(
        {
            "precision": st.sampled_from(precisions),
            "accumulate_grad_batches": st.integers(1, 2),
            "gradient_clip_val": st.sampled_from([None, 0.5]),
            "num_sanity_val_steps": st.integers(0, 2),
            "check_val_every_n_epoch": st.integers(1, 2),
        }
    )


def streams():
    """Where the three random streams stand."""
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002


def optimizer_states(trainer):
    """All that the optimizers hold."""
    (optimizer,) = trainer.optimizers
    held = {}
    for number, state in optimizer.state_dict()["state"].items():
        held |= {f"{number}.{name}": value for name, value in state.items() if isinstance(value, torch.Tensor)}
    return held


@few
@given(module=modules(), probe=probes(), options=trainers("64-true", *RESUMED), batch_size=st.integers(5, 30))
def test_a_training_with_a_probe_is_bit_for_bit_that_without(module, probe, options, batch_size):
    def trained(callbacks):
        model = module()
        with tempfile.TemporaryDirectory() as folder:
            trainer = trainer_of(folder, *callbacks, max_epochs=3, **options)
            train = DataLoader(Shaky(images_of(45)), batch_size, shuffle=True)
            trainer.fit(model, train, DataLoader(Shaky(images_of(40, seed=1)), batch_size))
        return trainer, streams()

    (without, their_streams), (probed, streams_then) = trained([]), trained(made := probe())
    assert made[0].history
    assert_same_weights(weights(probed.lightning_module), weights(without.lightning_module))
    assert_same_weights(optimizer_states(probed), optimizer_states(without))
    assert streams_then == their_streams
    assert torch.equal(probed.callback_metrics["val/loss"], without.callback_metrics["val/loss"])


@few
@given(module=modules(dropout=False), probe=probes(), options=trainers(*RESUMED), at=st.integers(0, 3))
def test_a_resumed_training_has_the_history_of_an_uninterrupted_one(module, probe, options, at):
    def trained(callbacks, folder, ckpt_path=None):
        trainer = trainer_of(folder, *callbacks, max_epochs=5, **options | {"enable_checkpointing": True})
        trainer.fit(module(), loader(45, batch_size=15), loader(40, seed=1), ckpt_path=ckpt_path)

    with tempfile.TemporaryDirectory() as folder:
        # Lightning doesn't resume the random streams, so net and loader draw nothing.
        keep = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
        trained([*(whole := probe()), keep], folder)
        trained(resumed := probe(), Path(folder) / "again", Path(folder) / f"epoch={at}.ckpt")
    for one, other in zip(resumed, whole, strict=True):
        assert one.history
        assert_same_numbers(one.history, other.history)
        runs = {result.metadata["run"] for result in one.history}
        # Before its first result a training has no name yet.
        has_begun = other.history[0].epoch <= at
        assert (runs == {other.result.metadata["run"]}) == has_begun
