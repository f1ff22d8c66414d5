"""When a probe runs inside a training, and who looks at its values in between."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, ClassVar, NamedTuple

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from typing_extensions import override

from kornia_lightning_probe.callbacks import arguments
from kornia_lightning_probe.callbacks import trainer as of_trainer
from kornia_lightning_probe.callbacks.mishaps import without_values

START_EPOCH = -1
WHEN = ("validation", "train_epoch_end")
_MOST_OF_AN_EPOCH = 0.1
_FEW_SECONDS = 10.0
#: What stands behind a probe's name in the tags of these stages.
EVALUATIONS = ("validate", "test")


class ScheduledCallback(Callback):
    """A callback that acts at the end of validation, every so many epochs.

    That is at the first validation of a training, at each in an epoch divisible by ``every_n_epochs`` and, where that
    epoch has none, at the next one; in such an epoch at every validation. The sanity check is skipped.

    Args:
        name: the front of every tag and a folder's name, unique among the probes of a Trainer.
        every_n_epochs: how many epochs from one probe to the next.
        at_start: whether to act before the first training step too, as epoch -1; never after a resume.
        when: "validation", or "train_epoch_end" for a training without a validation loop.

    Raises:
        MisconfigurationException: for arguments that can't be used.
    """

    #: Whether ``trainer.validate`` and ``trainer.test`` are probed as well.
    probes_evaluations: ClassVar[bool] = True

    def __init__(self, *, name: str, every_n_epochs: int, at_start: bool, when: str) -> None:
        super().__init__()
        arguments.require_name(name)
        arguments.require_integer("every_n_epochs", every_n_epochs, least=1)
        arguments.require_flag("at_start", at_start)
        arguments.require_choice("when", when, WHEN)
        self.name = name
        self.every_n_epochs = every_n_epochs
        self.at_start = at_start
        self.when = when
        self._last_epoch: int | None = None
        self._epoch_started: float | None = None
        self._has_trained = False
        self._said: set[str] = set()

    @abstractmethod
    def probe(self, trainer: Trainer, pl_module: LightningModule, *, epoch: int) -> None:
        """Act; ``epoch`` is -1 before the first training step."""

    def start_over(self) -> None:
        """Forget an earlier training, where the same object is given to a new one."""
        self._last_epoch = None
        self._has_trained = False

    def has_past(self) -> bool:
        """Whether there is something to forget, such as what an evaluation has loaded from its checkpoint."""
        return False

    def why_not_at_start(self, trainer: Trainer) -> str:  # noqa: ARG002 - for those who need it
        """Why nothing can be done before the first step yet; empty where it can."""
        return ""

    def watched_tags(self) -> Sequence[str]:
        """The tags that monitors may watch beside ``{name}/...``."""
        return ()

    def say_once(self, sentence: str, *, kind: str = "") -> None:
        """Warn on rank 0, once in this callback's life.

        Args:
            sentence: the warning.
            kind: sentences of one kind are one; without it those that differ in measured values only.
        """
        key = kind or without_values(sentence)
        if key not in self._said:
            self._said.add(key)
            rank_zero_warn(sentence)

    def say_all(self, sentences: Sequence[str], kinds: Sequence[str]) -> None:
        """Warn of each, of those that are left without a kind by its words."""
        for sentence, kind in zip_longest(sentences, kinds, fillvalue=""):
            self.say_once(sentence, kind=kind)

    def name_in(self, stage: str) -> str:
        """The front of the tags of a stage."""
        if stage in EVALUATIONS:
            return f"{self.name}_{stage}"
        return self.name

    def watchers(self, trainer: Trainer) -> list[Watcher]:
        """Who acts on this probe's values; schedules of learning rates are known from the start of a training on."""
        return [watcher for watcher in _all_watchers(trainer) if self._is_own(watcher.tag)]

    @property
    @override
    def state_key(self) -> str:
        """Tells the states of several probes in a checkpoint apart."""
        return f"{type(self).__name__}[{self.name}]"

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._require_own_names(trainer)
        self._epoch_started = None
        if stage != "fit":
            return
        if self.when == "validation":
            of_trainer.require_validation(trainer)
        self._say_raw_weights(trainer)
        self._say_old_values(trainer)
        if trainer.global_step == 0 and (self._has_trained or self.has_past()):
            # Where a training is resumed its checkpoint is loaded after this.
            self.start_over()

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._has_trained = True
        # Schedules of learning rates have come into being since setup.
        self._say_old_values(trainer)
        if not self.at_start or not of_trainer.is_untrained(trainer):
            return
        reason = self.why_not_at_start(trainer)
        if reason:
            self.say_once(f"the probe {self.name!r} does not measure before the first step: {reason}")
            return
        self.probe(trainer, pl_module, epoch=START_EPOCH)

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epoch_started = time.perf_counter()

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        if of_trainer.is_training(trainer):
            self._probe_if_due(trainer, pl_module, when="validation")
        elif self.probes_evaluations:
            self.probe(trainer, pl_module, epoch=trainer.current_epoch)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._probe_if_due(trainer, pl_module, when="train_epoch_end")

    @override
    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.probes_evaluations:
            self.probe(trainer, pl_module, epoch=trainer.current_epoch)

    def say_cost(self, size: str, seconds: float) -> None:
        """Say what a probe has cost, and warn once where that is much of an epoch and more than a few seconds.

        Args:
            size: how much was measured.
            seconds: what it took, with figures and files.
        """
        line = f"{self.name}: {size}: {seconds:.1f} s"
        if self._epoch_started is None:
            rank_zero_info(line)
            return
        share = seconds / (time.perf_counter() - self._epoch_started)
        rank_zero_info(f"{line}, {100 * share:.0f} % of the epoch")
        if share > _MOST_OF_AN_EPOCH and seconds > _FEW_SECONDS:
            self.say_once(
                f"the probe {self.name!r} takes more than {100 * _MOST_OF_AN_EPOCH:.0f} % of an epoch: raise "
                "every_n_epochs, or lower num_images or the number of views or layers"
            )

    def _probe_if_due(self, trainer: Trainer, module: LightningModule, *, when: str) -> None:
        epoch = trainer.current_epoch
        if self.when == when and self._is_due(epoch):
            self._last_epoch = epoch
            self.probe(trainer, module, epoch=epoch)

    def _is_due(self, epoch: int) -> bool:
        if self._last_epoch is None or epoch == self._last_epoch:
            return True
        return epoch // self.every_n_epochs != self._last_epoch // self.every_n_epochs

    def _is_own(self, tag: str) -> bool:
        return tag.startswith(f"{self.name}/") or tag in self.watched_tags()

    def _require_own_names(self, trainer: Trainer) -> None:
        callbacks: list[Any] = getattr(trainer, "callbacks", [])
        names = [other.name for other in callbacks if isinstance(other, ScheduledCallback)]
        if names.count(self.name) > 1:
            raise MisconfigurationException(
                f"two probes of this Trainer are named {self.name!r}, so their curves and files would mix; pass name="
            )
        for stage in EVALUATIONS:
            if f"{self.name}_{stage}" in names:
                raise MisconfigurationException(
                    f"a probe of this Trainer is named '{self.name}_{stage}', which is what the tags of the probe "
                    f"{self.name!r} begin with in {stage}; pass another name="
                )

    def _say_raw_weights(self, trainer: Trainer) -> None:
        averaging = of_trainer.weight_averaging_before(trainer, self)
        if averaging:
            self.say_once(
                f"{averaging} is listed before the probe {self.name!r} and puts the raw weights back before the "
                "probe's turn, so raw weights are measured; list it after the probe to measure the averaged ones"
            )

    def _say_old_values(self, trainer: Trainer) -> None:
        """Name those who look more often than is measured, and so see the same value several times."""
        looks_every = 1
        if self.when == "validation":
            looks_every = trainer.check_val_every_n_epoch or 1
        for watcher in self.watchers(trainer):
            if self.every_n_epochs > max(looks_every, watcher.every_n_epochs):
                self.say_once(self._between_probes(watcher))
            if self.when == "train_epoch_end" and watcher.looks_early and trainer.enable_validation:
                self.say_once(
                    f"{watcher.who} looks at {watcher.tag!r} at the end of validation, before the probe "
                    f"{self.name!r} has measured it: pass save_on_train_epoch_end=True to {watcher.who}"
                )

    def _between_probes(self, watcher: Watcher) -> str:
        every = self.every_n_epochs
        ways = ["every_n_epochs=1 in the probe"]
        if self.when == "validation":
            ways.append(f"Trainer(check_val_every_n_epoch={every})")
        if watcher.patience is not None:
            ways.append(f"patience={watcher.patience * every} instead of {watcher.patience} in {watcher.who}")
        consequence = "and an old value may be ranked again, for weights that it was not measured of"
        if watcher.patience is not None:
            consequence = "as one that has not improved"
        return (
            f"{watcher.who} watches {watcher.tag!r}, which the probe {self.name!r} measures every {every} epochs: in "
            f"the epochs between it sees the last value again, {consequence}; set {' or '.join(ways)}"
        )


class Watcher(NamedTuple):
    """A callback, or a schedule of a learning rate, that acts on a logged value.

    Attributes:
        who: its class.
        tag: the value's.
        patience: after how many looks without an improvement it acts; None where it doesn't count.
        looks_early: whether it is a checkpoint that is written at the end of validation.
        every_n_epochs: how many epochs from one look to the next, where it has a choice.
    """

    who: str
    tag: str
    patience: int | None
    looks_early: bool = False
    every_n_epochs: int = 1


def _all_watchers(trainer: Trainer) -> list[Watcher]:
    found: list[Watcher] = []
    for callback in getattr(trainer, "callbacks", ()):
        tag = getattr(callback, "monitor", None)
        if isinstance(tag, str):
            patience = getattr(callback, "patience", None)
            looks_early = getattr(callback, "_save_on_train_epoch_end", True) is not True
            every = getattr(callback, "_every_n_epochs", 1)
            found.append(Watcher(type(callback).__name__, tag, patience, looks_early, every))
    for schedule in getattr(trainer, "lr_scheduler_configs", ()):
        if schedule.reduce_on_plateau:
            patience = getattr(schedule.scheduler, "patience", None)
            found.append(Watcher(type(schedule.scheduler).__name__, str(schedule.monitor), patience))
    return found
