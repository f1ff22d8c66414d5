"""What a probe notes beside its numbers: what was left out and why, and what should be said aloud."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torch import Tensor

from kornia_lightning_probe.model.recorder import belongs
from kornia_lightning_probe.results.metadata import ProbeMetadata
from kornia_lightning_probe.wording import listed, quoted

_PACKAGES = ("kornia-lightning-probe", "torch", "kornia", "lightning", "torchmetrics")


@dataclass
class Findings:
    """Notes of one probe.

    Attributes:
        left_out: the name of a layer, metric or view, and the reason why it is not in the result.
        warnings: sentences that a caller should say aloud, once each.
        kinds: of each warning, what makes it the same as one of an earlier probe, with other measured values; empty
            where its author has not said.
        facts: what else goes into the result's metadata.
        clean_bytes: what the clean activations of the first block have taken so far.
    """

    left_out: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    clean_bytes: int = 0

    def leave_out(self, name: str, reason: str) -> None:
        """Note that a layer, a metric or a view is not in the result."""
        self.left_out.setdefault(name, reason)

    def warn(self, sentence: str, *, kind: str = "") -> None:
        """Note a sentence to be said aloud.

        Args:
            sentence: with measured values or without.
            kind: sentences of one kind, in one training, are said once; empty where its words without numbers tell.
        """
        if sentence not in self.warnings:
            self.warnings.append(sentence)
            self.kinds.append(kind)

    def passed_over(self, reasons: Mapping[str, str]) -> None:
        """Note layers that "auto" could not take, by name, and say it aloud."""
        for name, reason in reasons.items():
            self.leave_out(name, reason)
        if reasons:
            self.warn(
                f"'auto' passes over layers in which nobody knows where the images are: {listed(reasons)}; "
                "metadata['left_out'] says why"
            )

    def metric_left_out(self, name: str, reason: str, *, of_output: bool) -> None:
        """Note that a metric which was asked for is not in the result.

        Args:
            name: the metric.
            reason: why.
            of_output: whether it is one of class scores, so that it matters why there are none.
        """
        self.leave_out(name, reason)
        why = self.left_out.get("output") if of_output else None
        more = f"; the output is left out, as {why}" if why else ""
        self.warn(f"the metric {name!r} is not in the result: {reason}{more}")

    def remarks(self, metric: str, sentences: Sequence[str], *, is_news: bool) -> None:
        """Say what a metric remarks on its values.

        Args:
            metric: its name.
            sentences: the remarks.
            is_news: whether somebody asked for the metric, or it has values; else they are why it has none.
        """
        for sentence in sentences:
            if is_news:
                self.warn(sentence, kind=f"{metric} stands out")
            else:
                self.facts.setdefault("metrics_left_out", {})[metric] = sentence

    def labels_unused(self, why: str) -> None:
        """Note that labels= is of no use for measures of the output."""
        self.warn(f"labels= is not used for measures of the output: {why}")

    def layers_fired(self, fired: Sequence[str], *, chosen: Iterable[str], exact: frozenset[str]) -> None:
        """Note chosen layers that never fired.

        Args:
            fired: names of activations, a layer's own or with ``.call2`` or ``[key]`` behind.
            chosen: the chosen layers.
            exact: those that were named exactly.

        Raises:
            ValueError: where an exactly named layer gave no activation, or no layer did.
        """
        layers = set(chosen)
        # A child may itself be called "call2", and is then no second call of another.
        own = layers.intersection(fired)
        others = [entry for entry in fired if entry not in layers]
        silent = [name for name in chosen if name not in own and not any(belongs(entry, name) for entry in others)]
        reasons = {name: self._why_silent(name) for name in silent}
        for name, why in reasons.items():
            self.leave_out(name, why)
        wanted = [f"{name!r} ({why})" for name, why in reasons.items() if name in exact]
        if wanted:
            raise ValueError(
                f"no activation came from {', '.join(wanted)}: a layer that is named exactly must give one in the "
                "forward that is probed; choose another layer, or call the model in another way with forward="
            )
        if not fired:
            raise ValueError(
                "no activation came from any chosen layer: "
                + listed([f"{name!r} ({why})" for name, why in reasons.items()])
                + "; choose other layers, or call the model in another way with forward="
            )
        if silent:
            self.warn(f"left out layers that gave no activation: {listed(silent)}; metadata['left_out'] says why")

    def _why_silent(self, layer: str) -> str:
        for entry, why in self.left_out.items():
            if belongs(entry, layer):
                return why
        return "it did not run in the model's forward"

    def noise(self, floors: Mapping[str, float]) -> None:
        """Note how far two equal passes lie apart.

        Args:
            floors: as a sensitivity, by layer; empty for a forward that repeats itself.
        """
        layer = max(floors, key=lambda name: floors[name], default="")
        floor = floors.get(layer, 0.0)
        self.facts["noise_floor"] = floor
        if floor > 0:
            self.warn(
                f"the model's forward does not repeat itself: two equal passes differ by a sensitivity of {floor:.2g} "
                f"at layer {layer!r}; no value below that means anything (dropout or noise outside of eval mode?)",
                kind="noise",
            )

    def touching(self, layers: Sequence[str]) -> None:
        """Note the layers at which images of a batch touch each other."""
        self.facts["batch_dependent_layers"] = list(layers)
        self.warn(
            f"what an image gives depends on the others in its batch at {listed(layers)} (BatchNorm without running "
            "statistics, or held in train mode?): each block is passed whole, one view at a time, whatever batch_size",
            kind=f"batch dependence at {listed(layers)}",
        )

    def without_grid(self, what: str, reasons: Mapping[str, str], *, aloud: bool) -> None:
        """Note the layers at which it is not known where cells lie in the image.

        Args:
            what: what they are left out of.
            reasons: by layer the operator that lost them, or what else it was.
            aloud: whether what they are left out of was asked for.
        """
        for name, why in reasons.items():
            self.leave_out(f"{what} at {name}", f"it is not known where its cells lie in the image: {why}")
        if reasons and aloud:
            told = [f"{name!r} ({why})" for name, why in reasons.items()]
            self.warn(
                f"left out of {what}, as it is not known where their cells lie in the image: {listed(told)}",
                kind=f"without a grid for {what}: {listed(reasons)}",
            )

    def spoilt(self, reasons: Mapping[str, str]) -> None:
        """Note layers whose activations came in several sizes."""
        for name, why in reasons.items():
            self.leave_out(name, why)
        if reasons:
            self.warn(f"left out layers whose activations have several sizes: {quoted(reasons)}")

    def missing(self, shares: Mapping[str, float]) -> None:
        """Note the layers that did not run in some blocks or views.

        Args:
            shares: of each layer's cells, how many are missing, in (0, 1].
        """
        if shares:
            self.facts["missing_cells"] = dict(shares)
            named = [f"{name} ({share:.0%})" for name, share in shares.items()]
            self.warn(
                f"layers that did not run for some images or views: {listed(named)} of their cells are missing; values "
                "are means over the images that have one, and num_images says how many",
                kind=f"missing cells at {listed(shares)}",
            )

    def unchanged(self, labels: Sequence[str]) -> None:
        """Note the views that changed no pixel."""
        if labels:
            self.facts["unchanged_views"] = list(labels)
            self.warn(
                f"these views changed no pixel of any image: {listed(labels)}; check p=, misspelt keywords (Kornia "
                "takes them without a word) and operators that do nothing on such images"
            )

    def dead(self, names: Sequence[str]) -> None:
        """Note the layers whose clean activations are the same for all images."""
        if names:
            self.facts["dead_layers"] = list(names)
            self.warn(
                f"these layers give every clean image the same activation, so nothing can be compared there (NaN): "
                f"{listed(names)}; means over layers leave them out"
            )

    def nothing_but_rounding(self, names: Sequence[str]) -> None:
        """Note the layers whose means over cells are the same for all images, up to the rounding of the cells."""
        if names:
            self.warn(
                f"the mean over all cells is the same for every image, up to rounding, at {listed(names)} (a "
                "normalisation over space?): what is pooled has no value there (NaN); sensitivity_flat has one"
            )

    def non_finite(self, cells: Tensor, names: Sequence[str], image_ids: Sequence[int]) -> None:
        """Note the activations that were not finite.

        Args:
            cells: (view, layer, image) bool.
            names: the layers.
            image_ids: the images' numbers in their source.
        """
        if not cells.any():
            return
        by_layer: dict[str, list[int]] = {}
        for name, images in zip(names, cells.any(0), strict=True):
            rows = images.nonzero().flatten().tolist()
            if rows:
                by_layer[name] = [image_ids[row] for row in rows]
        every = sorted(set().union(*by_layer.values()))
        self.facts["non_finite"] = by_layer
        self.facts["non_finite_cells"] = int(cells.sum())
        self.warn(
            f"activations that are not finite were left out at {listed(by_layer)} (images {listed(every)} of the "
            "source); metadata['non_finite'] names all",
            kind=f"not finite at {listed(by_layer)}",
        )

    def metadata(self) -> ProbeMetadata:
        """All that was noted."""
        kinds = self.kinds if any(self.kinds) else None
        return ProbeMetadata(
            left_out=self.left_out,
            warnings=self.warnings,
            warning_kinds=kinds,
            versions=dict(_versions()),
            **self.facts,
        )


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
