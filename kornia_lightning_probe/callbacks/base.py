"""When a probe runs inside a training: before the first step, at the end of validation, in test."""

from __future__ import annotations

import time
from abc import abstractmethod
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from kornia_lightning_probe.callbacks.environment import require_validation, unused_transfer_hooks

START_EPOCH = -1


class EpochProbe(Callback):
    """A callback that measures at the end of validation, every so many epochs.

    The first validation of a training is probed, then each that is at least ``every_n_epochs`` epochs after the last
    probed one; several validations within a probed epoch are all probed. The sanity check is skipped.

    Args:
        every_n_epochs: at least 1.
        at_start: whether to measure before the first training step too, as epoch -1 and step 0; never after a resume.
        name: the front of every tag, unique among the probes of a Trainer.

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
        self._said: set[str] = set()

    @abstractmethod
    def measure(self, trainer: Trainer, pl_module: LightningModule, *, epoch: int) -> None:
        """Measure and log; ``epoch`` is -1 before the first training step."""

    @property
    def state_key(self) -> str:
        """Tells the states of several probes in a checkpoint apart."""
        return f"{type(self).__name__}[{self.name}]"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check what can be known before the training."""
        callbacks: list[Any] = list(trainer.callbacks)  # type: ignore[attr-defined]  # set by the callback connector
        if [getattr(other, "name", None) for other in callbacks if isinstance(other, EpochProbe)].count(self.name) > 1:
            raise MisconfigurationException(
                f"two probes of this Trainer are named {self.name!r}, so their curves and files would mix; pass name="
            )
        after = callbacks[callbacks.index(self) + 1 :] if self in callbacks else []
        averaging = [type(other).__name__ for other in after if "Averaging" in type(other).__name__]
        if averaging and stage == "fit":
            self.say_once(
                f"{averaging[0]} is listed after the probe {self.name!r}, so the probe sees raw weights; list it first"
            )
        hooks = unused_transfer_hooks(pl_module)
        if hooks:
            self.say_once(
                f"{type(pl_module).__name__} overrides {' and '.join(hooks)}, which the probe {self.name!r} does not run, "
                "as it has images and no batch; if validation batches are changed there, pass forward= and do it in it"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the untrained model."""
        require_validation(trainer)
        if self.at_start and trainer.global_step == 0 and trainer.current_epoch == 0 and not trainer.ckpt_path:
            self.measure(trainer, pl_module, epoch=START_EPOCH)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the time, to say what share of the epoch the probe is."""
        self._epoch_started = time.perf_counter()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, where it is this epoch's turn; monitors of the same epoch see the values."""
        if trainer.sanity_checking:
            return
        if trainer.state.fn != "fit":
            self.measure(trainer, pl_module, epoch=trainer.current_epoch)
        elif self._is_due(trainer.current_epoch):
            self._last_epoch = trainer.current_epoch
            self.measure(trainer, pl_module, epoch=trainer.current_epoch)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure."""
        self.measure(trainer, pl_module, epoch=trainer.current_epoch)

    def say_once(self, sentence: str) -> None:
        """Warn on rank 0, once in this callback's life."""
        if sentence not in self._said:
            self._said.add(sentence)
            rank_zero_warn(sentence)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: plain containers, numbers and tensors."""
        return {"last_epoch": self._last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up where a checkpoint was written."""
        self._last_epoch = state_dict["last_epoch"]

    def _is_due(self, epoch: int) -> bool:
        return self._last_epoch is None or epoch == self._last_epoch or epoch - self._last_epoch >= self.every_n_epochs
