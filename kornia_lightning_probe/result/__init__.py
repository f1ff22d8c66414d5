"""The door of a result: the numbers of one probe, or of a comparison, with their words, pictures and files."""

from kornia_lightning_probe.result.comparison import Comparison
from kornia_lightning_probe.result.probe_result import ProbeResult
from kornia_lightning_probe.results.tables import MetricTable, ProbeRow, ViewInfo

__all__ = ["Comparison", "MetricTable", "ProbeResult", "ProbeRow", "ViewInfo"]
