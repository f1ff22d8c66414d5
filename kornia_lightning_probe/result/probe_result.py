"""The door of a result: the numbers of one probe, with their words, pictures and files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from kornia_lightning_probe.reporting.notebook import result_html
from kornia_lightning_probe.reporting.text.summary import summary_text
from kornia_lightning_probe.reporting.text.verdict import verdict_text
from kornia_lightning_probe.result.comparison import Comparison, data_frame
from kornia_lightning_probe.results.comparing.comparison import compare_numbers
from kornia_lightning_probe.results.gain import GainRow, gain_rows
from kornia_lightning_probe.results.image_files import with_images, write_images
from kornia_lightning_probe.results.image_scores import ImageRow, LabelRow, label_rows, worst_rows
from kornia_lightning_probe.results.lookup import SENSITIVITY, ProbeNumbers
from kornia_lightning_probe.results.plain import json_text
from kornia_lightning_probe.results.severity import THRESHOLD, SeverityRow, severity_columns, severity_rows
from kornia_lightning_probe.results.storage import numbers_of, numbers_of_json, state_of, write_whole
from kornia_lightning_probe.results.tables import ProbeRow
from kornia_lightning_probe.wording import listed, unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


class ProbeResult(ProbeNumbers):
    """The numbers of one probe: a value and a standard error for each metric, layer and view.

    Args:
        layers: The chosen layers in order of execution, without the input pixels.
        views: The bank's views in their order.
        tables: A metric's name to its table; the tables may also hold the layers `input` (the pixels), `output`,
            and parts of a layer such as `stem:cls`.
        epoch: The epoch of the probe; -1 is before the first training step.
        step: The training step of the probe.
        metadata: What else is to be kept: plain numbers, strings, lists and dicts; anything else is written down
            as text. `summary()` reads `num_images`, `device`, `notes` (sentences) and `left_out` (a name to a reason).

    Raises:
        ValueError: If a table has another number of views, or a layer that isn't known.

    Example:
        >>> import torch
        >>> from kornia_lightning_probe.result import MetricTable, ViewInfo
        >>> table = MetricTable(("input", "conv"), torch.tensor([[0.5, 0.25]]), torch.zeros(1, 2), torch.ones(1, 2))
        >>> result = ProbeResult(layers=("conv",), views=(ViewInfo("blur", 1, 2.0),), tables={"sensitivity": table})
        >>> result.value("sensitivity", layer="conv")
        0.25
        >>> result.rows[0].layer
        'input'
    """

    @classmethod
    def of(cls, numbers: ProbeNumbers) -> ProbeResult:
        """The result that shows these numbers."""
        result = cls(
            layers=numbers.layers,
            views=numbers.views,
            tables=numbers.tables,
            epoch=numbers.epoch,
            step=numbers.step,
            metadata=numbers.metadata,
            images=numbers.images_held,
        )
        result.images_elsewhere = numbers.images_elsewhere
        return result

    def severity(
        self, metric: str = SENSITIVITY, *, threshold: float = THRESHOLD, at_identity: float | None = None
    ) -> tuple[SeverityRow, ...]:
        """Each severity curve in a few numbers: the area under it over its range, its onset, its worst level.

        The presets' curves start at severity 0, where the augmentation does nothing; a ladder of your own is taken as
        it is. Areas are not to be averaged over augmentations: their ranges are arbitrary.

        Args:
            metric: The metric's name.
            threshold: The onset is the first severity at which the metric's distance from its value at the identity
                (for a sensitivity, the sensitivity) passes this, with straight lines between the levels.
            at_identity: What the metric reads for an augmentation that does nothing; None takes what the metric says
                of itself.

        Returns:
            One row for each augmentation and layer.

        Raises:
            ValueError: If the metric is unknown, or the threshold isn't a positive number.
        """
        return severity_rows(self, metric, threshold=threshold, at_identity=at_identity)

    def compare(self, other: ProbeNumbers, *, z_limit: float = 2.0) -> Comparison:
        """What has changed from this result to another: `other` minus this, with its error.

        Where both hold the same images, in any order of one source's, and what each image adds to the values (as
        results of `probe_model` and a training's latest do), they are paired, which makes the errors much smaller. Of
        a training's older results and of those from files, sensitivity is, by the `.images.npz` beside each JSON file;
        `notes` says what is not paired and why. Only what both results have is compared; the comparison says what is
        left out.

        Args:
            other: The later result, or that of the other model.
            z_limit: A change is beyond sampling error where it is larger than this many standard errors.

        Returns:
            The changes as rows, a text table, a figure and a dataframe. Positive: `other` is larger.

        Raises:
            TypeError: If `other` is no ProbeResult.
            ValueError: If the results have no metric, view or layer in common, or `z_limit` isn't positive.
        """
        return Comparison(**vars(compare_numbers(self, other, z_limit=z_limit)))

    def gain(self, augmentation: str | None = None, *, metric: str = "sensitivity_flat") -> tuple[GainRow, ...]:
        """What each layer makes of the movement that reaches it: its value over that of the layer before it.

        Above 1 a layer moves further than what it is given, relative to how far images lie apart. A healthy net has a
        largest gain, too: name a layer only where it differs between two results. All layers are taken at one level,
        the smallest at which each of them stands above the noise floor, since large movements saturate. The logarithms
        add up to that of the embedding's value over the first one.

        Args:
            augmentation: This one; None takes the mean of the logarithms over all of them.
            metric: A measure that is 0 where nothing moves. Under a pooled one the first layer comes first, since
                pixels have none.

        Returns:
            One row for each layer that has a value, but for the first: layer, before, gain, std_error. NaN where no
            level will do.

        Raises:
            ValueError: If a name is unknown, or the metric isn't 0 at the identity.
        """
        return gain_rows(self, augmentation, metric=metric)

    def worst_images(
        self, layer: str | None = None, augmentation: str | None = None, level: int | None = None, *, n: int = 6
    ) -> tuple[ImageRow, ...]:
        """The images that moved furthest, furthest first.

        Args:
            layer: The layer; None is the embedding.
            augmentation: This one only; None is the mean over all views.
            level: A level, from 1; None is the mean over all levels.
            n: How many images, fewer where there are no more.

        Returns:
            Image (its number in the dataset), score, label, augmentation and level of each. The score is
            sqrt(mean over the views of d_i / (2 mean e)): 1 is as far as swapping the image for another one.

        Raises:
            ValueError: If a name or level is unknown, n is no positive number, or each image's part isn't kept: it is
                in a training's first and latest result, and in files beside the JSON, where the others read it.
        """
        return worst_rows(self, layer, augmentation, level, n=n)

    def by_label(self, metric: str = SENSITIVITY, layer: str | None = None) -> tuple[LabelRow, ...]:
        """The sensitivity of the images of each label, the most affected label first.

        Distances between images are those of all labels together, so that labels can be compared.

        Args:
            metric: Only "sensitivity".
            layer: The layer; None is the embedding.

        Returns:
            Label, value, std_error and num_images of each.

        Raises:
            ValueError: For another metric, an unknown layer, without labels, or where each image's part isn't kept.
        """
        return label_rows(self, metric, layer)

    def without_influence(self) -> ProbeResult:
        """This result without each image's own part in the values, which is most of its memory; errors stay."""
        lighter = ProbeResult.of(self)
        lighter.images = None
        lighter.tables = {name: replace(table, influence=None) for name, table in self.tables.items()}
        return lighter

    def __str__(self) -> str:
        """The verdict, and where to read on."""
        return "\n".join(filter(None, [repr(self), self.verdict(), "read on in .summary(), .plot() and .rows"]))

    def _repr_html_(self) -> str:
        return result_html(self, repr(self))

    def verdict(self, *, before: ProbeNumbers | None = None, first: ProbeNumbers | None = None) -> str:
        """What the result says, in at most five sentences, each from numbers with their errors.

        What moves the embedding most, what has changed, what gained most, what the outputs do, what to distrust. A
        change is decided where it is larger than three standard errors and than .02. One name is given where it leads
        the next by three errors of their difference, else the few that lead together.

        Args:
            before: The probe before training, such as `history[0]` of a `SensitivityProbe`; without it and `first`
                nothing is said of changes.
            first: The first trained probe, such as `history[1]`.

        Returns:
            A sentence a line; an empty text where sensitivity was not measured.
        """
        return verdict_text(self, before=before, first=first)

    def summary(self, *, max_layers: int | None = 40, full: bool = False) -> str:
        """The verdict and a text table for a terminal of 100 columns: layers by depth, a column an augmentation.

        Args:
            max_layers: The most layers to show, picked evenly by depth; the table says how many it leaves out. None
                shows all.
            full: Whether severity curves, equivariance and a line for each other metric follow.
        """
        return summary_text(self, max_layers=max_layers, full=full)

    def to_pandas(self) -> DataFrame:
        """The rows as a pandas DataFrame, one column for each field of `ProbeRow`.

        Raises:
            ImportError: If pandas isn't installed.
        """
        return data_frame(self.rows, ProbeRow._fields)

    def plot(
        self,
        kind: str = "profile",
        *,
        metric: str | None = None,
        augmentation: str | None = None,
        layers: Sequence[str] | None = None,
    ) -> Figure:
        """Draw the result.

        Args:
            kind: "profile" (value over depth), "heatmap" (layers x views), "severity" (value over severity) or "worst"
                (the six images that the view that moves the embedding most moves furthest, clean and augmented).
            metric: The metric's name; None is sensitivity, or the first metric where that was not measured.
            augmentation: For the profile: this augmentation only; None is the mean over the views.
            layers: For the severity curves: these layers; None picks at most ten, evenly by depth.

        Returns:
            A matplotlib Figure that no window holds: `figure.savefig(path)` writes it.

        Raises:
            ValueError: If the kind or a name is unknown, an argument is none of this kind's, or the pictures of the
                worst images aren't kept.
            ImportError: If matplotlib isn't installed.
        """
        from kornia_lightning_probe.reporting.figures.heatmap import plot_heatmap
        from kornia_lightning_probe.reporting.figures.profile import plot_profile
        from kornia_lightning_probe.reporting.figures.severity import plot_severity
        from kornia_lightning_probe.reporting.figures.worst import plot_worst

        given = {"metric": metric, "augmentation": augmentation, "layers": layers}
        _require_of_kind(kind, [name for name, value in given.items() if value is not None])
        if kind == "profile":
            return plot_profile([self], metric=metric, augmentation=augmentation)
        if kind == "heatmap":
            return plot_heatmap(self, metric=metric)
        if kind == "severity":
            return plot_severity(self, metric=metric, layers=layers)
        return plot_worst(self)

    def state(self) -> dict[str, Any]:
        """The whole result as tensors, numbers, strings, lists and dicts, which a checkpoint loads as weights only."""
        return state_of(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> ProbeResult:
        """The result that `state()` has written, of this version or an earlier one.

        Raises:
            ValueError: If the state is malformed, with the place in it, or of a later format.
        """
        return cls.of(numbers_of(state))

    @overload
    def to_json(self) -> str: ...

    @overload
    def to_json(self, path: str | os.PathLike[str]) -> None: ...

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str | None:
        """Write the whole result to a JSON file, at once or not at all; without a path, give the JSON text.

        NaN becomes null, an infinity "inf" or "-inf"; every other number comes back bit for bit. The severity summaries
        are written for other readers; what each image adds to the values isn't. Each image's own movement, which
        `worst_images` and `by_label` read, is in a file beside it, `{name}.images.npz`. Missing folders are made; a
        reader never sees half a file.

        Args:
            path: Where to write; None writes nothing.

        Returns:
            The JSON text without a path, None with one.
        """
        text = json_text({**self.state(), "severity": severity_columns(self)})
        if path is None:
            return text
        write_whole(Path(path), text)
        write_images(self, Path(path))
        return None

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> ProbeResult:
        """The result in a JSON file that `to_json` has written; the JSON text itself is taken too.

        Raises:
            ValueError: If the text is malformed, with the file and the place in it, or of a later format.
        """
        numbers = numbers_of_json(path)
        is_text = isinstance(path, str) and path.lstrip().startswith("{")
        return cls.of(numbers if is_text else with_images(numbers, Path(path)))


# What each kind of plot takes.
_KINDS = {"profile": ("metric", "augmentation"), "heatmap": ("metric",), "severity": ("metric", "layers"), "worst": ()}


def _require_of_kind(kind: str, given: Sequence[str]) -> None:
    if kind not in _KINDS:
        raise ValueError(unknown("kind of plot", kind, tuple(_KINDS)))
    for name in given:
        if name not in _KINDS[kind]:
            takes = listed(f"{each}=" for each in _KINDS[kind]) or "no other argument"
            raise ValueError(f"plot({kind!r}) takes {takes}, got {name}=")
