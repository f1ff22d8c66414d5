"""Write report.html; what draws it is imported here, on first use."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from kornia_lightning_probe.reporting.html.gathered import Probed
from kornia_lightning_probe.results.storage import write_whole
from kornia_lightning_probe.wording import listed

_PACKAGES = {"altair": "altair", "vl_convert": "vl-convert-python", "jinja2": "jinja2"}


def require_extra() -> None:
    """Refuse to go on without the packages of the extra.

    Raises:
        ImportError: If one is missing, with what to install.
    """
    missing = [name for module, name in _PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise ImportError(
            f"the report is drawn with {listed(_PACKAGES.values())}, and {listed(missing)} is not installed: "
            f"pip install {' '.join(missing)} (the extra [report] of kornia-lightning-probe)"
        )


def report_text(probes: Iterable[Probed]) -> str:
    """The page of some probes as HTML, which needs no other file and asks nothing of the network.

    Raises:
        ValueError: Without probes.
        ImportError: If a package of the extra is missing.
    """
    require_extra()
    from kornia_lightning_probe.reporting.html.page import page_text

    shown = list(probes)
    if not shown:
        raise ValueError("a report needs the results of at least one probe, got none")
    return page_text(shown)


def write_report(path: str | os.PathLike[str], probes: Iterable[Probed]) -> None:
    """Write the page of some probes to a file, whole or not at all; missing folders are made.

    Args:
        path: the file, such as report.html.
        probes: in the order in which they are shown, see :func:`~kornia_lightning_probe.reporting.html.read_probes`.

    Raises:
        ValueError: Without probes.
        ImportError: If a package of the extra is missing.
        OSError: If nothing can be written there.
    """
    write_whole(Path(path), report_text(probes))
