"""DriftProbe: how far each layer has moved since the last and the first probe, on the same clean images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING, Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from typing_extensions import override

from kornia_lightning_probe.callbacks.arguments import require_choice, require_flag, texts_of
from kornia_lightning_probe.callbacks.base import EpochProbe
from kornia_lightning_probe.callbacks.logbook import Entry, Picture
from kornia_lightning_probe.callbacks.trainer import Occasion
from kornia_lightning_probe.engine.features import Features, collect_features
from kornia_lightning_probe.engine.memory import BatchSize
from kornia_lightning_probe.functional.similarity import FEWEST_IMAGES
from kornia_lightning_probe.images.batches import ImageKeys, ToInputs
from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.model.calling import Forward
from kornia_lightning_probe.model.layers import LayerSelector
from kornia_lightning_probe.model.subject import Subject
from kornia_lightning_probe.reporting.tensorboard import curve_tag
from kornia_lightning_probe.result import ProbeResult
from kornia_lightning_probe.results.drift import REFERENCES, DriftRecord, Snapshot
from kornia_lightning_probe.wording import listed

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
    nothing to compare with: the result has no rows, loggers get NaN so that their columns stay the same. Wherever a
    mean is NaN a monitor is given 0, the least similar. With ``at_start`` the first probe is before the first epoch,
    and no monitor meets it.

    Where the images, or what is taken of them (``flatten``), are others than those of an earlier probe, of a checkpoint
    for instance, the comparison starts anew, with one sentence; where only layers are others, at those.

    Each result is written by rank 0 where :class:`SensitivityProbe` has its own. Checkpoints hold, beside the results,
    one N x N Gram matrix for each layer and reference, 132 kB at 256 images, whatever the layer's width.

    Args:
        layers: what :func:`select_layers` takes.
        images: a tensor, a dict or tuple of tensors, a dataset or a dataloader; None takes the validation data.
        num_images: how many images of a dataset are used, None for all; a tensor is used whole. At least 4.
        seed: chooses the images.
        image_keys: which entries of dict or tuple inputs are images.
        embedding: the layer whose RankMe is measured; default: the last chosen layer in front of the head.
        to_inputs: how to get the model's inputs out of a batch: a callable, a key or an index.
        forward: a callable ``(module, inputs)``, or the name of a method or submodule to call.
        dataloader_idx: which of several validation dataloaders.
        batch_size: at most so many images in one forward pass, or "auto"; the numbers do not depend on it.
        every_n_epochs: how many epochs from one probe to the next.
        at_start: whether to probe before the first training step too, as epoch -1 and step 0.
        reference: what to compare with: "previous", "first" or both.
        flatten: compare whole activations, not their spatial or token mean, where N x features float64 take at most
            32 MiB; larger layers stay pooled and are named in a warning.
        figures: whether TensorBoard gets a figure of each probe.
        progress: whether to show a bar; None shows one where Lightning shows its own.
        on_error: "raise", or "warn" to leave out a probe that fails; see :class:`SensitivityProbe`.
        when: "validation", or "train_epoch_end", which needs ``images``.
        name: the front of every tag and a folder's name, unique among the probes of a Trainer.

    Raises:
        MisconfigurationException: for arguments that can't be used, two probes of one name, no validation data.

    Source:
        See :func:`~kornia_lightning_probe.functional.similarity.debiased_cka` and
        :func:`~kornia_lightning_probe.functional.similarity.rankme`.

    Example:
        >>> probe = DriftProbe(num_images=64)
        >>> probe.history
        []
    """

    fewest_images = FEWEST_IMAGES
    probes_evaluations = False

    def __init__(
        self,
        *,
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
        reference: str | Sequence[str] = REFERENCES,
        flatten: bool = False,
        figures: bool = True,
        progress: bool | None = None,
        on_error: str = "raise",
        when: str = "validation",
        name: str = "drift",
    ) -> None:
        super().__init__(
            name=name,
            layers=layers,
            images=images,
            num_images=num_images,
            seed=seed,
            image_keys=image_keys,
            embedding=embedding,
            to_inputs=to_inputs,
            forward=forward,
            dataloader_idx=dataloader_idx,
            batch_size=batch_size,
            every_n_epochs=every_n_epochs,
            at_start=at_start,
            figures=figures,
            progress=progress,
            on_error=on_error,
            when=when,
        )
        require_flag("flatten", flatten)
        self.reference = _checked(reference)
        self.flatten = flatten
        self._snapshots = DriftRecord(self.reference)

    @property
    def snapshot(self) -> Snapshot | None:
        """The latest Gram matrices by layer, to be compared with those of other epochs or trainings.

        None before the first probe, and where "previous" is no reference. Hold on to it after each epoch, and
        ``debiased_cka(early.gram(layer), last.gram(layer))`` says how much of the final representation was there early.
        """
        return self._snapshots.held.get("previous")

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
        from kornia_lightning_probe.reporting.figures.over_epochs.drift import plot_drift

        return plot_drift(self.history, references=references)

    @override
    def start_over(self) -> None:
        super().start_over()
        self._snapshots = DriftRecord(self.reference)

    @override
    def images_read(self, images: ProbeImages) -> None:
        if images.num_images < FEWEST_IMAGES:
            raise MisconfigurationException(
                f"the probe {self.name!r} needs at least {FEWEST_IMAGES} images, since debiased CKA divides by N - 3; "
                f"got {images.num_images}"
            )

    @override
    def measure(self, subject: Subject, images: ProbeImages, occasion: Occasion) -> ProbeResult:
        features = collect_features(
            subject,
            images,
            size=self._size,
            seed=self.seed,
            flatten=self.flatten,
            progress=occasion.progress,
            world=occasion.world,
            looks=self._looks,
        )
        try:
            self._say_new_layers(features, epoch=occasion.epoch)
            result = self._compared(features, occasion)
        except ValueError as error:
            # Of other images than before, or other features of them.
            self.say_once(f"the probe {self.name!r} starts anew in epoch {occasion.epoch}: {error}")
            self._snapshots = DriftRecord(self.reference)
            result = self._compared(features, occasion)
        self._complete_first(features, epoch=occasion.epoch)
        return result

    def _compared(self, features: Features, occasion: Occasion) -> ProbeResult:
        metadata = features.findings.metadata()
        numbers = self._snapshots.compare(features.clean, metadata=metadata, epoch=occasion.epoch, step=occasion.step)
        return ProbeResult.of(numbers)

    def _say_new_layers(self, features: Features, *, epoch: int) -> None:
        new = self._snapshots.new_layers(features.clean)
        if new:
            self.say_once(
                f"the probe {self.name!r} had other layers before and starts anew at {listed(new)}: there it compares "
                f"with epoch {epoch}"
            )

    def _complete_first(self, features: Features, *, epoch: int) -> None:
        """Let later probes compare what was dead or not there in the first one with the first in which it is alive."""
        first = self._snapshots.held.get("first")
        if first is None or first.epoch == epoch:
            return
        alive = first.take_up(Snapshot.of(features.clean, epoch=epoch))
        if alive:
            self.say_once(
                f"the probe {self.name!r} had nothing to compare {listed(alive)} with, dead in epoch {first.epoch}; "
                f"there the first probe is now that of epoch {epoch}"
            )

    @override
    def entry(self, results: Sequence[ProbeResult], images: ProbeImages, *, name: str, stage: str) -> Entry:
        result = results[-1]
        summaries = {f"{name}/{metric}": result.value(metric) for metric in result.metrics}
        summaries[f"{name}/seconds"] = result.metadata["seconds"]
        drawn = dict(summaries)
        for reference in self.reference:
            metric = f"cka_{reference}"
            for layer in result.table(metric).layers:
                drawn[curve_tag(name, metric, layer)] = result.value(metric, layer)
            if isnan(result.value(metric)):
                # EarlyStopping ends a training at the first NaN, and there is one where nothing can be compared.
                summaries[f"{name}/{metric}"] = 0.0
        pictures = [Picture(f"{name}/layers", self.plot)] if len(results) > 1 else []
        return Entry(name, result, drawn, summaries, pictures)

    @override
    def more_state(self) -> dict[str, Any]:
        return {"references": self._snapshots.state()}

    @override
    def load_more(self, state: Mapping[str, Any]) -> None:
        self._snapshots = DriftRecord(self.reference)
        self._snapshots.load(state.get("references", {}))


def _checked(reference: str | Sequence[str]) -> tuple[str, ...]:
    names = texts_of("reference", reference)
    for name in names:
        require_choice("reference", name, REFERENCES)
    if not names:
        raise MisconfigurationException(f"reference is empty; it names what to compare with: {', '.join(REFERENCES)}")
    return tuple(name for name in REFERENCES if name in names)
