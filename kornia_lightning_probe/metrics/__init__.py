"""Measures of how a representation moves: torchmetrics classes on tables of per-image scalars."""

from kornia_lightning_probe.activations.about import About, Distances
from kornia_lightning_probe.activations.site import Site
from kornia_lightning_probe.functional.estimates import Estimate, mean_with_error
from kornia_lightning_probe.functional.grids import Grid
from kornia_lightning_probe.metrics.base import BlockMetric, DistanceMetric, ProbeMetric
from kornia_lightning_probe.metrics.block_sums import BlockSums, Sums
from kornia_lightning_probe.metrics.embedding.head_share import HeadShare
from kornia_lightning_probe.metrics.embedding.retrieval import RetrievalAUC
from kornia_lightning_probe.metrics.function import FunctionMetric
from kornia_lightning_probe.metrics.image_table import sum_over_ranks
from kornia_lightning_probe.metrics.layers.channels import ChannelDominance, ChannelMedian
from kornia_lightning_probe.metrics.layers.cosine import CentredCosine
from kornia_lightning_probe.metrics.layers.dominance import ImageDominance, PositionDominance, SensitivityPositions
from kornia_lightning_probe.metrics.layers.noise_ratio import NoiseRatio
from kornia_lightning_probe.metrics.layers.relative_change import RelativeChange
from kornia_lightning_probe.metrics.layers.sensitivity import (
    FlatSensitivity,
    LayerSensitivity,
    Ledger,
    PooledSensitivity,
)
from kornia_lightning_probe.metrics.layers.shared_shift import SharedShift
from kornia_lightning_probe.metrics.layers.spread import Spread, SpreadRatio
from kornia_lightning_probe.metrics.layers.typical import SensitivityMedian, SensitivityWithin
from kornia_lightning_probe.metrics.maps.equivariance import (
    EquivarianceError,
    GeometricMetric,
    InterpolationFloor,
    InvarianceError,
)
from kornia_lightning_probe.metrics.outputs.predictions import Accuracy, AccuracyDrop, FlipRate, JensenShannon
from kornia_lightning_probe.metrics.outputs.segmentation import PixelFlipRate
from kornia_lightning_probe.metrics.registry import MetricLike, resolve_metrics
from kornia_lightning_probe.quantity import Quantity

__all__ = [
    "About",
    "Accuracy",
    "AccuracyDrop",
    "BlockMetric",
    "BlockSums",
    "CentredCosine",
    "ChannelDominance",
    "ChannelMedian",
    "DistanceMetric",
    "Distances",
    "EquivarianceError",
    "Estimate",
    "FlatSensitivity",
    "FlipRate",
    "FunctionMetric",
    "GeometricMetric",
    "Grid",
    "HeadShare",
    "ImageDominance",
    "InterpolationFloor",
    "InvarianceError",
    "JensenShannon",
    "LayerSensitivity",
    "Ledger",
    "MetricLike",
    "NoiseRatio",
    "PixelFlipRate",
    "PooledSensitivity",
    "PositionDominance",
    "ProbeMetric",
    "Quantity",
    "RelativeChange",
    "RetrievalAUC",
    "SensitivityMedian",
    "SensitivityPositions",
    "SensitivityWithin",
    "SharedShift",
    "Site",
    "Spread",
    "SpreadRatio",
    "Sums",
    "mean_with_error",
    "resolve_metrics",
    "sum_over_ranks",
]
