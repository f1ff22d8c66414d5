"""Kornia's descriptors, detectors of keypoints and matchers."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from torch import nn

from support.zoo.entry import Entry


def make(name: str, **settings: Any) -> nn.Module:
    """A net of Kornia's with random weights."""
    return getattr(pytest.importorskip("kornia").feature, name)(**settings)


def _patches(name: str, *, is_small: bool = False) -> Entry:
    return Entry(partial(make, name, pretrained=False), (1, 32, 32), is_small=is_small)


def heatmaps(model: nn.Module, images: Any) -> Any:
    """Keypoints are found in these by arithmetic."""
    return model.heatmap_and_dense_descriptors(images)


KORNIA: dict[str, Entry] = {
    "HardNet": _patches("HardNet", is_small=True),
    "HyNet": _patches("HyNet"),
    "SOSNet": _patches("SOSNet"),
    "TFeat": _patches("TFeat"),
    "DISK": Entry(partial(make, "DISK"), forward=heatmaps),
    "KeyNet": Entry(partial(make, "KeyNet", pretrained=False), (1, 64, 64)),
    "XFeatModel": Entry(partial(make, "XFeatModel")),
    "DeDoDe": Entry(partial(make, "DeDoDe", descriptor_model="B"), (3, 64, 64)),
    "LoFTR": Entry(partial(make, "LoFTR", pretrained=None), (1, 64, 64), keys=("image0", "image1")),
}
