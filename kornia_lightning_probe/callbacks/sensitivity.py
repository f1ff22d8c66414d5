"""SensitivityProbe: layer sensitivity from epoch to epoch, in every logger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from typing_extensions import override

from kornia_lightning_probe.bank.bank import AugmentationBank
from kornia_lightning_probe.callbacks import arguments
from kornia_lightning_probe.callbacks.base import EpochProbe
from kornia_lightning_probe.callbacks.logbook import Entry
from kornia_lightning_probe.callbacks.pictures.of_sensitivity import pictures_of, plot_of
from kornia_lightning_probe.callbacks.summaries import Origin, summarise
from kornia_lightning_probe.callbacks.trainer import Occasion
from kornia_lightning_probe.engine.memory import BatchSize
from kornia_lightning_probe.engine.under_views import KeptViews, Plan, run_probe
from kornia_lightning_probe.images.batches import ImageKeys, ToInputs
from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.metrics import MetricLike, resolve_metrics
from kornia_lightning_probe.model.calling import Forward
from kornia_lightning_probe.model.layers import LayerSelector
from kornia_lightning_probe.model.subject import Subject
from kornia_lightning_probe.reporting.tensorboard import KINDS, curves
from kornia_lightning_probe.result import ProbeResult
from kornia_lightning_probe.wording import listed, unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ANY_NUMBER = 2**31


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
                                                  first probe of the same images, layers and augmentations that has
                                                  one: near 0 is a collapse
    ``probe/flip_rate``                           share of predictions that change, mean over the views, [0, 1]
    ``probe/accuracy_drop``                       clean accuracy minus that under the view, where there are labels
    ``probe/seconds``                             what the measurement took, without figures and files
    ============================================  ====================================================================

    The last five, where they were measured, and the curves named in ``monitor`` go through Lightning's own ``log``, so
    EarlyStopping and ModelCheckpoint see them in the same epoch. TensorBoard also gets a chart for each augmentation
    (the "custom scalars" tab). Every logger that takes pictures (TensorBoard, W&B, MLflow, Comet, and any with a method
    ``log_image``) gets ``probe/layers`` and ``probe/history`` at each probe, and once ``probe/bank``. In
    ``trainer.validate`` and ``trainer.test`` every tag is as if the probe were called ``{name}_validate`` or
    ``{name}_test``.

    Rank 0 writes each result for :meth:`ProbeResult.from_json` to ``{stage}-epoch={epoch}-step={step}.json``, with a
    number behind it rather than over another file, in the folder ``{name}`` of the run: beside the ``checkpoints`` of
    ModelCheckpoint, without a logger in the Trainer's ``default_root_dir``. After ``ddp_spawn`` and ``ddp_notebook``
    these files are all that is left. Where a file, a picture or a logger fails, the probe warns and goes on.

    A new training starts a new history; a resumed one takes up that of its checkpoint, where it is bit for bit the one
    of a training that was not interrupted: in memory, too, all but the first result, the first trained one, the
    previous and the latest keep values and the errors of curves as float32, and other errors to 1.6 %. The files hold
    every digit.

    Args:
        bank: the augmentations, each with its levels, or the name of a preset.
        layers: what :func:`select_layers` takes.
        metrics: names, metric objects or functions of (clean, augmented); None is the default set.
        images: a tensor, a dict or tuple of tensors, a dataset or a dataloader; None takes the validation data.
        num_images: how many images of a dataset are used, None for all; a tensor is used whole.
        seed: chooses the images.
        image_keys: which entries of dict or tuple inputs are images.
        embedding: the layer called the embedding; default: the last chosen layer in front of the head.
        to_inputs: how to get the model's inputs out of a batch: a callable, a key or an index.
        forward: a callable ``(module, inputs)``, or the name of a method or submodule to call.
        dataloader_idx: which of several validation dataloaders.
        batch_size: at most so many images in one forward pass; "auto" is 32 on a CPU, on a CUDA device as many views of
            32 images, up to 8, as fit into half of the memory that is free, and half as many where it runs out later.
            The numbers do not depend on it.
        keep_views: at most so many bytes of augmented images are kept on the host for the next probes, those that are
            dearest to draw; 0 draws all anew. The numbers do not depend on it.
        every_n_epochs: how many epochs from one probe to the next.
        at_start: whether to measure before the first training step too, as epoch -1 and step 0; not after a resume,
            and not where Lightning has no validation dataloader by then and there is no ``images``.
        log_curves: "layers" (sensitivity), "all" (every metric) or "summary" (none).
        monitor: tags of curves that EarlyStopping or ModelCheckpoint watch.
        figures: whether loggers that take pictures get them, and the probe's folder ``history.png``.
        progress: whether to show a bar; None shows one where Lightning shows its own.
        on_error: "raise", or "warn" to leave out a probe that fails, on every process; under sharded strategies, where
            every forward pass is collective, it always raises.
        when: "validation", or "train_epoch_end" for trainings without a validation loop, which needs ``images``.
        name: the front of every tag and a folder's name, unique among the probes of a Trainer: letters, digits, "_",
            "-", "." and spaces inside.

    Attributes:
        history: the results of the training, oldest first.
        validations: those of ``trainer.validate``.
        tests: those of ``trainer.test``.
        result: the latest of them all; None before the first.

    Raises:
        MisconfigurationException: for arguments that can't be used, two probes of one name, no validation data.

    Example:
        >>> import kornia.augmentation as K
        >>> bank = AugmentationBank({"rotation": {15: K.RandomRotation((15.0, 15.0), p=1.0)}})
        >>> probe = SensitivityProbe(bank, num_images=64)
        >>> probe.history, probe.result
        ([], None)
    """

    def __init__(
        self,
        bank: AugmentationBank | str = "default",
        *,
        layers: LayerSelector | Sequence[LayerSelector] = "auto",
        metrics: Sequence[MetricLike] | MetricLike | None = None,
        images: Any = None,
        num_images: int | None = 256,
        seed: int = 0,
        image_keys: ImageKeys | None = None,
        embedding: str | None = None,
        to_inputs: ToInputs | None = None,
        forward: Forward | None = None,
        dataloader_idx: int = 0,
        batch_size: BatchSize = 32,
        keep_views: int = 256 * 2**20,
        every_n_epochs: int = 1,
        at_start: bool = True,
        log_curves: str = "layers",
        monitor: Sequence[str] = (),
        figures: bool = True,
        progress: bool | None = None,
        on_error: str = "raise",
        when: str = "validation",
        name: str = "probe",
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
        arguments.require_choice("log_curves", log_curves, KINDS)
        arguments.require_integer("keep_views", keep_views, least=0)
        self.bank = _bank_of(bank)
        self._choice = replace(self._choice, layout=self.bank.layout.name)
        self.metrics = resolve_metrics(metrics)
        self.keep_views = keep_views
        self.log_curves = log_curves
        self.monitor = arguments.texts_of("monitor", monitor)
        self._default_set = metrics is None
        self._fitted_bank = self.bank
        self._kept = KeptViews()
        self._origins: dict[str, Origin] = {}
        self._evaluated_origin: Origin | None = None

    def plot(self, kind: str = "history", *, metric: str | None = None, layers: Sequence[str] | None = None) -> Figure:
        """Draw the training, or its latest result.

        Args:
            kind: "history" (value over the epochs, a panel for each augmentation, beside a heatmap of all layers), or
                what `ProbeResult.plot` draws of the latest result.
            metric: the metric's name; None is sensitivity, or the first metric where that was not measured.
            layers: the layers that have a line; None picks at most ten, evenly by depth.

        Returns:
            A matplotlib Figure that no window holds.

        Raises:
            ValueError: before the first probe, or where the kind or a name is unknown.
            ImportError: where matplotlib isn't installed.
        """
        return plot_of(self.history, self.result, kind, metric=metric, layers=layers)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._evaluated_origin = None
        self._require_tags_apart()

    @override
    def start_over(self) -> None:
        super().start_over()
        self._origins = {}

    @override
    def watched_tags(self) -> Sequence[str]:
        return self.monitor

    @override
    def images_read(self, images: ProbeImages) -> None:
        self._fitted_bank = self.bank.fit_channels(self.bank.layout.channels(images.scout.images[0]))
        self.num_views = len(self._fitted_bank)
        self.num_twins = self.num_views if any(metric.reads_twins for metric in self.metrics) else 0
        self._kept = KeptViews(self.keep_views)

    @override
    def what_is_held(self) -> str:
        if not self._kept.nbytes:
            return ""
        return f"{self._kept.nbytes / 2**20:.1f} MiB of views kept"

    @override
    def images_gone(self) -> None:
        self._kept = KeptViews()

    @override
    def measure(self, subject: Subject, images: ProbeImages, occasion: Occasion) -> ProbeResult:
        plan = Plan(
            images=images,
            bank=self._fitted_bank,
            metrics=self.metrics,
            default_set=self._default_set,
            size=self._size,
            seed=self.seed,
            progress=occasion.progress,
            world=occasion.world,
            looks=self._looks,
            kept=self._kept,
        )
        return ProbeResult.of(run_probe(subject, plan, epoch=occasion.epoch, step=occasion.step))

    @override
    def entry(self, results: Sequence[ProbeResult], images: ProbeImages, *, name: str, stage: str) -> Entry:
        result = results[-1]
        logged = curves(result, name=name, log_curves=self.log_curves)
        if logged.left_out:
            self.say_once(logged.left_out)
        summaries = summarise(result, self._origin_of(result, name=name, stage=stage))
        watched = {f"{name}/{key}": value for key, value in summaries.items()}
        pictures = pictures_of(results, self._fitted_bank, images, name=name, stage=stage)
        return Entry(name, result, logged.values, watched | self._monitored(result, name=name), pictures)

    @override
    def more_state(self) -> dict[str, Any]:
        if "fit" not in self._origins:
            return {}
        return {"origin": self._origins["fit"].state()}

    @override
    def load_more(self, state: Mapping[str, Any]) -> None:
        self._origins = {}
        if "origin" in state:
            self._origins["fit"] = Origin.from_state(state["origin"])
        elif self.history:
            # A checkpoint of an earlier version: there everything was relative to the first result.
            self._origins["fit"] = Origin.of(self.history[0])

    @override
    def load_for_evaluation(self, state: Mapping[str, Any]) -> None:
        if "origin" in state:
            self._evaluated_origin = Origin.from_state(state["origin"])

    def _origin_of(self, result: ProbeResult, *, name: str, stage: str) -> Origin:
        """What a result is relative to: the first one like it that has a spread."""
        now = Origin.of(result)
        held = self._origins.get(stage)
        trained = self._evaluated_origin or self._origins.get("fit")
        is_new = held is None or self._evaluated_origin is not None
        if is_new and trained is not None and not trained.differences(now):
            # The same images in validate as in the training before.
            held = trained
        differing = [] if held is None else held.differences(now)
        if held is not None and differing:
            self.say_once(
                f"{name}/spread was relative to epoch {held.epoch}, with other {listed(differing)}, which can't be "
                f"compared: from epoch {result.epoch} on it is relative to that epoch"
            )
        if held is None or differing or not held.has_spread:
            held = now
        self._origins[stage] = held
        return held

    def _monitored(self, result: ProbeResult, *, name: str) -> dict[str, float]:
        if not self.monitor:
            return {}
        known = curves(result, name=self.name, log_curves="all", most_tags=_ANY_NUMBER).values
        for tag in self.monitor:
            if tag not in known:
                raise MisconfigurationException(f"monitor: {unknown('curve', tag, list(known))}")
        return {f"{name}{tag.removeprefix(self.name)}": known[tag] for tag in self.monitor}

    def _require_tags_apart(self) -> None:
        """Refuse an augmentation whose curves would have the tags of another metric."""
        metrics = {metric.name for metric in (*self.metrics, *resolve_metrics())}
        for view in self.bank:
            for metric in self.metrics:
                if f"{metric.name}_{view.augmentation}" in metrics:
                    raise MisconfigurationException(
                        f"the curves of {metric.name!r} under the augmentation {view.augmentation!r} would have the "
                        f"tags of the metric '{metric.name}_{view.augmentation}'; give the augmentation another name"
                    )


def _bank_of(bank: AugmentationBank | str) -> AugmentationBank:
    if isinstance(bank, str):
        return AugmentationBank.preset(bank)
    if not isinstance(bank, AugmentationBank):
        raise MisconfigurationException(
            f"bank must be an AugmentationBank or the name of a preset, got a {type(bank).__name__}; write "
            "AugmentationBank({'flip': K.RandomHorizontalFlip(p=1.0)}), where the name is what results will call it"
        )
    return bank
