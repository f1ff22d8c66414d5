"""torchvision's transforms in a bank: which of them move pixels, and that they replay."""

import functools
import inspect
import json
import subprocess
import sys

import kornia.augmentation as K  # noqa: N812
import pytest
import torch
import torchvision.transforms as v1
from torch import nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from kornia_lightning_probe import AugmentationBank, probe_model
from kornia_lightning_probe.bank.moving import moves_pixels

# A name, and what the class is made with.
MOVE = {
    "AugMix": {},
    "AutoAugment": {},
    "CenterCrop": {"size": 8},
    "ElasticTransform": {},
    "FiveCrop": {"size": 8},
    "Pad": {"padding": 2},
    "RandAugment": {},
    "RandomAffine": {"degrees": 5},
    "RandomCrop": {"size": 8},
    "RandomHorizontalFlip": {},
    "RandomIoUCrop": {},
    "RandomPerspective": {},
    "RandomResize": {"min_size": 8, "max_size": 9},
    "RandomResizedCrop": {"size": 8},
    "RandomRotation": {"degrees": 5},
    "RandomShortestSize": {"min_size": 8},
    "RandomVerticalFlip": {},
    "RandomZoomOut": {},
    "Resize": {"size": 8},
    "ScaleJitter": {"target_size": (8, 8)},
    "TenCrop": {"size": 8},
    "TrivialAugmentWide": {},
}
STAY = {
    "ClampBoundingBoxes": {},
    "ClampKeyPoints": {},
    "ColorJitter": {"brightness": 0.5},
    "ConvertBoundingBoxFormat": {"format": "XYXY"},
    "ConvertImageDtype": {"dtype": torch.float32},
    "CutMix": {"num_classes": 3},
    "GaussianBlur": {"kernel_size": 3},
    "GaussianNoise": {},
    "Grayscale": {},
    "Identity": {},
    "JPEG": {"quality": 50},
    "LinearTransformation": {"transformation_matrix": torch.eye(3), "mean_vector": torch.zeros(3)},
    "MixUp": {"num_classes": 3},
    "Normalize": {"mean": [0.5], "std": [0.5]},
    "PILToTensor": {},
    "RGB": {},
    "RandomAdjustSharpness": {"sharpness_factor": 2},
    "RandomAutocontrast": {},
    "RandomChannelPermutation": {},
    "RandomEqualize": {},
    "RandomErasing": {},
    "RandomGrayscale": {},
    "RandomInvert": {},
    "RandomPhotometricDistort": {},
    "RandomPosterize": {"bits": 3},
    "RandomSolarize": {"threshold": 0.5},
    "SanitizeBoundingBoxes": {},
    "SanitizeKeyPoints": {},
    "SetClampingMode": {"clamping_mode": "soft"},
    "ToDtype": {"dtype": torch.float32},
    "ToImage": {},
    "ToPILImage": {},
    "ToPureTensor": {},
    # Frames, not pixels.
    "UniformTemporalSubsample": {"num_samples": 2},
}
CONTAINERS = ("Compose", "RandomApply", "RandomChoice", "RandomOrder")
# A base, an enumeration, what holds a function, and a class that warns that it should not be used.
OTHERS = {"AutoAugmentPolicy", "InterpolationMode", "Lambda", "ToTensor", "Transform"}


@pytest.mark.parametrize("transforms", [v1, v2], ids=["v1", "v2"])
def test_each_of_torchvisions_public_classes_is_decided(transforms):
    public = {name for name, value in vars(transforms).items() if inspect.isclass(value)}
    new = sorted(public - {*MOVE, *STAY, *CONTAINERS, *OTHERS})
    assert not new, f"new in torchvision: decide in bank/moving.py and in the tables above whether {new} move pixels"


@pytest.mark.parametrize("transforms", [v1, v2], ids=["v1", "v2"])
def test_each_class_is_told_by_its_name(transforms):
    for name, arguments in {**MOVE, **STAY}.items():
        if transforms is v2 or hasattr(v1, name):
            transform = getattr(transforms, name)(**arguments)
            assert moves_pixels(transform) == (name in MOVE), name


@pytest.mark.parametrize("transforms", [v1, v2], ids=["v1", "v2"])
@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_moves_pixels_if_a_child_does(transforms, name):
    container = getattr(transforms, name)
    still = transforms.GaussianBlur(3)
    assert not moves_pixels(container([still, still]))
    assert moves_pixels(container([still, transforms.RandomRotation(5)]))
    assert moves_pixels(container([still, container([K.RandomHorizontalFlip()])]))


def test_a_module_list_of_transforms_is_looked_into():
    children = nn.ModuleList([v2.GaussianBlur(3), v2.RandomRotation(5)])
    assert moves_pixels(v2.RandomApply(children))
    assert moves_pixels(nn.Sequential(v2.RandomApply(children)))


class _Shaken(v2.RandomAffine):
    """A user's own subclass."""


@pytest.mark.parametrize(
    "transform",
    [
        _Shaken(degrees=5),
        functional.hflip,
        functional.rotate_image,
        functools.partial(functional.rotate, angle=15.0),
        functools.partial(v1.functional.affine, angle=0.0, translate=[2, 0], scale=1.0, shear=0.0),
        v2.Lambda(functools.partial(functional.rotate, angle=15.0)),
        v1.Lambda(functional.vertical_flip),
    ],
)
def test_a_subclass_and_a_function_of_torchvisions_are_told(transform):
    assert moves_pixels(transform)


@pytest.mark.parametrize(
    "transform",
    [
        functools.partial(functional.adjust_brightness, brightness_factor=0.5),
        functools.partial(functional.gaussian_blur, kernel_size=3),
        functools.partial(functional.erase, i=0, j=0, h=2, w=2, v=0.0),
        v2.Lambda(lambda images: functional.hflip(images)),
    ],
)
def test_other_functions_and_what_a_lambda_calls_are_not(transform):
    assert not moves_pixels(transform)


def _images() -> torch.Tensor:
    return torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def _bank() -> AugmentationBank:
    turned = v2.Compose([v2.RandomRotation(30.0), v2.ColorJitter(brightness=0.5)])
    return AugmentationBank({"turned": turned, "blurred": v2.GaussianBlur(3, sigma=(0.5, 2.0))}, seed=3)


def _net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 5)).eval()


def test_a_pipeline_of_torchvisions_is_measured_and_replays():
    first, again = (probe_model(_net(), _images(), _bank(), metrics=["sensitivity"]) for _ in range(2))
    assert torch.equal(first.tensor("sensitivity"), again.tensor("sensitivity"))
    assert first.tensor("sensitivity").isfinite().all()
    assert (first.tensor("sensitivity") > 0).all()
    assert [view.moves_pixels for view in first.views] == [True, False]
    written = json.loads(json.dumps(first.metadata["bank"]))
    assert [view["moves_pixels"] for view in written["views"]] == [True, False]


def test_a_view_of_torchvisions_depends_on_the_seed_and_the_block():
    bank = _bank()
    drawn = bank.augment(bank[0], _images(), block=0).images[0]
    assert torch.equal(bank.augment(bank[0], _images(), block=0).images[0], drawn)
    assert not torch.equal(bank.augment(bank[0], _images(), block=1).images[0], drawn)


def test_what_imports_torchvision_by_itself_works_in_a_child_process_too():
    code = "import lightning.pytorch, torchmetrics, timm, torchvision; print(torchvision.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "torchvision"
