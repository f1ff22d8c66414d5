"""Follows one forward pass: what ran, what depends on the image, where images and cells lie, where it ends."""

from kornia_lightning_probe.model.tracing.grids import NO_CELLS, Grid
from kornia_lightning_probe.model.tracing.rows import Rows
from kornia_lightning_probe.model.tracing.trace import Activation, Head, Trace, Tracing, trace

__all__ = ["NO_CELLS", "Activation", "Grid", "Head", "Rows", "Trace", "Tracing", "trace"]
