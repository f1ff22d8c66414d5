"""Mathematics on tensors. Knows nothing but torch. Users get these names; the package imports from the files."""

from kornia_lightning_probe.functional.distances import block_mean, pair_distances, squared_distance, squared_norm
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
from kornia_lightning_probe.functional.robust import (
    deviation_within,
    median,
    near_distance,
    root_of_ratio_of_medians,
)

__all__ = [
    "Estimate",
    "between_image_deviation",
    "block_mean",
    "deviation_within",
    "error_of_influence",
    "jensen_shannon",
    "mean_with_error",
    "median",
    "near_distance",
    "pair_distances",
    "pair_pseudo_values",
    "ratio_of_roots",
    "relative_change",
    "root_of_mean",
    "root_of_ratio",
    "root_of_ratio_of_medians",
    "sensitivity",
    "shared_part",
    "squared_distance",
    "squared_norm",
]
