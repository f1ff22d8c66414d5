"""Every measure of the package by its name, and metric objects from what a user gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import cast

from torch import Tensor

from kornia_lightning_probe.metrics.base import ProbeMetric
from kornia_lightning_probe.metrics.embedding.head_share import HeadShare
from kornia_lightning_probe.metrics.embedding.retrieval import RetrievalAUC
from kornia_lightning_probe.metrics.function import FunctionMetric
from kornia_lightning_probe.metrics.layers.channels import ChannelDominance, ChannelMedian
from kornia_lightning_probe.metrics.layers.cosine import CentredCosine
from kornia_lightning_probe.metrics.layers.dominance import ImageDominance, PositionDominance, SensitivityPositions
from kornia_lightning_probe.metrics.layers.noise_ratio import NoiseRatio
from kornia_lightning_probe.metrics.layers.relative_change import RelativeChange
from kornia_lightning_probe.metrics.layers.sensitivity import FlatSensitivity, LayerSensitivity, PooledSensitivity
from kornia_lightning_probe.metrics.layers.shared_shift import SharedShift
from kornia_lightning_probe.metrics.layers.spread import Spread, SpreadRatio
from kornia_lightning_probe.metrics.layers.typical import SensitivityMedian, SensitivityWithin
from kornia_lightning_probe.metrics.maps.equivariance import EquivarianceError, InterpolationFloor, InvarianceError
from kornia_lightning_probe.metrics.outputs.predictions import Accuracy, AccuracyDrop, FlipRate, JensenShannon
from kornia_lightning_probe.metrics.outputs.segmentation import PixelFlipRate
from kornia_lightning_probe.wording import listed, near_names

MetricLike = str | ProbeMetric | Callable[[Tensor, Tensor], Tensor]

# What everybody gets without asking: what no other measure says already. A new one also goes into OURS and PLAIN of
# tests/support/plain_measures.py; the rest stands in _ALL and is asked for by name.
_DEFAULT: tuple[type[ProbeMetric], ...] = (
    LayerSensitivity,
    FlatSensitivity,
    PooledSensitivity,
    SensitivityMedian,
    SensitivityWithin,
    CentredCosine,
    EquivarianceError,
    InvarianceError,
    InterpolationFloor,
    Spread,
    SpreadRatio,
    SharedShift,
    ChannelDominance,
    ChannelMedian,
    ImageDominance,
    PositionDominance,
    RetrievalAUC,
    HeadShare,
    FlipRate,
    JensenShannon,
    Accuracy,
    AccuracyDrop,
    PixelFlipRate,
)
_ALL: tuple[type[ProbeMetric], ...] = (*_DEFAULT, NoiseRatio, RelativeChange, SensitivityPositions)
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
            near = near_names(metric, _BY_NAME, cutoff=0.4) or list(_BY_NAME)
            raise ValueError(f"no metric is named {metric!r}; near names: {listed(near, most=len(near))}")
        return _BY_NAME[metric]()
    if isinstance(metric, type) and issubclass(metric, ProbeMetric):
        return metric()
    if callable(metric):
        return FunctionMetric(cast("Callable[[Tensor, Tensor], Tensor]", metric))
    raise TypeError(f"a metric is a name, a ProbeMetric or a function of (clean, augmented), got {metric!r}")
