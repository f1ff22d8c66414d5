"""The visitor that compares each block under every view of a bank with its clean self."""

from kornia_lightning_probe.engine.under_views.keeping import KeptViews
from kornia_lightning_probe.engine.under_views.visitor import Plan, UnderViews, run_probe

__all__ = ["KeptViews", "Plan", "UnderViews", "run_probe"]
