"""The public face of :mod:`kornia_lightning_probe.functional.influence`."""

from kornia_lightning_probe.functional.influence import (
    combined_error,
    mean_influence,
    root_of_mean_influence,
    root_of_ratio_influence,
    sensitivity_influence,
    shared_part_influence,
    shares,
)

__all__ = [
    "combined_error",
    "mean_influence",
    "root_of_mean_influence",
    "root_of_ratio_influence",
    "sensitivity_influence",
    "shared_part_influence",
    "shares",
]
