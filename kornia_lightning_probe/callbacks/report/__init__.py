"""ProbeReport: all probes of a Trainer in one page."""

from kornia_lightning_probe.callbacks.report.probe_report import ProbeReport

__all__ = ["ProbeReport"]
