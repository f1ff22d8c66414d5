"""SensitivityProbe: layer sensitivity from epoch to epoch, in every logger."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from kornia_lightning_probe.bank import AugmentationBank
from kornia_lightning_probe.batches import ImageKeys, ToInputs
from kornia_lightning_probe.callbacks.base import EpochProbe
from kornia_lightning_probe.callbacks.environment import evaluation_loader, forward_in, logging_step, world_of
from kornia_lightning_probe.callbacks.logbook import Logbook
from kornia_lightning_probe.calling import Forward
from kornia_lightning_probe.engine import Plan, run_probe
from kornia_lightning_probe.images import ProbeImages
from kornia_lightning_probe.layers import LayerSelector
from kornia_lightning_probe.metrics import MetricLike, resolve_metrics
from kornia_lightning_probe.probe import choose_subject
from kornia_lightning_probe.result import ProbeResult
from kornia_lightning_probe.sources import has_no_indices, read_first

_BLOCK = 32
_MOST_OF_AN_EPOCH = 0.1


class SensitivityProbe(EpochProbe):
    """Measures at the end of validation how far each layer moves under each augmentation, and logs it.

    Everything is measured on the same images, under the same draws of the augmentations, in every epoch, on any number
    of processes; the training itself is not disturbed and ends in bitwise the same weights.

    Logged, with ``name="probe"``, all without a unit but the seconds:

    ==============================================  ==================================================================
    ``probe_sensitivity/{layer}``                   mean over the views, [0, inf): 0 not noticed, 1 as far as another image
    ``probe_sensitivity_{augmentation}/{layer}``    mean over the augmentation's levels
    ``probe/embedding_sensitivity``                 mean over the views at the embedding
    ``probe/spread``                                typical distance between images at the embedding, relative to the
                                                    first probe: near 0 is a collapse
    ``probe/seconds``                               what the probe took
    ==============================================  ==================================================================

    The last three and the curves named in ``monitor`` go through Lightning's own ``log``, so EarlyStopping and
    ModelCheckpoint see them in the same epoch. Each result is written to ``{log_dir}/{name}/`` as JSON by rank 0.

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
            raise MisconfigurationException(f"bank must be an AugmentationBank, got a {type(bank).__name__}")
        if num_images < 1:
            raise MisconfigurationException(f"num_images must be at least 1, got {num_images}")
        self.bank = bank
        self.layers = layers
        self.metrics = resolve_metrics(metrics)
        self.images = images
        self.num_images = num_images
        self.seed = seed
        self.embedding = embedding
        self.forward = forward
        self.dataloader_idx = dataloader_idx
        self.batch_size = batch_size
        self.progress = progress
        self.history: list[ProbeResult] = []
        self._reading = {"seed": seed, "image_keys": image_keys, "to_inputs": to_inputs}
        self._logbook = Logbook(name, log_curves=log_curves, monitor=monitor, figures=figures, say_once=self.say_once)
        self._probe_images: ProbeImages | None = None

    @property
    def result(self) -> ProbeResult | None:
        """The latest result; None before the first."""
        return self.history[-1] if self.history else None

    def measure(self, trainer: Trainer, pl_module: LightningModule, *, epoch: int) -> None:
        """Measure every layer under every view, and log."""
        started = time.perf_counter()
        with torch.inference_mode(False):
            images = self._find_images(trainer)
            subject = choose_subject(
                pl_module,
                forward_in(trainer, pl_module, self.forward),
                layers=self.layers,
                embedding=self.embedding,
                device=pl_module.device,
            )
            plan = Plan(
                images=images,
                bank=self.bank.fit_channels(images.scout.images[0].shape[1]),
                metrics=self.metrics,
                batch_size=self.batch_size,
                seed=self.seed,
                progress=self.progress,
                world=world_of(trainer),
            )
            step = 0 if epoch < 0 else logging_step(trainer)
            result = run_probe(subject, plan, epoch=epoch, step=step)
        self.history.append(result)
        self._logbook.write(trainer, pl_module, self.history, bank=plan.bank, images=images.scout.images[0])
        self._report(result, started)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the images; a later run may have other data or other processes."""
        self._probe_images = None

    def state_dict(self) -> dict[str, Any]:
        """All results, as compact tables."""
        return {**super().state_dict(), "history": [result.state() for result in self.history]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the history of a checkpoint."""
        super().load_state_dict(state_dict)
        self.history = [ProbeResult.from_state(state) for state in state_dict["history"]]

    def _find_images(self, trainer: Trainer) -> ProbeImages:
        if self._probe_images is None:
            source = evaluation_loader(trainer, self.dataloader_idx) if self.images is None else self.images
            wanted = None if isinstance(source, torch.Tensor | tuple | dict) else self.num_images
            if trainer.fast_dev_run:
                wanted = _BLOCK
            if has_no_indices(source):
                first = read_first(source, wanted, **self._reading) if trainer.is_global_zero else None
                source = trainer.strategy.broadcast(first)
            self._probe_images = ProbeImages(
                source, num_images=wanted, rank=trainer.global_rank, world_size=trainer.world_size, **self._reading
            )
            for note in self._probe_images.notes:
                rank_zero_info(f"{self.name}: {note}")
        return self._probe_images

    def _report(self, result: ProbeResult, started: float) -> None:
        for sentence in result.metadata["warnings"]:
            self.say_once(sentence)
        seconds = time.perf_counter() - started
        size = f"{result.metadata['num_images']} images x {len(result.views)} views x {len(result.layers)} layers"
        if result.epoch < 0 or self._epoch_started is None:
            rank_zero_info(f"{self.name}: {size}: {seconds:.1f} s")
            return
        share = seconds / (time.perf_counter() - self._epoch_started)
        rank_zero_info(f"{self.name}: {size}: {seconds:.1f} s, {share:.0%} of the epoch")
        if share > _MOST_OF_AN_EPOCH:
            self.say_once(
                f"the probe {self.name!r} takes more than {_MOST_OF_AN_EPOCH:.0%} of an epoch; raise every_n_epochs, or "
                "lower num_images or the number of views or layers"
            )
