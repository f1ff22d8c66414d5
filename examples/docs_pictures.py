"""Draws the pictures of docs/ anew, but for docs/profile.png: runs first_training.py and keeps what its probe shows.

A minute on one core. The picture of the report needs Chromium and is left out where there is none.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import runpy
import shutil
import subprocess
import tempfile
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from kornia_lightning_probe import SensitivityProbe
from kornia_lightning_probe.plotting import plot_bank

HERE = Path(__file__).parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# The first screen of a laptop; virtual milliseconds in which the charts are drawn.
SCREEN = ("--window-size=1200,1080", "--virtual-time-budget=20000")


def figures_of(probe: SensitivityProbe, images: Tensor) -> dict[str, Figure]:
    """A file's name to its figure, of the last probe of a training."""
    result = probe.history[-1]
    return {
        "bank": plot_bank(probe.bank, images),
        "history": probe.plot("history"),
        "heatmap": result.plot("heatmap"),
        "severity": result.plot("severity"),
        "worst": result.plot("worst"),
    }


def photograph(page: Path, picture: Path) -> None:
    """The first screen of a page as a picture, as a browser without a window draws it."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"no Chromium: {picture.name} stays as it is")
        return
    quiet = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
    command = [browser, *quiet, *SCREEN, f"--screenshot={picture}", page.resolve().as_uri()]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - a page of our own
    # A page has few colours, and with a palette of them a third of the bytes.
    with Image.open(picture) as shown:
        shown.convert("RGB").quantize(128).save(picture, optimize=True)


def main() -> None:
    """Train, draw, photograph."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE.parent / "docs/pictures")
    output: Path = parser.parse_args().output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("MPLBACKEND", "Agg")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        left = runpy.run_path(str(HERE / "first_training.py"))
        (page,) = Path(folder).rglob("report.html")
        photograph(page, output / "report.png")
    images, _ = left["val_set"].tensors
    for name, figure in figures_of(left["probe"], images[10::60]).items():
        figure.savefig(output / f"{name}.png", dpi=100)
    print(f"pictures: {output}")


if __name__ == "__main__":
    main()
