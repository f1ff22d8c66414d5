"""A training that is the same on any number of processes, and what can befall one of them in the middle of a probe."""

import os
import signal
import time
from pathlib import Path

import torch
from torch import nn

from kornia_lightning_probe import ProbeResult
from support.trainings import Net, assert_same_numbers, fit, images_of, loader, probe_of

# All images are one batch, in whatever order Lightning deals them, and two, three and four processes have equal shares.
BATCH = 96
STEMS = ("fit-epoch=-1-step=0", "fit-epoch=0-step=0", "fit-epoch=1-step=1")
# Two blocks of 25 images, and no other batch has as many.
BLOCK = 25
# Every process passes the first block once, a process with a block of its own at least twice more.
SCOUTING, MEASURING = 1, 3


class Even(Net):
    """Without what draws or looks at the batch: a batch cut into shares gives the gradients of the whole.

    Args:
        mishap: what befalls a process in epoch 1: "raise", "interrupt", "kill" or nothing.
        rank: of that process.
        at: in which of its passes.
        folder: where it notes the time.
    """

    def __init__(self, *, mishap="", rank=1, at=MEASURING, folder="."):
        super().__init__()
        self.stem[1] = nn.Identity()
        self.body[4] = nn.Identity()
        self.mishap, self.of_rank, self.at, self.folder = mishap, rank, at, folder
        self.passes = 0

    def forward(self, images):
        if self.mishap and len(images) == BLOCK and self.trainer.current_epoch == 1:
            self.passes += 1
            if self.global_rank == self.of_rank and self.passes == self.at:
                self._happen()
        return super().forward(images)

    def _happen(self):
        (Path(self.folder) / "happened").write_text(str(time.monotonic()))
        if self.mishap == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.mishap == "interrupt":
            # What a shell has started in the background ignores it from birth.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.raise_signal(signal.SIGINT)
        raise OSError(f"a disk of rank {self.of_rank} is gone")


def train(folder, *, processes=1, images=None, model=Even, epochs=2, **options):
    """One step an epoch, with a probe of the validation images or of given ones."""
    world = {"devices": processes} | options
    probe = probe_of(num_images=80) if images is None else probe_of(images=images)
    train_loader = loader(BATCH, batch_size=BATCH // processes)
    return fit(folder, probe, model=model, train=train_loader, val=loader(96, seed=1), max_epochs=epochs, **world)


def befall(folder, mishap, *, rank, at=MEASURING, epochs=2, on_error="raise", kind=Even, **options):
    """The same with a mishap, on two blocks of images; the probe, which may have gone on."""
    probe = probe_of(images=images_of(2 * BLOCK), at_start=False, on_error=on_error)
    model = kind(mishap=mishap, rank=rank, at=at, folder=folder)
    fit(folder, probe, model=model, val=loader(32, seed=1), max_epochs=epochs, **options)
    return probe


def history_in(folder):
    """What the files say, oldest first; there are those that there should be, and no others."""
    written = Path(folder) / "probe"
    there = [f"{stem}.{kind}" for stem in STEMS for kind in ("json", "images.npz")]
    assert sorted(path.name for path in written.iterdir()) == sorted(there)
    return [ProbeResult.from_json(written / f"{stem}.json") for stem in STEMS]


def assert_same_history(folder, expected, *, processes):
    """The files of a training say what those of another do, to relative 1e-5.

    The weights differ by roundings, which a measure that is a small difference of larger numbers shows in full.
    """
    found, alone = history_in(folder), history_in(expected)
    assert [result.metadata["world_size"] for result in found] == [processes] * len(found)
    assert len({result.metadata["run"] for result in found}) == 1
    for one, other in zip(found, alone, strict=True):
        assert one.metadata["content_hash"] == other.metadata["content_hash"]
        assert one.metadata["image_ids"] == other.metadata["image_ids"]
    assert_same_numbers(found, alone, rtol=1e-5, atol=1e-6)
    for one, other in zip(found, alone, strict=True):
        # Each image's part in a sensitivity is small beside others'.
        torch.testing.assert_close(one.images.moved, other.images.moved, rtol=1e-4, atol=1e-6, equal_nan=True)
        torch.testing.assert_close(one.images.apart, other.images.apart, rtol=1e-4, atol=1e-6, equal_nan=True)


def seconds_since(folder):
    """How long ago the mishap was; the clock is one for all processes."""
    return time.monotonic() - float((Path(folder) / "happened").read_text())
