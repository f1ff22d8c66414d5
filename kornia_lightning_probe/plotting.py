"""The public face of the figures."""

from kornia_lightning_probe.reporting.figures.bank import plot_bank
from kornia_lightning_probe.reporting.figures.drawing import figure_pixels
from kornia_lightning_probe.reporting.figures.epoch import plot_epoch
from kornia_lightning_probe.reporting.figures.heatmap import plot_heatmap
from kornia_lightning_probe.reporting.figures.profile import plot_profile
from kornia_lightning_probe.reporting.figures.severity import plot_severity
from kornia_lightning_probe.results.tables import pick_layers

__all__ = ["figure_pixels", "pick_layers", "plot_bank", "plot_epoch", "plot_heatmap", "plot_profile", "plot_severity"]
