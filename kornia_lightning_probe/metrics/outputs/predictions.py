"""Measures of a classifier's output: do the predicted class and the predicted distribution hold?"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from kornia_lightning_probe.activations.about import About
from kornia_lightning_probe.activations.site import Site
from kornia_lightning_probe.functional.probabilities import are_probabilities, jensen_shannon, log_probabilities
from kornia_lightning_probe.metrics.base import BlockMetric
from kornia_lightning_probe.quantity import Quantity


class _PredictionMetric(BlockMetric):
    """A mean over images of one number for each, at class scores (B, classes)."""

    statistics = ("value",)
    scope = "output"
    representation = "activation"
    needs_labels = False
    needs = "class scores (B, classes)"

    def applies_to(self, site: Site) -> bool:
        """Class scores, one vector for each image; with labels, where they are needed."""
        labelled = site.label_shape == () or not self.needs_labels
        return super().applies_to(site) and len(site.shape) == 1 and labelled


class FlipRate(_PredictionMetric):
    """The share of images whose predicted class changes under the view, in [0, 1].

    Example:
        >>> import torch
        >>> from kornia_lightning_probe.metrics import About
        >>> clean = torch.tensor([[2.0, 1.0], [0.0, 1.0]])
        >>> metric = FlipRate().prepare(views=["shift"], layers=["output"], num_images=2)
        >>> metric.update(clean, clean + 7, About.of(clean, clean + 7, layer="output"))
        >>> float(metric.compute().value)  # a constant added to the logits
        0.0
    """

    name = "flip_rate"
    quantity = Quantity(
        meaning="share of images whose predicted class changes",
        range=(0.0, 1.0),
        at_identity=0.0,
        scale=(0.0, 1.0),
        marks=((0.0, "0 (none)"), (0.5, "0.5"), (1.0, "1 (every image)")),
        of_output=True,
    )

    def measure_block(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:  # noqa: ARG002
        """1 where the class changes."""
        return {"value": _known(augmented, clean.argmax(-1) != augmented.argmax(-1))}


class JensenShannon(_PredictionMetric):
    """Jensen-Shannon divergence of the predicted distributions without and with the view, in nats, in [0, ln 2].

    Scores are logits, or probabilities where those of a whole clean block are: not negative, with a sum of 1.

    Example:
        >>> import torch
        >>> from kornia_lightning_probe.metrics import About
        >>> clean, moved = torch.tensor([[200.0, 0.0]]), torch.tensor([[0.0, 200.0]])
        >>> metric = JensenShannon().prepare(views=["swap"], layers=["output"], num_images=1)
        >>> metric.update(clean, moved, About.of(clean, moved, layer="output"))
        >>> round(float(metric.compute().value), 4)  # disjoint distributions: ln 2
        0.6931
    """

    name = "js_divergence"
    quantity = Quantity(
        meaning="divergence of the predicted distributions; ln 2: disjoint",
        unit="nats",
        range=(0.0, math.log(2)),
        at_identity=0.0,
        scale=(0.0, math.log(2)),
        marks=((0.0, "0 (the same)"), (0.35, "0.35"), (math.log(2), "ln 2 (disjoint)")),
        of_output=True,
    )

    def measure_block(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:
        """Each image's divergence."""
        if about.block.remember(("predictions", "probabilities"), lambda: are_probabilities(about.block.activation)):
            clean, augmented = log_probabilities(clean), log_probabilities(augmented)
        return {"value": jensen_shannon(clean, augmented)}


class Accuracy(_PredictionMetric):
    """The share of images whose predicted class under the view is their label, in [0, 1].

    An image whose label is no class (below 0, or beyond the scores) is left out.

    Example:
        >>> import torch
        >>> from kornia_lightning_probe.metrics import About
        >>> clean, moved = torch.tensor([[2.0, 1.0], [0.0, 1.0]]), torch.tensor([[1.0, 2.0], [0.0, 1.0]])
        >>> metric = Accuracy().prepare(views=["swap"], layers=["output"], num_images=2)
        >>> metric.update(clean, moved, About.of(clean, moved, layer="output", labels=torch.tensor([0, 1])))
        >>> float(metric.compute().value)
        0.5
    """

    name = "accuracy"
    quantity = Quantity(
        meaning="share of images whose class is right under the view",
        range=(0.0, 1.0),
        scale=(0.0, 1.0),
        of_output=True,
    )
    needs_labels = True
    needs = "class scores (B, classes) and labels (B,), one integer for each image"

    def measure_block(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:  # noqa: ARG002
        """1 where the prediction is right."""
        labels = _labels(about)
        return {"value": _among_classes(labels, augmented, _known(augmented, augmented.argmax(-1) == labels))}


class AccuracyDrop(_PredictionMetric):
    """Accuracy on the clean images minus accuracy under the view, in [-1, 1]; paired by image, and so is its error.

    An image whose label is no class (below 0, or beyond the scores) is left out.

    Example:
        >>> import torch
        >>> from kornia_lightning_probe.metrics import About
        >>> clean, moved = torch.tensor([[2.0, 1.0], [0.0, 1.0]]), torch.tensor([[1.0, 2.0], [0.0, 1.0]])
        >>> metric = AccuracyDrop().prepare(views=["swap"], layers=["output"], num_images=2)
        >>> metric.update(clean, moved, About.of(clean, moved, layer="output", labels=torch.tensor([0, 1])))
        >>> float(metric.compute().value)  # 1 without the view, 1/2 under it
        0.5
    """

    name = "accuracy_drop"
    quantity = Quantity(
        meaning="accuracy on the clean images minus that under the view",
        range=(-1.0, 1.0),
        at_identity=0.0,
        of_output=True,
    )
    needs_labels = True
    needs = "class scores (B, classes) and labels (B,), one integer for each image"

    def measure_block(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Tensor]:
        """1 where only the clean prediction is right, -1 where only the other one is."""
        labels = _labels(about)
        before, after = clean.argmax(-1) == labels, augmented.argmax(-1) == labels
        drop = before.to(torch.float32) - after.to(torch.float32)
        return {"value": _among_classes(labels, augmented, _known(augmented, drop))}


def _labels(about: About) -> Tensor:
    if about.labels is None:
        raise ValueError("accuracy needs labels: pass labels=, or images that come with integer labels")
    return about.labels


def _among_classes(labels: Tensor, scores: Tensor, values: Tensor) -> Tensor:
    return torch.where((labels >= 0) & (labels < scores.shape[-1]), values, torch.nan)


def _known(scores: Tensor, values: Tensor) -> Tensor:
    return torch.where(scores.isfinite().all(-1), values.to(torch.float64), torch.nan)
