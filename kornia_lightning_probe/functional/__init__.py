"""Mathematics on tensors. Knows nothing but torch. Users get these names; the package imports from the files."""

from kornia_lightning_probe.functional.distances import block_mean, squared_distance, squared_norm
from kornia_lightning_probe.functional.estimates import (
    Estimate,
    between_image_deviation,
    error_of_influence,
    mean_with_error,
    pair_pseudo_values,
    ratio_of_roots,
    relative_change,
    root_of_mean,
    root_of_ratio,
    sensitivity,
    shared_part,
)
from kornia_lightning_probe.functional.probabilities import jensen_shannon

__all__ = [
    "Estimate",
    "between_image_deviation",
    "block_mean",
    "error_of_influence",
    "jensen_shannon",
    "mean_with_error",
    "pair_pseudo_values",
    "ratio_of_roots",
    "relative_change",
    "root_of_mean",
    "root_of_ratio",
    "sensitivity",
    "shared_part",
    "squared_distance",
    "squared_norm",
]
