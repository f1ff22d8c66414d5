"""Real architectures and torchvision's transforms: only where torchvision is installed, in the environment ``zoo``."""

from __future__ import annotations

import os
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

STARTUP = Path(__file__).parent / "startup"
# Python's own name for what runs when it starts; no test module.
collect_ignore = ["startup"]
collect_ignore_glob: list[str] = []

if find_spec("torchvision") is None:
    collect_ignore_glob.append("test_*.py")
elif not any(type(finder).__name__ == "BeforeTorchvision" for finder in sys.meta_path):
    # What tox does by PYTHONPATH, for those who call pytest by hand; child processes take it from there.
    runpy.run_path(str(STARTUP / "sitecustomize.py"))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(STARTUP), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
