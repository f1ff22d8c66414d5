"""Where the layers of real architectures have their cells, by the arithmetic of their published kernels and pads."""

from __future__ import annotations

import pytest
import torch

from kornia_lightning_probe import AugmentationBank, presets, probe_model

pytestmark = pytest.mark.filterwarnings("ignore")


def torchvisions(name, **settings):
    models = pytest.importorskip("torchvision").models
    return models.get_model(name, weights=None, **settings)


def timms(name):
    return pytest.importorskip("timm").create_model(name)


# Model, side of the images, and for some layers (cells, stride, offset, spread) along each side.
NETS = {
    # Strides of 2 with padding (K - 1) / 2 begin at pixel 0.
    "resnet18": (lambda: torchvisions("resnet18"), 64, {"conv1": (32, 2, 0, 0), "layer3.1": (4, 16, 0, 0)}),
    # A mean over 2 x 2 cells beside a 3 x 3 kernel: half a cell apart, in between and off by half of it.
    "resnet18d": (lambda: timms("resnet18d"), 64, {"layer1.1": (16, 4, 0, 0), "layer2.0": (8, 8, 1, 1)}),
    # 3 x 3 without padding, then pools of 3 and stride 2 without: 1, 1 + 2, 3 + 4.
    "squeezenet1_1": (
        lambda: torchvisions("squeezenet1_1"),
        95,
        {"features.0": (47, 2, 1, 0), "features.3": (23, 4, 3, 0), "features.6": (11, 8, 7, 0)},
    ),
    # Two pools of 3 and stride 2, rounded up, without padding: 0 + 2, 2 + 4; then + 8.
    "googlenet": (
        lambda: torchvisions("googlenet", init_weights=False, aux_logits=False),
        96,
        {"inception3a": (12, 8, 6, 0), "inception4e": (6, 16, 14, 0)},
    ),
    # TensorFlow pads on the right first: kernel 3 is moved by 1 at each stride, 1 + 2 + 4 + 8 + 16.
    "tf_efficientnet_b0": (
        lambda: timms("tf_efficientnet_b0"),
        64,
        {"blocks.0": (32, 2, 1, 0), "conv_head": (2, 32, 31, 0)},
    ),
    # Patches tile, whatever the windows do in between.
    "swin": (
        lambda: timms("swin_tiny_patch4_window7_224"),
        224,
        {"patch_embed": (56, 4, 1.5, 0), "layers.1.downsample": (28, 8, 3.5, 0), "layers.3.blocks.1": (7, 32, 15.5, 0)},
    ),
    # A 7 x 7 kernel at stride 4 with padding 3 begins at 0, and masks of units are pooled by 2.
    "hiera": (
        lambda: timms("hiera_tiny_224"),
        224,
        {"blocks.0": (56, 4, 0, 0), "blocks.1": (28, 8, 2, 0), "blocks.10": (7, 32, 14, 0)},
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_cells_lie_where_the_kernels_and_pads_of_a_net_leave_them(name):
    make, side, expected = NETS[name]
    torch.manual_seed(0)
    images = torch.rand(2, 3, side, side)
    bank = AugmentationBank({"hflip": presets.hflip()})
    result = probe_model(make().eval(), images, bank, layers=list(expected), metrics="sensitivity")
    for layer, (cells, *place) in expected.items():
        grid = result.metadata["grids"][layer]
        assert grid["size"] == [cells, cells]
        found = [grid[part] for part in ("stride", "offset", "spread")]
        assert found == [[float(pixels)] * 2 for pixels in place], layer
