"""Lightning callbacks: the only rooms that know Lightning."""

from kornia_lightning_probe.callbacks.drift import DriftProbe
from kornia_lightning_probe.callbacks.report import ProbeReport
from kornia_lightning_probe.callbacks.sensitivity import SensitivityProbe

__all__ = ["DriftProbe", "ProbeReport", "SensitivityProbe"]
