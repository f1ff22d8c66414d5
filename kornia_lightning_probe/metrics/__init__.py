"""Measures of how a representation moves: torchmetrics classes on tables of per-image scalars."""

from __future__ import annotations

from kornia_lightning_probe.activations.about import About, Site
from kornia_lightning_probe.activations.clean import (
    Centre,
    CleanBlock,
    MeanOfBlocks,
    Scratch,
    Temporaries,
    mask_non_finite,
)
from kornia_lightning_probe.activations.movement import Movements
from kornia_lightning_probe.activations.readouts import Readout, readouts_of, split_by_views
from kornia_lightning_probe.functional.estimates import mean_with_error
from kornia_lightning_probe.metrics.base import ProbeMetric, sum_over_ranks
from kornia_lightning_probe.metrics.embedding.retrieval import RetrievalAUC
from kornia_lightning_probe.metrics.function import FunctionMetric
from kornia_lightning_probe.metrics.layers.channels import ChannelDominance, MedianSensitivity
from kornia_lightning_probe.metrics.layers.cosine import CentredCosine
from kornia_lightning_probe.metrics.layers.ledger import Ledger
from kornia_lightning_probe.metrics.layers.pooled import PooledSensitivity, SharedShift, Spread, SpreadRatio
from kornia_lightning_probe.metrics.layers.relative_change import RelativeChange
from kornia_lightning_probe.metrics.layers.sensitivity import LayerSensitivity
from kornia_lightning_probe.metrics.maps.equivariance import (
    EquivarianceError,
    GeometricMetric,
    InterpolationFloor,
    InvarianceError,
)
from kornia_lightning_probe.metrics.outputs.predictions import Accuracy, AccuracyDrop, FlipRate, JensenShannon
from kornia_lightning_probe.metrics.outputs.segmentation import PixelFlipRate
from kornia_lightning_probe.metrics.registry import MetricLike, resolve_metrics

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
