"""When a probe runs inside a training: before the first step, at the end of validation, in test."""

from __future__ import annotations

import time
from abc import abstractmethod
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from kornia_lightning_probe.callbacks.trainer import is_training, require_validation, weight_averaging_before

START_EPOCH = -1


class EpochProbe(Callback):
    """A callback that measures at the end of validation, every so many epochs.

    Probed are the first validation of a training, each in an epoch divisible by ``every_n_epochs`` and, where that
    epoch has none, the next one; of a probed epoch every validation. The sanity check is skipped.

    Args:
        every_n_epochs: at least 1.
        at_start: whether to measure before the first training step too, as epoch -1 and step 0; never after a resume.
        name: the front of every tag and a folder's name, unique among the probes of a Trainer.

    Raises:
        MisconfigurationException: for arguments out of range.
    """

    def __init__(self, *, every_n_epochs: int, at_start: bool, name: str) -> None:
        super().__init__()
        if every_n_epochs < 1:
            raise MisconfigurationException(f"every_n_epochs must be at least 1, got {every_n_epochs}")
        if not name or "/" in name:
            raise MisconfigurationException(
                f"name must be a text without a slash, the front of every tag, got {name!r}"
            )
        self.every_n_epochs = every_n_epochs
        self.at_start = at_start
        self.name = name
        self._last_epoch: int | None = None
        self._epoch_started: float | None = None
        self._has_trained = False
        self._said: set[str] = set()

    @abstractmethod
    def measure(self, trainer: Trainer, pl_module: LightningModule, *, epoch: int) -> None:
        """Measure and log; ``epoch`` is -1 before the first training step."""

    @property
    @override
    def state_key(self) -> str:
        """Tells the states of several probes in a checkpoint apart."""
        return f"{type(self).__name__}[{self.name}]"

    def start_over(self) -> None:
        """Forget an earlier training, where the same object is given to a new one."""
        self._last_epoch = None
        self._has_trained = False

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        callbacks: list[Any] = getattr(trainer, "callbacks", [])
        if [other.name for other in callbacks if isinstance(other, EpochProbe)].count(self.name) > 1:
            raise MisconfigurationException(
                f"two probes of this Trainer are named {self.name!r}, so their curves and files would mix; pass name="
            )
        self._epoch_started = None
        if stage == "fit":
            require_validation(trainer)
            self._warn_of_raw_weights(trainer)
            if self._has_trained and trainer.global_step == 0:
                self.start_over()

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._has_trained = True
        if self.at_start and trainer.global_step == 0 and trainer.current_epoch == 0 and not trainer.ckpt_path:
            self.measure(trainer, pl_module, epoch=START_EPOCH)

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epoch_started = time.perf_counter()

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        if not is_training(trainer):
            self.measure(trainer, pl_module, epoch=trainer.current_epoch)
        elif self._is_due(trainer.current_epoch):
            self._last_epoch = trainer.current_epoch
            self.measure(trainer, pl_module, epoch=trainer.current_epoch)

    @override
    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.measure(trainer, pl_module, epoch=trainer.current_epoch)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"last_epoch": self._last_epoch}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._last_epoch = state_dict["last_epoch"]

    def say_once(self, sentence: str) -> None:
        """Warn on rank 0, once in this callback's life."""
        if sentence not in self._said:
            self._said.add(sentence)
            rank_zero_warn(sentence)

    def share_of_epoch(self, seconds: float) -> float | None:
        """What share of the epoch so far these seconds are; None where no epoch of a training has begun."""
        if self._epoch_started is None:
            return None
        return seconds / (time.perf_counter() - self._epoch_started)

    def _is_due(self, epoch: int) -> bool:
        if self._last_epoch is None or epoch == self._last_epoch:
            return True
        return epoch // self.every_n_epochs != self._last_epoch // self.every_n_epochs

    def _warn_of_raw_weights(self, trainer: Trainer) -> None:
        averaging = weight_averaging_before(trainer, self)
        if averaging:
            self.say_once(
                f"{averaging} is listed before the probe {self.name!r} and puts the raw weights back before the "
                "probe's turn, so raw weights are measured; list it after the probe to measure the averaged ones"
            )
