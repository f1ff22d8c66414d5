"""The public face of the figures."""

from kornia_lightning_probe.reporting.figures.views import (
    figure_pixels,
    pick_layers,
    plot_bank,
    plot_epoch,
    plot_heatmap,
    plot_profile,
    plot_severity,
)

__all__ = ["figure_pixels", "pick_layers", "plot_bank", "plot_epoch", "plot_heatmap", "plot_profile", "plot_severity"]
