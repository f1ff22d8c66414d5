"""Watch how a vision model's layers move under Kornia augmentations while it trains."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from kornia_lightning_probe.bank.bank import AugmentationBank, View
from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.model.layers import select_layers
from kornia_lightning_probe.model.recorder import ActivationRecorder
from kornia_lightning_probe.probe import probe_model
from kornia_lightning_probe.result import ProbeResult

if TYPE_CHECKING:
    from kornia_lightning_probe.callbacks import DriftProbe, ProbeReport, SensitivityProbe

__version__ = "0.1.0"

__all__ = [
    "ActivationRecorder",
    "AugmentationBank",
    "DriftProbe",
    "ProbeImages",
    "ProbeReport",
    "ProbeResult",
    "SensitivityProbe",
    "View",
    "__version__",
    "probe_model",
    "select_layers",
]

_CALLBACKS = ("DriftProbe", "ProbeReport", "SensitivityProbe")


def __getattr__(name: str) -> object:
    """Import the callbacks, and with them Lightning, on first use."""
    if name in _CALLBACKS:
        return getattr(import_module("kornia_lightning_probe.callbacks"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
