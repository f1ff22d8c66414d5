"""Measures of how a representation moves: torchmetrics classes on tables of per-image scalars."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import cast

from torch import Tensor

from kornia_lightning_probe.functional import mean_with_error
from kornia_lightning_probe.metrics.about import About, Site
from kornia_lightning_probe.metrics.base import ProbeMetric, sum_over_ranks
from kornia_lightning_probe.metrics.channels import ChannelDominance, MedianSensitivity
from kornia_lightning_probe.metrics.clean import Centre, CleanBlock, MeanOfBlocks, Scratch, Temporaries, mask_non_finite
from kornia_lightning_probe.metrics.cosine import CentredCosine
from kornia_lightning_probe.metrics.equivariance import (
    EquivarianceError,
    GeometricMetric,
    InterpolationFloor,
    InvarianceError,
)
from kornia_lightning_probe.metrics.function import FunctionMetric
from kornia_lightning_probe.metrics.ledger import Ledger
from kornia_lightning_probe.metrics.movement import Movements
from kornia_lightning_probe.metrics.pooled import PooledSensitivity, SharedShift, Spread, SpreadRatio
from kornia_lightning_probe.metrics.predictions import Accuracy, AccuracyDrop, FlipRate, JensenShannon
from kornia_lightning_probe.metrics.readouts import Readout, readouts_of, split_by_views
from kornia_lightning_probe.metrics.relative_change import RelativeChange
from kornia_lightning_probe.metrics.retrieval import RetrievalAUC
from kornia_lightning_probe.metrics.segmentation import PixelFlipRate
from kornia_lightning_probe.metrics.sensitivity import LayerSensitivity

__all__ = [
    "About",
    "Accuracy",
    "AccuracyDrop",
    "Centre",
    "CentredCosine",
    "ChannelDominance",
    "CleanBlock",
    "EquivarianceError",
    "FlipRate",
    "FunctionMetric",
    "GeometricMetric",
    "InterpolationFloor",
    "InvarianceError",
    "JensenShannon",
    "LayerSensitivity",
    "Ledger",
    "MeanOfBlocks",
    "MedianSensitivity",
    "MetricLike",
    "Movements",
    "PixelFlipRate",
    "PooledSensitivity",
    "ProbeMetric",
    "Readout",
    "RelativeChange",
    "RetrievalAUC",
    "Scratch",
    "SharedShift",
    "Site",
    "Spread",
    "SpreadRatio",
    "Temporaries",
    "mask_non_finite",
    "mean_with_error",
    "readouts_of",
    "resolve_metrics",
    "split_by_views",
    "sum_over_ranks",
]

MetricLike = str | ProbeMetric | Callable[[Tensor, Tensor], Tensor]

_DEFAULT: tuple[type[ProbeMetric], ...] = (
    LayerSensitivity,
    PooledSensitivity,
    CentredCosine,
    EquivarianceError,
    InvarianceError,
    InterpolationFloor,
    Spread,
    SpreadRatio,
    SharedShift,
    ChannelDominance,
    MedianSensitivity,
    RetrievalAUC,
    FlipRate,
    JensenShannon,
    Accuracy,
    AccuracyDrop,
    PixelFlipRate,
)
_ALL: tuple[type[ProbeMetric], ...] = (*_DEFAULT, RelativeChange)
_BY_NAME: dict[str, type[ProbeMetric]] = {kind.name: kind for kind in _ALL}


def resolve_metrics(metrics: Sequence[MetricLike] | MetricLike | None = None) -> tuple[ProbeMetric, ...]:
    """Metric objects from names, metrics and plain functions.

    Args:
        metrics: names such as "sensitivity", :class:`ProbeMetric` objects, functions of (clean,
            augmented), or a sequence of these; None is the default set.

    Raises:
        ValueError: for an unknown name (near names are shown), no metric, or two metrics of one name.
        TypeError: for anything else.

    Example:
        >>> [metric.name for metric in resolve_metrics(["sensitivity", RelativeChange()])]
        ['sensitivity', 'relative_change']
    """
    if metrics is None:
        chosen: Sequence[MetricLike | type[ProbeMetric]] = _DEFAULT
    else:
        single = isinstance(metrics, str | ProbeMetric) or callable(metrics) or not isinstance(metrics, Iterable)
        chosen = cast("list[MetricLike]", [metrics] if single else list(cast("Iterable[MetricLike]", metrics)))
    resolved = tuple(_resolve(metric) for metric in chosen)
    names = [metric.name for metric in resolved]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"metrics must be one or more, each name once, got {names}")
    return resolved


def _resolve(metric: MetricLike | type[ProbeMetric]) -> ProbeMetric:
    if isinstance(metric, ProbeMetric):
        return metric
    if isinstance(metric, str):
        if metric not in _BY_NAME:
            near = get_close_matches(metric, _BY_NAME, n=3, cutoff=0.4) or list(_BY_NAME)
            raise ValueError(f"no metric is named {metric!r}; near names: {', '.join(near)}")
        return _BY_NAME[metric]()
    if isinstance(metric, type) and issubclass(metric, ProbeMetric):
        return metric()
    if callable(metric):
        return FunctionMetric(cast("Callable[[Tensor, Tensor], Tensor]", metric))
    raise TypeError(f"a metric is a name, a ProbeMetric or a function of (clean, augmented), got {metric!r}")
