"""A real volume: patches of the MRI that ships with nibabel, through a small 3-D U-Net."""

from pathlib import Path

import kornia.augmentation as K  # noqa: N812
import numpy as np
import pytest
import torch
from support.volumes import UNet3d

from kornia_lightning_probe import AugmentationBank, probe_model

nibabel = pytest.importorskip("nibabel")

SIDES = (16, 32, 32)


def _patches():
    """Of a head of 24 slices of 96 x 128, two of which were taken in time: (40, 1, 16, 32, 32), from 0 to 1162."""
    path = Path(nibabel.__file__).parent / "tests" / "data" / "example4d.nii.gz"
    volume = torch.from_numpy(np.asarray(nibabel.load(path).dataobj, dtype=np.float32))
    stacked = volume.permute(3, 2, 1, 0)
    patches = stacked
    for axis, (side, step) in enumerate(zip(SIDES, (8, 32, 32), strict=True), start=1):
        patches = patches.unfold(axis, side, step)
    patches = patches.reshape(-1, 1, *SIDES).contiguous()
    # Eight of 48 are air alone, and so copies of one another.
    return patches[patches.flatten(1).amax(1) > 0]


def _turned(degrees):
    still = (0.0, 0.0)
    return K.RandomRotation3D((still, still, (degrees, degrees)), p=1.0)


def _bank(**options):
    views = {
        "flip": K.RandomHorizontalFlip3D(p=1.0),
        "turn": {degrees: _turned(degrees) for degrees in (5.0, 15.0)},
        "half": lambda volumes: volumes / 2,
    }
    return AugmentationBank(views, layout="volume", value_range=(0, 1162), **options)


@pytest.mark.filterwarnings("ignore:images .* hold more than half of the movement")
def test_patches_of_a_head_are_probed_from_the_stem_of_a_unet_to_its_last_layer():
    torch.manual_seed(0)
    net = UNet3d().eval()
    patches = _patches()
    before = [parameter.clone() for parameter in net.parameters()]
    output = net(patches[:2])
    result = probe_model(net, patches, _bank())
    assert result.layers[0] == "model.0"
    assert result.layers[-1] == "model.2.1"
    assert result.tensor("sensitivity").isfinite().all()
    # A few bright patches hold much of the distance between images, and nothing else is wrong.
    assert all("sensitivity_median" in sentence for sentence in result.metadata["warnings"])
    # Halved, an instance norm behind each convolution gives nearly the same, and a turn by more moves more.
    assert result.value("sensitivity", "model.0", "half") < result.value("sensitivity", "input", "half")
    small, large = (result.value("sensitivity", "input", "turn", severity=degrees) for degrees in (5, 15))
    assert 0 < small < large
    assert torch.equal(net(patches[:2]), output)
    assert all(map(torch.equal, before, net.parameters()))


def test_a_scanners_values_need_their_range():
    with pytest.raises(ValueError, match=r"values from 0 to \d+, outside value_range=\(0, 1\)"):
        probe_model(UNet3d(), _patches(), AugmentationBank({"half": lambda x: x / 2}, layout="volume"))
    # Twelve bits are not sixteen.
    bank = AugmentationBank({"half": lambda x: x / 2}, layout="volume", value_range=(0, 65535))
    with pytest.warns(UserWarning, match=r"fill 1\.\d+% of value_range=\(0, 65535\)"):
        probe_model(UNet3d(), _patches(), bank, metrics="sensitivity", layers=["model.0"])
