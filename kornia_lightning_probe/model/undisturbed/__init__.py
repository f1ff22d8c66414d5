"""A model that is run for inspection and left exactly as it was."""

from kornia_lightning_probe.model.undisturbed.modes import default_dtype
from kornia_lightning_probe.model.undisturbed.parameters import guarded_parameters
from kornia_lightning_probe.model.undisturbed.whole import undisturbed

__all__ = ["default_dtype", "guarded_parameters", "undisturbed"]
