"""Lets torchvision be imported beside a CPU torch: the environment ``zoo`` has this folder on its PYTHONPATH.

torchvision's wheel has operators compiled for CUDA's torch, which do not load beside a CPU torch; then its Python code
asks for the schemas of two of them and fails, and with it whatever imports torchvision where it finds it: torchmetrics,
lightning, timm. So the schemas are defined in front of the first import. Python imports a module of this name by itself
when it starts, so that this holds for child processes too; nothing happens until somebody imports torchvision.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
# A library's schemas live as long as it does.
_DEFINED: list[Any] = []


class BeforeTorchvision:
    """The first on ``sys.meta_path``: finds nothing, but defines what torchvision needs when it is looked for."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Define the schemas where torchvision is installed and its operators do not load."""
        if name == "torchvision" and not _DEFINED:
            spec = PathFinder.find_spec(name)
            if spec is not None and not _operators_load(Path(str(spec.origin)).parent):
                _define()
        return None


def _operators_load(folder: Path) -> bool:
    import torch

    try:
        for library in folder.glob("_C*"):
            torch.ops.load_library(str(library))
    except OSError:
        return False
    return hasattr(torch.ops.torchvision, "nms")


def _define() -> None:
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for schema in SCHEMAS:
        library.define(schema)
    _DEFINED.append(library)


def install() -> None:
    """Stand in front of every import; once only, however often it is called."""
    if not any(isinstance(finder, BeforeTorchvision) for finder in sys.meta_path):
        sys.meta_path.insert(0, BeforeTorchvision())


install()
