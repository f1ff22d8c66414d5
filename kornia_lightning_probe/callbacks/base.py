"""What every probe is: its images, its results, what a checkpoint holds of them, and what becomes of its failures."""

from __future__ import annotations

import time
import uuid
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from typing_extensions import override

from kornia_lightning_probe.callbacks import arguments
from kornia_lightning_probe.callbacks import trainer as of_trainer
from kornia_lightning_probe.callbacks.images import ImageChoice
from kornia_lightning_probe.callbacks.logbook import Entry, Logbook
from kornia_lightning_probe.callbacks.mishaps import agree, memory_note, told
from kornia_lightning_probe.callbacks.record import Record, with_facts
from kornia_lightning_probe.callbacks.schedule import START_EPOCH, ScheduledCallback
from kornia_lightning_probe.callbacks.summaries import size_of, work_ahead
from kornia_lightning_probe.callbacks.trainer import Occasion, occasion_of
from kornia_lightning_probe.engine.memory import BatchSize, PassSize, is_out_of_memory
from kornia_lightning_probe.engine.processes import World
from kornia_lightning_probe.engine.sighting import FirstLooks
from kornia_lightning_probe.images.batches import ImageKeys, ToInputs
from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.model.calling import Forward, forward_of
from kornia_lightning_probe.model.layers import LayerSelector
from kornia_lightning_probe.model.subject import Subject, choose_subject
from kornia_lightning_probe.result import ProbeResult
from kornia_lightning_probe.wording import listed

ON_ERROR = ("raise", "warn")


class EpochProbe(ScheduledCallback):
    """A callback that measures a model on the same images again and again.

    A concrete probe says what is measured (:meth:`measure`) and what of it is logged (:meth:`entry`). When that
    happens is :class:`ScheduledCallback`'s, what is kept :class:`Record`'s, and what is written :class:`Logbook`'s.

    Args:
        name: the front of every tag and a folder's name, unique among the probes of a Trainer.
        layers: as all that follow, see :class:`SensitivityProbe`.

    Raises:
        MisconfigurationException: for arguments that can't be used.
    """

    #: Fewer images than this can't be measured.
    fewest_images: ClassVar[int] = 1
    #: Under so many views images are measured, 0 where they are looked at as they are; so many have noise beside them.
    num_views: int = 0
    num_twins: int = 0

    def __init__(
        self,
        *,
        name: str,
        layers: LayerSelector | Sequence[LayerSelector] = "auto",
        images: Any = None,
        num_images: int | None = 256,
        seed: int = 0,
        image_keys: ImageKeys | None = None,
        embedding: str | None = None,
        to_inputs: ToInputs | None = None,
        forward: Forward | None = None,
        dataloader_idx: int = 0,
        batch_size: BatchSize = 32,
        every_n_epochs: int = 1,
        at_start: bool = True,
        figures: bool = True,
        progress: bool | None = None,
        on_error: str = "raise",
        when: str = "validation",
    ) -> None:
        super().__init__(name=name, every_n_epochs=every_n_epochs, at_start=at_start, when=when)
        arguments.require_layers(layers)
        arguments.require_inputs(images, forward=forward, to_inputs=to_inputs, embedding=embedding)
        if num_images is not None:
            arguments.require_integer("num_images", num_images, least=self.fewest_images)
        arguments.require_integer("seed", seed)
        arguments.require_integer("dataloader_idx", dataloader_idx, least=0)
        arguments.require_batch_size(batch_size)
        arguments.require_flag("figures", figures)
        if progress is not None:
            arguments.require_flag("progress", progress)
        arguments.require_choice("on_error", on_error, ON_ERROR)
        if when == "train_epoch_end" and images is None:
            raise MisconfigurationException(
                "when='train_epoch_end' needs images=, a tensor, a dataset or a dataloader, as there may be no "
                "validation data to take them from"
            )
        self.layers = layers
        self.embedding = embedding
        self.forward = forward
        self.batch_size = batch_size
        self.seed = seed
        self.progress = progress
        self.on_error = on_error
        self._record = Record()
        self._choice = ImageChoice(images, num_images, seed, image_keys, to_inputs, dataloader_idx)
        self._logbook = Logbook(name, figures=figures, say_once=self.say_once)
        self._images: ProbeImages | None = None
        self._is_fitting = True
        self._looks = FirstLooks()
        self._size = PassSize(batch_size)
        self._checkpoint: object = None
        self._evaluated_run: str | None = None

    # What a concrete probe gives.

    @abstractmethod
    def measure(self, subject: Subject, images: ProbeImages, occasion: Occasion) -> ProbeResult:
        """Measure; every process calls it, and gets the same result."""

    @abstractmethod
    def entry(self, results: Sequence[ProbeResult], images: ProbeImages, *, name: str, stage: str) -> Entry:
        """What is to be logged of the latest result.

        Args:
            results: those of the stage, oldest first.
            images: the probe images.
            name: the front of every tag.
            stage: "fit", "validate" or "test".
        """

    def images_read(self, images: ProbeImages) -> None:
        """Look at images that have just been read, once in each run."""

    def what_is_held(self) -> str:
        """What is held for the next probe, for the line on what this one has cost; empty for nothing."""
        return ""

    def images_gone(self) -> None:
        """Let go of what was held of the images, at the end of a run."""

    def more_state(self) -> dict[str, Any]:
        """What a checkpoint should hold beside the history."""
        return {}

    def load_more(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`more_state` has given; an earlier version may have written less."""

    def load_for_evaluation(self, state: Mapping[str, Any]) -> None:
        """Take up what of a checkpoint is needed to evaluate it only, where the history at hand is kept."""

    # What users read.

    @property
    def history(self) -> list[ProbeResult]:
        """The results of the training, oldest first."""
        return self._record.history

    @history.setter
    def history(self, results: list[ProbeResult]) -> None:
        self._record.history = results

    @property
    def validations(self) -> list[ProbeResult]:
        """The results of ``trainer.validate``, oldest first."""
        return self._record.validations

    @property
    def tests(self) -> list[ProbeResult]:
        """The results of ``trainer.test``, oldest first."""
        return self._record.tests

    @property
    def result(self) -> ProbeResult | None:
        """The latest result, of whatever stage; None before the first."""
        return self._record.latest

    # Lightning's hooks.

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._forget_images()
        self._is_fitting = stage == "fit"
        self._checkpoint = None
        self._evaluated_run = None
        if self.forward is not None:
            return
        forward_of(pl_module)
        hooks = of_trainer.unused_transfer_hooks(trainer, pl_module)
        if hooks:
            self.say_once(
                f"the probe {self.name!r} has images and no batch, so it does not run {' and '.join(hooks)}; if "
                "validation batches are changed there, pass forward=, a callable (module, inputs), and do it in it"
            )

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._forget_images()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._forget_images()

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"last_epoch": self._last_epoch, **self._record.state(), **self.more_state()}

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # The state comes next, and without a word on its file.
        self._checkpoint = trainer.ckpt_path

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        try:
            self._load(state_dict)
        except Exception as error:
            file = "this checkpoint"
            if self._checkpoint is not None:
                file = f"the checkpoint {str(self._checkpoint)!r}"
            raise ValueError(f"the state of {self.state_key} in {file} can't be read: {told(error)}") from error

    def _load(self, state: dict[str, Any]) -> None:
        last_epoch = state.get("last_epoch")
        if last_epoch is not None:
            arguments.require_integer("'last_epoch'", last_epoch)
        loaded = Record()
        loaded.load(state, checkpoint=self._checkpoint)
        # Lightning loads callbacks for validate and test too, where the history at hand may be the longer one.
        if self.history and not self._is_fitting and not loaded.goes_on_from(self._record):
            self._evaluated_run = loaded.run
            self.load_for_evaluation(state)
            return
        self._record.load(state, checkpoint=self._checkpoint)
        self.load_more(state)
        self._last_epoch = last_epoch

    @override
    def start_over(self) -> None:
        super().start_over()
        self._record = Record()

    @override
    def has_past(self) -> bool:
        return bool(self.history)

    @override
    def why_not_at_start(self, trainer: Trainer) -> str:
        if self._choice.images is not None or of_trainer.has_loader(trainer):
            return ""
        return (
            "Lightning has not made the validation dataloader yet, and to ask for it earlier would change the "
            "training; leave the sanity check on (num_sanity_val_steps above 0), or pass images="
        )

    @override
    def probe(self, trainer: Trainer, pl_module: LightningModule, *, epoch: int) -> None:
        if epoch == START_EPOCH and any(result.epoch == START_EPOCH for result in self.history):
            return
        started = time.perf_counter()
        occasion = occasion_of(trainer, epoch=epoch, progress=self.progress)
        measured = self._measured(trainer, pl_module, occasion)
        if isinstance(measured, Exception):
            self._fail(trainer, measured, occasion)
            return
        result, images = measured
        seconds = time.perf_counter() - started
        result = with_facts(result, seconds=seconds, run=self._run_of(trainer))
        self._record.add(result, stage=occasion.stage)
        self.say_all(result.metadata["warnings"], result.metadata.get("warning_kinds", ()))
        results = self._record.of_stage(occasion.stage)
        entry = self.entry(results, images, name=self.name_in(occasion.stage), stage=occasion.stage)
        self._logbook.write(trainer, pl_module, entry)
        size = ", ".join(filter(None, [size_of(result), self.what_is_held()]))
        self.say_cost(size, time.perf_counter() - started)

    def _measured(
        self, trainer: Trainer, module: LightningModule, occasion: Occasion
    ) -> tuple[ProbeResult, ProbeImages] | Exception:
        """The result, or why there is none: the same of the two on every process."""
        measured: tuple[ProbeResult, ProbeImages] | Exception
        try:
            with of_trainer.not_training(trainer), torch.inference_mode(False):
                images, subject = self._prepared(trainer, module, occasion.world)
                measured = self.measure(subject, images, occasion), images
        except Exception as error:
            # Whatever it is, the other processes must learn of it.
            measured = error
        failure = agree(occasion.world, measured if isinstance(measured, Exception) else None)
        return failure or measured

    def _prepared(self, trainer: Trainer, module: LightningModule, world: World) -> tuple[ProbeImages, Subject]:
        try:
            images = self._read(trainer, world)
            subject = choose_subject(
                module,
                of_trainer.forward_in(trainer, module, self.forward),
                layers=self.layers,
                embedding=self.embedding,
                device=module.device,
            )
        except Exception as error:
            # The others are about to wait for this process.
            world.fail(error)
            raise
        if world.lockstep:
            # In the engine they could not be told any more.
            world.meet("ready")
        return images, subject

    def _read(self, trainer: Trainer, world: World) -> ProbeImages:
        if self._images is not None:
            return self._images
        images = self._choice.read(trainer, world)
        self.images_read(images)
        self._images, self._looks, self._size = images, FirstLooks(), PassSize(self.batch_size)
        for note in [*images.notes, work_ahead(images.deal, self.num_views, self._size.now, twins=self.num_twins)]:
            rank_zero_info(f"{self.name}: {note}")
        return images

    def _forget_images(self) -> None:
        # A later run may have other data or other processes.
        self._images, self._looks = None, FirstLooks()
        self.images_gone()

    def _fail(self, trainer: Trainer, error: Exception, occasion: Occasion) -> None:
        if is_out_of_memory(error):
            error.add_note(memory_note(name=self.name, batch_size=self._size.now, last=self.result))
            if occasion.world.size > 1 and self._size.halve():
                error.add_note(f"the next probe will put {self._size.now} images into a pass")
        if self.on_error == "raise" or occasion.world.lockstep:
            raise error
        watching = [f"{watcher.who} ({watcher.tag!r})" for watcher in self.watchers(trainer)]
        consequence = ""
        if watching:
            consequence = f"; without a new value: {listed(watching)}"
        rank_zero_warn(
            f"the probe {self.name!r} has failed in epoch {occasion.epoch} and is left out there, as "
            f"on_error='warn' asks: {told(error)}{consequence}"
        )

    def _run_of(self, trainer: Trainer) -> str:
        """What tells this training from others, on every process the same; of an evaluated checkpoint its own."""
        if self._evaluated_run is not None:
            return self._evaluated_run
        if self._record.run is None:
            # It comes from the system's own source, and moves no random stream.
            self._record.run = str(trainer.strategy.broadcast(uuid.uuid4().hex[:16]))
        return self._record.run
