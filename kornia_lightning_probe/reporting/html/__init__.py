"""Results as one page: report.html, which opens from disk and asks nothing of the network."""

from kornia_lightning_probe.reporting.html.files import probes_text, read_probes
from kornia_lightning_probe.reporting.html.gathered import Probed, Thumbnails
from kornia_lightning_probe.reporting.html.report import report_text, require_extra, write_report

__all__ = ["Probed", "Thumbnails", "probes_text", "read_probes", "report_text", "require_extra", "write_report"]
