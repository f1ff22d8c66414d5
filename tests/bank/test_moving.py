"""Which augmentations move pixels: every public class of Kornia, what holds one, and what the user says."""

import functools
import inspect
import json

import jsonargparse
import kornia.augmentation as K  # noqa: N812
import kornia.augmentation.auto as auto
import kornia.geometry.transform as geometry
import pytest
import torch
from torch import nn

from kornia_lightning_probe import presets
from kornia_lightning_probe.bank.bank import AugmentationBank
from kornia_lightning_probe.bank.moving import moves_pixels

MOVE = {
    "CenterCrop": lambda: K.CenterCrop(8),
    "CenterCrop3D": lambda: K.CenterCrop3D(8),
    "LongestMaxSize": lambda: K.LongestMaxSize(8),
    "PadTo": lambda: K.PadTo((8, 8)),
    "RandomAffine": lambda: K.RandomAffine(5.0),
    "RandomAffine3D": lambda: K.RandomAffine3D(5.0),
    "RandomCrop": lambda: K.RandomCrop((8, 8)),
    "RandomCrop3D": lambda: K.RandomCrop3D((8, 8, 8)),
    "RandomDepthicalFlip3D": lambda: K.RandomDepthicalFlip3D(),
    "RandomElasticTransform": lambda: K.RandomElasticTransform(),
    "RandomFisheye": lambda: K.RandomFisheye(*[torch.tensor([-0.1, 0.1])] * 2, torch.tensor([0.9, 1.1])),
    "RandomHorizontalFlip": lambda: K.RandomHorizontalFlip(),
    "RandomHorizontalFlip3D": lambda: K.RandomHorizontalFlip3D(),
    "RandomJigsaw": lambda: K.RandomJigsaw(),
    "RandomMosaic": lambda: K.RandomMosaic(),
    "RandomPerspective": lambda: K.RandomPerspective(),
    "RandomPerspective3D": lambda: K.RandomPerspective3D(),
    "RandomResizedCrop": lambda: K.RandomResizedCrop((8, 8)),
    "RandomRotation": lambda: K.RandomRotation(5.0),
    "RandomRotation3D": lambda: K.RandomRotation3D(5.0),
    "RandomRotation90": lambda: K.RandomRotation90((1, 1)),
    "RandomShear": lambda: K.RandomShear(5.0),
    "RandomThinPlateSpline": lambda: K.RandomThinPlateSpline(),
    "RandomTranslate": lambda: K.RandomTranslate((0.1, 0.1)),
    "RandomVerticalFlip": lambda: K.RandomVerticalFlip(),
    "RandomVerticalFlip3D": lambda: K.RandomVerticalFlip3D(),
    "Resize": lambda: K.Resize((8, 8)),
    "SmallestMaxSize": lambda: K.SmallestMaxSize(8),
}
POLICIES = {
    "AutoAugment": lambda: auto.AutoAugment(),
    "RandAugment": lambda: auto.RandAugment(n=2, m=10),
    "TrivialAugment": lambda: auto.TrivialAugment(),
}
STAY = {
    "ColorJiggle": lambda: K.ColorJiggle(0.1),
    "ColorJitter": lambda: K.ColorJitter(0.1),
    "Denormalize": lambda: K.Denormalize(0.5, 0.5),
    "Normalize": lambda: K.Normalize(0.5, 0.5),
    "PatchMix": lambda: K.PatchMix(),
    "RandomAutoContrast": lambda: K.RandomAutoContrast(),
    "RandomBoxBlur": lambda: K.RandomBoxBlur(),
    "RandomBrightness": lambda: K.RandomBrightness(),
    "RandomChannelDropout": lambda: K.RandomChannelDropout(),
    "RandomChannelShuffle": lambda: K.RandomChannelShuffle(),
    "RandomClahe": lambda: K.RandomClahe(),
    "RandomContrast": lambda: K.RandomContrast(),
    "RandomCutMixV2": lambda: K.RandomCutMixV2(use_correct_lambda=True),
    # Loads a diffusion model when it is made.
    "RandomDissolving": lambda: K.RandomDissolving.__new__(K.RandomDissolving),
    "RandomEqualize": lambda: K.RandomEqualize(),
    "RandomEqualize3D": lambda: K.RandomEqualize3D(),
    "RandomErasing": lambda: K.RandomErasing(),
    "RandomGamma": lambda: K.RandomGamma(),
    "RandomGaussianBlur": lambda: K.RandomGaussianBlur(3, (1.0, 1.0)),
    "RandomGaussianIllumination": lambda: K.RandomGaussianIllumination(),
    "RandomGaussianNoise": lambda: K.RandomGaussianNoise(),
    "RandomGrayscale": lambda: K.RandomGrayscale(),
    "RandomHue": lambda: K.RandomHue(),
    "RandomInvert": lambda: K.RandomInvert(),
    "RandomJPEG": lambda: K.RandomJPEG(),
    "RandomLinearCornerIllumination": lambda: K.RandomLinearCornerIllumination(),
    "RandomLinearIllumination": lambda: K.RandomLinearIllumination(),
    "RandomMedianBlur": lambda: K.RandomMedianBlur(),
    "RandomMixUpV2": lambda: K.RandomMixUpV2(),
    "RandomMotionBlur": lambda: K.RandomMotionBlur(3, 5.0, 0.1),
    "RandomMotionBlur3D": lambda: K.RandomMotionBlur3D(3, 5.0, 0.1),
    "RandomPlanckianJitter": lambda: K.RandomPlanckianJitter(),
    "RandomPlasmaBrightness": lambda: K.RandomPlasmaBrightness(),
    "RandomPlasmaContrast": lambda: K.RandomPlasmaContrast(),
    "RandomPlasmaShadow": lambda: K.RandomPlasmaShadow(),
    "RandomPosterize": lambda: K.RandomPosterize(),
    "RandomRGBShift": lambda: K.RandomRGBShift(),
    "RandomRain": lambda: K.RandomRain(),
    "RandomSaltAndPepperNoise": lambda: K.RandomSaltAndPepperNoise(),
    "RandomSaturation": lambda: K.RandomSaturation(),
    "RandomSharpness": lambda: K.RandomSharpness(),
    "RandomSnow": lambda: K.RandomSnow(),
    "RandomSolarize": lambda: K.RandomSolarize(),
    "RandomTransplantation": lambda: K.RandomTransplantation(),
    "RandomTransplantation3D": lambda: K.RandomTransplantation3D(),
}
CONTAINERS = {
    "AugmentationSequential": lambda child: K.AugmentationSequential(child),
    "ImageSequential": lambda child: K.ImageSequential(child),
    "ManyToManyAugmentationDispather": lambda child: K.ManyToManyAugmentationDispather(
        K.AugmentationSequential(K.RandomInvert()), K.AugmentationSequential(child)
    ),
    "ManyToOneAugmentationDispather": lambda child: K.ManyToOneAugmentationDispather(
        K.AugmentationSequential(K.RandomInvert()), K.AugmentationSequential(child)
    ),
    "PatchSequential": lambda child: K.PatchSequential(child, grid_size=(2, 2), patchwise_apply=False),
    "VideoSequential": lambda child: K.VideoSequential(child),
}
# Only a class that is made of one of them can move anything.
BASES = {
    "AugmentationBase2D",
    "AugmentationBase3D",
    "GeometricAugmentationBase2D",
    "GeometricAugmentationBase3D",
    "IntensityAugmentationBase2D",
    "IntensityAugmentationBase3D",
    "MixAugmentationBaseV2",
    "RigidAffineAugmentationBase2D",
    "RigidAffineAugmentationBase3D",
}


def test_each_of_kornias_public_classes_is_decided():
    public = {name for module in (K, auto) for name in module.__all__ if inspect.isclass(getattr(module, name))}
    # What a policy is made of.
    public -= {"PolicyAugmentBase", "PolicySequential", "OperationBase"}
    decided = {*MOVE, *POLICIES, *STAY, *CONTAINERS, *BASES}
    new, gone = sorted(public - decided), sorted(decided - public)
    assert not new, f"new in Kornia: decide in bank/moving.py and in the tables above whether {new} move pixels"
    assert not gone, f"no longer in Kornia: take {gone} out of the tables above"


@pytest.mark.parametrize("name", [*MOVE, *POLICIES])
def test_what_moves_pixels_is_told_before_it_draws(name):
    assert moves_pixels({**MOVE, **POLICIES}[name]())


@pytest.mark.parametrize("name", STAY)
def test_what_leaves_pixels_where_they_are_is_told_too(name):
    assert not moves_pixels(STAY[name]())


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_moves_pixels_if_a_child_does(name):
    assert moves_pixels(CONTAINERS[name](K.RandomHorizontalFlip()))
    assert not moves_pixels(CONTAINERS[name](K.RandomErasing()))


class _Turn(K.GeometricAugmentationBase2D):
    """A user's own class of Kornia's geometric kind."""


class _WithMatrix(K.RigidAffineAugmentationBase2D):
    """A user's own class that has a matrix."""


@pytest.mark.parametrize("own", [_Turn, _WithMatrix], ids=lambda own: own.__name__)
def test_a_class_of_ones_own_is_told_by_kornias_base(own):
    assert moves_pixels(own())


class _Holder(nn.Module):
    """A module that holds its augmentations in some attribute."""

    def __init__(self, held) -> None:
        super().__init__()
        self.held = held

    def forward(self, images):
        return images


class _Plain:
    """A callable that is no module."""

    def __init__(self, held) -> None:
        self.held = held
        self.itself = self

    def __call__(self, images):
        return images


@pytest.mark.parametrize(
    "hold",
    [
        lambda child: nn.Sequential(nn.Identity(), child),
        lambda child: nn.Sequential(nn.Sequential(K.ImageSequential(child))),
        _Holder,
        lambda child: _Holder(nn.ModuleList([child])),
        lambda child: _Holder([nn.Identity(), (child,)]),
        lambda child: _Holder({"inner": child}),
        _Plain,
        lambda child: _Plain([_Holder(child)]),
        lambda child: _Plain(child).__call__,
        lambda child: _Holder(child).forward,
        lambda child: functools.partial(child),
        lambda child: functools.partial(torch.clamp, others=[child]),
        torch.nn.DataParallel,
    ],
)
def test_a_part_is_found_wherever_it_is_held(hold):
    assert moves_pixels(hold(K.RandomRotation(5.0)))
    assert not moves_pixels(hold(K.RandomInvert()))


def test_kornias_functions_and_modules_are_told_by_where_they_stand():
    assert moves_pixels(geometry.hflip)
    assert moves_pixels(functools.partial(geometry.rotate, angle=torch.tensor([15.0])))
    assert moves_pixels(geometry.Hflip())
    assert not moves_pixels(functools.partial(torch.mul, other=0.5))


def test_what_a_function_does_inside_cant_be_seen():
    assert not moves_pixels(lambda images: images.flip(-1))
    assert not moves_pixels(functools.partial(torch.roll, shifts=1, dims=-1))
    assert not moves_pixels(_Holder(K.RandomRotation(5.0)).state_dict)
    # A class isn't an augmentation; that is said elsewhere.
    assert not moves_pixels(_Holder(K.RandomRotation))


@pytest.mark.parametrize("preset", ["default", "photometric", "geometric", "corruptions"])
def test_of_the_presets_the_geometric_ladders_move_pixels(preset):
    moving = {"hflip", "vflip", "rotation", "translation", "scale", "shear", "perspective", "elastic"}
    for view in AugmentationBank.preset(preset):
        assert view.moves_pixels == (view.augmentation in moving)


def _roll(images):
    return images.roll(1, -1)


@pytest.mark.parametrize("said", ["roll", ("roll",), ["roll"], {"roll": True}, iter(["roll"])])
def test_the_user_says_what_cant_be_seen(said):
    views = {"roll": [_roll, _roll], "noise": presets.gaussian_noise((0.1,))}
    assert [view.moves_pixels for view in AugmentationBank(views)] == [False, False, False]
    bank = AugmentationBank(views, moves_pixels=said)
    assert [view.moves_pixels for view in bank] == [True, True, False]
    assert [view["moves_pixels"] for view in json.loads(json.dumps(bank.describe()))["views"]] == [True, True, False]


def test_levels_of_one_augmentation_are_each_told_by_themselves():
    bank = AugmentationBank({"both": {1: K.RandomInvert(), 2: K.RandomHorizontalFlip()}})
    assert [view.moves_pixels for view in bank] == [False, True]


@pytest.mark.parametrize(
    ("said", "error", "text"),
    [
        ("rol", ValueError, r"moves_pixels: there is no augmentation 'rol' in this bank; did you mean 'roll'\?$"),
        (("x",), ValueError, r"moves_pixels: there is no augmentation 'x' in this bank; .*: roll, noise$"),
        (True, TypeError, r"moves_pixels takes names of augmentations, such as \('roll',\), got True$"),
        ([1], TypeError, r"moves_pixels takes names of augmentations, .*, got 1 among them$"),
    ],
)
def test_a_name_that_no_augmentation_has_is_an_error(said, error, text):
    with pytest.raises(error, match=text):
        AugmentationBank({"roll": _roll, "noise": presets.gaussian_noise()}, moves_pixels=said)


@pytest.mark.parametrize("said", ["roll", ["roll", "noise"]])
def test_what_moves_pixels_can_be_written_in_a_configuration_file(said):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--bank", type=AugmentationBank)
    identity = {"class_path": "torch.nn.Identity"}
    arguments = {"views": {"roll": identity, "noise": identity}, "moves_pixels": said}
    written = {"class_path": "kornia_lightning_probe.AugmentationBank", "init_args": arguments}
    bank = parser.instantiate(parser.parse_object({"bank": written})).bank
    assert [view.moves_pixels for view in bank] == [True, "noise" in said]
