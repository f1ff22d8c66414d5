"""SensitivityProbe: layer sensitivity from epoch to epoch, in every logger."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from kornia_lightning_probe.bank.bank import AugmentationBank
from kornia_lightning_probe.callbacks.base import EpochProbe
from kornia_lightning_probe.callbacks.history import results_of, states_of
from kornia_lightning_probe.callbacks.images import ImageChoice
from kornia_lightning_probe.callbacks.logbook import Logbook
from kornia_lightning_probe.callbacks.summaries import size_of
from kornia_lightning_probe.callbacks.trainer import forward_in, logging_step, unused_transfer_hooks, world_of
from kornia_lightning_probe.engine.processes import World
from kornia_lightning_probe.engine.under_views import Plan, run_probe
from kornia_lightning_probe.images.batches import ImageKeys, ToInputs
from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.metrics import MetricLike, resolve_metrics
from kornia_lightning_probe.model.calling import Forward, forward_of
from kornia_lightning_probe.model.layers import LayerSelector
from kornia_lightning_probe.model.subject import Subject
from kornia_lightning_probe.probe import choose_subject
from kornia_lightning_probe.result import ProbeResult

_MOST_OF_AN_EPOCH = 0.1


class SensitivityProbe(EpochProbe):
    """Measures at the end of validation how far each layer moves under each augmentation, and logs it.

    Everything is measured on the same images, under the same draws of the augmentations, in every epoch, on any number
    of processes; the training itself is not disturbed and ends in bitwise the same weights.

    Logged, with ``name="probe"``, all without a unit but the seconds:

    ============================================  ====================================================================
    ``probe_sensitivity/{layer}``                 mean over the views, [0, inf): 0 not noticed, 1 as far as another
                                                  image
    ``probe_sensitivity_{augmentation}/{layer}``  mean over the augmentation's levels
    ``probe/embedding_sensitivity``               mean over the views at the embedding
    ``probe/spread``                              typical distance between images at the embedding, relative to the
                                                  first probe: near 0 is a collapse
    ``probe/flip_rate``                           share of predictions that change, mean over the views, [0, 1]
    ``probe/accuracy_drop``                       clean accuracy minus that under the view, where there are labels
    ``probe/seconds``                             what the measurement took, without figures and files
    ============================================  ====================================================================

    The last five, where they were measured, and the curves named in ``monitor`` go through Lightning's own ``log``, so
    EarlyStopping and ModelCheckpoint see them in the same epoch. TensorBoard also gets a chart for each augmentation
    (the "custom scalars" tab), a figure of each probe and a picture of the bank. Each result is written by rank 0 to
    ``{log_dir}/{name}/epoch={epoch}-step={step}.json`` for :meth:`ProbeResult.from_json`; after ``ddp_spawn`` and
    ``ddp_notebook`` these files are all that is left.

    A new training starts a new history; a resumed one takes up that of its checkpoint.

    Args:
        bank: the augmentations, each with its levels.
        layers: what :func:`select_layers` takes.
        metrics: names, metric objects or functions of (clean, augmented); None is the default set.
        images: a tensor, a dict or tuple of tensors, a dataset or a dataloader; None takes the validation data.
        num_images: how many images of a dataset are used; a tensor is used whole.
        seed: chooses the images.
        image_keys: which entries of dict or tuple inputs are images.
        embedding: the layer called the embedding; default: the last chosen layer that isn't the output itself.
        to_inputs: how to get the model's inputs out of a batch: a callable, a key or an index.
        forward: a callable ``(module, inputs)``, or the name of a method or submodule to call.
        dataloader_idx: which of several validation dataloaders.
        batch_size: at most so many images in one forward pass; the numbers do not depend on it.
        every_n_epochs: how many epochs from one probe to the next.
        at_start: whether to measure before the first training step too, as epoch -1 and step 0.
        log_curves: "layers" (sensitivity), "all" (every metric) or "summary" (none).
        monitor: tags of curves that EarlyStopping or ModelCheckpoint watch.
        figures: whether TensorBoard gets a figure of each probe and a picture of the bank.
        progress: whether to show a bar.
        name: the front of every tag, unique among the probes of a Trainer.

    Raises:
        MisconfigurationException: for arguments that can't be used, two probes of one name, no validation data.

    Example:
        >>> import kornia.augmentation as K
        >>> bank = AugmentationBank({"rotation": {15: K.RandomRotation((15.0, 15.0), p=1.0)}})
        >>> probe = SensitivityProbe(bank, num_images=64)
        >>> probe.history
        []
    """

    def __init__(
        self,
        bank: AugmentationBank,
        *,
        layers: LayerSelector | Sequence[LayerSelector] = "auto",
        metrics: Sequence[MetricLike] | MetricLike | None = None,
        images: Any = None,
        num_images: int = 256,
        seed: int = 0,
        image_keys: ImageKeys | None = None,
        embedding: str | None = None,
        to_inputs: ToInputs | None = None,
        forward: Forward | None = None,
        dataloader_idx: int = 0,
        batch_size: int = 32,
        every_n_epochs: int = 1,
        at_start: bool = True,
        log_curves: str = "layers",
        monitor: Sequence[str] = (),
        figures: bool = True,
        progress: bool = False,
        name: str = "probe",
    ) -> None:
        super().__init__(every_n_epochs=every_n_epochs, at_start=at_start, name=name)
        if not isinstance(bank, AugmentationBank):
            raise MisconfigurationException(
                f"bank must be an AugmentationBank, got a {type(bank).__name__}; AugmentationBank(views) makes one"
            )
        for argument, number, least in (
            ("num_images", num_images, 1),
            ("batch_size", batch_size, 1),
            ("dataloader_idx", dataloader_idx, 0),
        ):
            if number < least:
                raise MisconfigurationException(f"{argument} must be at least {least}, got {number}")
        self.bank = bank
        self.layers = layers
        self.metrics = resolve_metrics(metrics)
        self._default_set = metrics is None
        self.embedding = embedding
        self.forward = forward
        self.batch_size = batch_size
        self.seed = seed
        self.progress = progress
        self.history: list[ProbeResult] = []
        self._reading = ImageChoice(images, num_images, seed, image_keys, to_inputs, dataloader_idx)
        self._logbook = Logbook(name, log_curves=log_curves, monitor=monitor, figures=figures, say_once=self.say_once)
        self._images: ProbeImages | None = None
        self._fitted_bank = bank
        self._is_fitting = True

    @property
    def result(self) -> ProbeResult | None:
        """The latest result; None before the first."""
        return self.history[-1] if self.history else None

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._images = None
        self._is_fitting = stage == "fit"
        if self.forward is not None:
            return
        forward_of(pl_module)
        hooks = unused_transfer_hooks(trainer, pl_module)
        if hooks:
            self.say_once(
                f"the probe {self.name!r} has images and no batch, so it does not run {' and '.join(hooks)}; if "
                "validation batches are changed there, pass forward=, a callable (module, inputs), and do it in it"
            )

    @override
    def start_over(self) -> None:
        super().start_over()
        self.history = []

    @override
    def measure(self, trainer: Trainer, pl_module: LightningModule, *, epoch: int) -> None:
        started = time.perf_counter()
        world = world_of(trainer)
        with torch.inference_mode(False):
            try:
                subject, plan = self._prepare(trainer, pl_module, world)
            except Exception as error:
                world.fail(error)
                raise
            numbers = run_probe(subject, plan, epoch=epoch, step=0 if epoch < 0 else logging_step(trainer))
        result = ProbeResult.of(numbers)
        self.history.append(result)
        if len(self.history) > 2:
            # What pairs images in a comparison is kept of the first and the last result only.
            self.history[-2] = self.history[-2].without_influence()
        for sentence in result.metadata["warnings"]:
            self.say_once(sentence)
        self._logbook.write(trainer, pl_module, self.history, bank=plan.bank, images=plan.images.scout.images[0])
        self._report(result, time.perf_counter() - started)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # A later run may have other data or other processes.
        self._images = None

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._images = None

    @override
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "history": states_of(self.history)}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Lightning loads callbacks for validate and test too, where the history at hand may be the longer one.
        if self._is_fitting or not self.history:
            super().load_state_dict(state_dict)
            self.history = results_of(state_dict["history"])

    def _prepare(self, trainer: Trainer, pl_module: LightningModule, world: World) -> tuple[Subject, Plan]:
        images = self._images
        if images is None:
            images = self._images = self._reading.read(trainer, world)
            self._fitted_bank = self.bank.fit_channels(images.scout.images[0].shape[1])
            for note in images.notes:
                rank_zero_info(f"{self.name}: {note}")
        subject = choose_subject(
            pl_module,
            forward_in(trainer, pl_module, self.forward),
            layers=self.layers,
            embedding=self.embedding,
            device=pl_module.device,
        )
        plan = Plan(
            images=images,
            bank=self._fitted_bank,
            metrics=self.metrics,
            default_set=self._default_set,
            batch_size=self.batch_size,
            seed=self.seed,
            progress=self.progress and trainer.is_global_zero,
            world=world,
        )
        return subject, plan

    def _report(self, result: ProbeResult, seconds: float) -> None:
        share = self.share_of_epoch(seconds)
        line = f"{self.name}: {size_of(result)}: {seconds:.1f} s"
        rank_zero_info(line if share is None else f"{line}, {100 * share:.0f} % of the epoch")
        if share is not None and share > _MOST_OF_AN_EPOCH:
            self.say_once(
                f"the probe {self.name!r} takes more than {100 * _MOST_OF_AN_EPOCH:.0f} % of an epoch: raise "
                "every_n_epochs, or lower num_images or the number of views or layers"
            )
