"""torchvision's classification, segmentation, detection, video and optical flow."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from torch import nn

from support.zoo.entry import Entry


def make(name: str, **settings: Any) -> nn.Module:
    """A net of torchvision's with random weights."""
    models = pytest.importorskip("torchvision").models
    if name.startswith(("fcn", "deeplab", "lraspp", "retinanet", "ssdlite")):
        settings["weights_backbone"] = None
    if name in ("googlenet", "inception_v3"):
        settings["init_weights"] = False
    return models.get_model(name, weights=None, **settings)


def as_list(model: nn.Module, images: Any) -> Any:
    """A detector takes a list of images."""
    return model(list(images))


def both(model: nn.Module, images: Any) -> Any:
    """Optical flow takes two images."""
    return model(images["left"], images["right"], num_flow_updates=3)


def _entry(name: str, side: int = 64, *, is_small: bool = False, **settings: Any) -> Entry:
    return Entry(partial(make, name, **settings), (3, side, side), is_small=is_small)


_SMALL = ("resnet18", "squeezenet1_1", "googlenet", "mobilenet_v3_small", "lraspp_mobilenet_v3_large")
_LARGE = (
    "densenet121",
    "swin_t",
    "swin_v2_t",
    "convnext_tiny",
    "fcn_resnet50",
    "deeplabv3_mobilenet_v3_large",
    "shufflenet_v2_x0_5",
    "regnet_y_400mf",
    "efficientnet_b0",
    "mobilenet_v2",
    "mnasnet0_5",
    "alexnet",
    "vgg11_bn",
)
TORCHVISION: dict[str, Entry] = {
    **{name: _entry(name, is_small=True) for name in _SMALL},
    **{name: _entry(name) for name in _LARGE},
    "inception_v3": _entry("inception_v3", 96),
    "vit_b_32": _entry("vit_b_32", image_size=64),
    "maxvit_t": _entry("maxvit_t", 224),
    "retinanet_resnet50_fpn": Entry(
        partial(make, "retinanet_resnet50_fpn", min_size=96, max_size=96), (3, 96, 96), forward=as_list
    ),
    "raft_small": Entry(partial(make, "raft_small"), (3, 128, 128), forward=both, keys=("left", "right")),
    "r3d_18": Entry(partial(make, "r3d_18"), (3, 8, 32, 32), layout="volume"),
    "swin3d_t": Entry(partial(make, "swin3d_t"), (3, 8, 64, 64), layout="volume"),
}
