"""DriftProbe: how far each layer has moved since the last and the first probe, on the same clean images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from kornia_lightning_probe.callbacks.base import EpochProbe
from kornia_lightning_probe.callbacks.history import results_of, states_of
from kornia_lightning_probe.callbacks.images import ImageChoice
from kornia_lightning_probe.callbacks.trainer import forward_in, is_training, is_trial, logging_step, world_of
from kornia_lightning_probe.engine.features import collect_features
from kornia_lightning_probe.engine.processes import World
from kornia_lightning_probe.functional.similarity import FEWEST_IMAGES
from kornia_lightning_probe.images.batches import ImageKeys, ToInputs
from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.model.calling import Forward, forward_of
from kornia_lightning_probe.model.layers import LayerSelector
from kornia_lightning_probe.model.subject import Subject
from kornia_lightning_probe.probe import choose_subject
from kornia_lightning_probe.reporting.tensorboard import (
    Curves,
    add_charts,
    add_picture,
    chart_layout,
    curve_tag,
    writer_of,
)
from kornia_lightning_probe.result import ProbeResult
from kornia_lightning_probe.results.drift import REFERENCES, DriftRecord, Snapshot
from kornia_lightning_probe.wording import unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class DriftProbe(EpochProbe):
    """Measures at the end of validation how similar each layer still is to itself at the previous and the first probe.

    The same clean images go through the model at every probe; a layer's pooled features of all of them are compared
    with those of an earlier probe by debiased linear CKA: 1 is the same representation up to rotation and scale, as a
    frozen layer has; 0 has nothing in common with it. It is exact on all images and not clamped. Layers near the input
    usually settle first. Only training is probed, neither ``trainer.validate`` nor ``trainer.test``, whose images may
    be others.

    Logged, with ``name="drift"``:

    ================================  ================================================================================
    ``drift_cka_previous/{layer}``    CKA to the previous probe, at most 1, about 0 or more; NaN for a dead layer
    ``drift_cka_first/{layer}``       CKA to the first probe, likewise
    ``drift/cka_previous``            mean over the layers that have a value
    ``drift/cka_first``               likewise
    ``drift/rankme``                  how many directions the embedding uses, in [1, min(N, its width)]
    ``drift/seconds``                 what the probe took, in seconds
    ================================  ================================================================================

    The last four are also known to EarlyStopping and ModelCheckpoint in the same epoch. At the first probe there is
    nothing to compare with: the result has no rows, loggers get NaN so that their columns stay the same, and a monitor
    is given 0, the least similar. With ``at_start`` that is before the first epoch, and no monitor meets it.

    Each result is written to ``{log_dir}/{name}/`` as JSON by rank 0. Checkpoints hold, beside the results, one N x N
    Gram matrix for each layer and reference, 132 kB at 256 images, whatever the layer's width.

    Args:
        layers: what :func:`select_layers` takes.
        images: a tensor, a dict or tuple of tensors, a dataset or a dataloader; None takes the validation data.
        num_images: how many images of a dataset are used; a tensor is used whole. At least 4.
        seed: chooses the images.
        image_keys: which entries of dict or tuple inputs are images.
        embedding: the layer whose RankMe is measured; default: the last chosen layer that isn't the output itself.
        to_inputs: how to get the model's inputs out of a batch: a callable, a key or an index.
        forward: a callable ``(module, inputs)``, or the name of a method or submodule to call.
        dataloader_idx: which of several validation dataloaders.
        batch_size: at most so many images in one forward pass; the numbers do not depend on it.
        every_n_epochs: how many epochs from one probe to the next.
        at_start: whether to probe before the first training step too, as epoch -1 and step 0.
        reference: what to compare with: "previous", "first" or both.
        flatten: compare whole activations, not their spatial or token mean, where N x features float64 take at most
            32 MiB; larger layers stay pooled and are named in a warning.
        figures: whether TensorBoard gets a figure of each probe.
        progress: whether to show a bar.
        name: the front of every tag, unique among the probes of a Trainer.

    Raises:
        MisconfigurationException: for arguments that can't be used, two probes of one name, no validation data.
        ValueError: at a probe, where the images differ from those of an earlier probe, of a checkpoint for instance.

    Source:
        See :func:`~kornia_lightning_probe.functional.similarity.debiased_cka` and
        :func:`~kornia_lightning_probe.functional.similarity.rankme`.

    Example:
        >>> probe = DriftProbe(num_images=64)
        >>> probe.history
        []
    """

    def __init__(
        self,
        *,
        layers: LayerSelector | Sequence[LayerSelector] = "auto",
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
        reference: str | Sequence[str] = REFERENCES,
        flatten: bool = False,
        figures: bool = True,
        progress: bool = False,
        name: str = "drift",
    ) -> None:
        super().__init__(every_n_epochs=every_n_epochs, at_start=at_start, name=name)
        for argument, number, least in (
            ("num_images", num_images, FEWEST_IMAGES),
            ("batch_size", batch_size, 1),
            ("dataloader_idx", dataloader_idx, 0),
        ):
            if number < least:
                raise MisconfigurationException(f"{argument} must be at least {least}, got {number}")
        self.layers = layers
        self.embedding = embedding
        self.forward = forward
        self.batch_size = batch_size
        self.seed = seed
        self.reference = _checked(reference)
        self.flatten = flatten
        self.figures = figures
        self.progress = progress
        self.history: list[ProbeResult] = []
        self._record = DriftRecord(self.reference)
        self._reading = ImageChoice(images, num_images, seed, image_keys, to_inputs, dataloader_idx)
        self._images: ProbeImages | None = None
        self._is_fitting = True
        self._runs: set[str] = set()

    @property
    def result(self) -> ProbeResult | None:
        """The latest result, with the metrics ``cka_previous``, ``cka_first`` and ``rankme``; None before the first."""
        return self.history[-1] if self.history else None

    @property
    def snapshot(self) -> Snapshot | None:
        """The latest Gram matrices by layer, to be compared with those of other epochs or trainings.

        None before the first probe, and where "previous" is no reference. Hold on to it after each epoch, and
        ``debiased_cka(early.gram(layer), last.gram(layer))`` says how much of the final representation was there early.
        """
        return self._record.held.get("previous")

    def plot(self, references: Sequence[str] | None = None) -> Figure:
        """Draw the history: CKA over the epochs as lines and as a heatmap, one row for each reference.

        Args:
            references: some of ``reference``; None is all of them.

        Returns:
            A matplotlib Figure that no window holds.

        Raises:
            ValueError: before the first probe, or for a reference that was not measured.
            ImportError: where matplotlib isn't installed.
        """
        from kornia_lightning_probe.reporting.figures.drift import plot_drift

        return plot_drift(self.history, references=references)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._images = None
        self._is_fitting = stage == "fit"
        if self.forward is None:
            forward_of(pl_module)

    @override
    def start_over(self) -> None:
        super().start_over()
        self.history = []
        self._record = DriftRecord(self.reference)

    @override
    def measure(self, trainer: Trainer, pl_module: LightningModule, *, epoch: int) -> None:
        started = time.perf_counter()
        world = world_of(trainer)
        with torch.inference_mode(False):
            try:
                images, subject = self._prepare(trainer, pl_module, world)
            except Exception as error:
                world.fail(error)
                raise
            features = collect_features(
                subject,
                images,
                batch_size=self.batch_size,
                seed=self.seed,
                flatten=self.flatten,
                progress=self.progress and trainer.is_global_zero,
                world=world,
            )
            numbers = self._record.compare(
                features.clean,
                metadata=features.findings.metadata(),
                epoch=epoch,
                step=0 if epoch < 0 else logging_step(trainer),
            )
        result = ProbeResult.of(numbers)
        result.metadata = replace(result.metadata, seconds=time.perf_counter() - started)
        self.history.append(result)
        for sentence in result.metadata["warnings"]:
            self.say_once(sentence)
        self._log(trainer, pl_module, result)
        self._write_file(trainer, result)
        if trainer.is_global_zero and not is_trial(trainer):
            self._draw(trainer, result)

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if is_training(trainer):
            super().on_validation_epoch_end(trainer, pl_module)

    @override
    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The test's images are not those of the training's probes, so there is nothing to compare with.
        return

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # A later run may have other data or other processes.
        self._images = None

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._images = None

    @override
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "history": states_of(self.history), "references": self._record.state()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Lightning loads callbacks for validate and test too, where the history at hand may be the longer one.
        if self._is_fitting or not self.history:
            super().load_state_dict(state_dict)
            self.history = results_of(state_dict["history"])
            self._record.load(state_dict["references"])

    def _prepare(self, trainer: Trainer, pl_module: LightningModule, world: World) -> tuple[ProbeImages, Subject]:
        images = self._images
        if images is None:
            images = self._reading.read(trainer, world)
            if images.num_images < FEWEST_IMAGES:
                raise MisconfigurationException(
                    f"the probe {self.name!r} needs at least {FEWEST_IMAGES} images, since debiased CKA divides by "
                    f"N - 3; got {images.num_images}"
                )
            self._images = images
            for note in images.notes:
                rank_zero_info(f"{self.name}: {note}")
        subject = choose_subject(
            pl_module,
            forward_in(trainer, pl_module, self.forward),
            layers=self.layers,
            embedding=self.embedding,
            device=pl_module.device,
        )
        return images, subject

    def _log(self, trainer: Trainer, module: LightningModule, result: ProbeResult) -> None:
        summaries = self._summaries(result)
        if result.epoch >= 0:
            for tag, value in summaries.items():
                # EarlyStopping ends a training at the first NaN, and there is one where nothing is compared yet.
                monitored = value if self._is_known(result, tag) else 0.0
                module.log(tag, monitored, logger=False, sync_dist=True, batch_size=1, add_dataloader_idx=False)
        for logger in trainer.loggers:
            logger.log_metrics(self._curves(result) | summaries, step=result.step)
            logger.save()

    def _is_known(self, result: ProbeResult, tag: str) -> bool:
        references = {f"{self.name}/cka_{name}": epoch for name, epoch in result.metadata["references"].items()}
        return references.get(tag, 0) is not None

    def _summaries(self, result: ProbeResult) -> dict[str, float]:
        means = {metric: result.value(metric) for metric in result.metrics}
        return {f"{self.name}/{key}": value for key, value in {**means, "seconds": result.metadata["seconds"]}.items()}

    def _curves(self, result: ProbeResult) -> dict[str, float]:
        return {
            curve_tag(self.name, metric, layer): result.value(metric, layer)
            for metric in (f"cka_{name}" for name in self.reference)
            for layer in result.table(metric).layers
        }

    def _write_file(self, trainer: Trainer, result: ProbeResult) -> None:
        # Asked for on every process: Lightning broadcasts it.
        directory = trainer.log_dir
        if directory is not None and trainer.is_global_zero and not is_trial(trainer):
            result.to_json(Path(directory) / self.name / f"epoch={result.epoch}-step={result.step}.json")

    def _draw(self, trainer: Trainer, result: ProbeResult) -> None:
        for logger in trainer.loggers:
            writer = writer_of(logger)
            if writer is None:
                continue
            run = str(writer.get_logdir())
            if run not in self._runs:
                self._runs.add(run)
                logged = Curves(self._curves(result), "")
                prefix = getattr(logger, "_prefix", "")
                add_charts(writer, chart_layout(result, logged, name=self.name, prefix=prefix))
            if self.figures and find_spec("matplotlib") is None:
                self.say_once(
                    "TensorBoard gets no figures of the probe, as matplotlib is not installed: "
                    "pip install 'kornia-lightning-probe[plots]', or pass figures=False"
                )
            elif self.figures and len(self.history) > 1:
                add_picture(writer, f"{self.name}/layers", self.plot(), step=result.step)


def _checked(reference: str | Sequence[str]) -> tuple[str, ...]:
    names = (reference,) if isinstance(reference, str) else tuple(reference)
    wrong = [name for name in names if name not in REFERENCES]
    if wrong:
        raise MisconfigurationException(unknown("reference", wrong[0], REFERENCES))
    if not names:
        raise MisconfigurationException(f"reference is empty; it names what to compare with: {', '.join(REFERENCES)}")
    return tuple(name for name in REFERENCES if name in names)
