"""Whether an augmentation moves pixels from where they are: told by what it is, before anything is drawn."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import kornia.augmentation as K  # noqa: N812 - the name that Kornia's own documentation uses
from torch import Tensor

# Kornia's classes that have a matrix other than the identity: RigidAffine..., but not Intensity...
_WITH_MATRIX = (K.RigidAffineAugmentationBase2D, K.RigidAffineAugmentationBase3D)
_STILL = (K.IntensityAugmentationBase2D, K.IntensityAugmentationBase3D)
# Those that move pixels without a matrix. The other mixing classes put a piece of one image where it was in another.
_WITHOUT_MATRIX = (
    K.RandomElasticTransform,
    K.RandomThinPlateSpline,
    K.RandomFisheye,
    K.RandomJigsaw,
    K.RandomMosaic,
)

# torchvision is told by names, since it need not be installed. Old and new transforms share them.
_TORCHVISION = "torchvision.transforms."
_TORCHVISION_CLASSES = frozenset(
    {
        # The policies hold no children: they choose operators by name, rotation and shear among them.
        "AugMix",
        "AutoAugment",
        "RandAugment",
        "TrivialAugmentWide",
        # A user's own subclass of one of these is found by its bases.
        "CenterCrop",
        "ElasticTransform",
        "FiveCrop",
        "Pad",
        "RandomAffine",
        "RandomCrop",
        "RandomHorizontalFlip",
        "RandomIoUCrop",
        "RandomPerspective",
        "RandomResize",
        "RandomResizedCrop",
        "RandomRotation",
        "RandomShortestSize",
        "RandomVerticalFlip",
        "RandomZoomOut",
        "Resize",
        "ScaleJitter",
        "TenCrop",
    }
)
_TORCHVISION_FUNCTIONS = frozenset(
    {
        "affine",
        "center_crop",
        "crop",
        "elastic",
        "elastic_transform",
        "five_crop",
        "hflip",
        "horizontal_flip",
        "pad",
        "perspective",
        "resize",
        "resized_crop",
        "rotate",
        "ten_crop",
        "vertical_flip",
        "vflip",
    }
)

# Kornia's functions, and the modules around them, that are geometric by where they stand.
_KORNIA_GEOMETRY = "kornia.geometry.transform."


def moves_pixels(transform: Any) -> bool:
    """Whether an augmentation moves pixels from where they are, or holds a part that does.

    What Kornia or torchvision call geometric does, with or without a matrix: flips, rotations, crops, pads, resizes,
    elastic and other warps, also where this draw leaves an image as it is. So do Kornia's jigsaw and mosaic, and the
    policies of both (AutoAugment, RandAugment ...), which hold such operators. Erasing, blurs and the mixing of images
    at one and the same place (mix-up, cut-mix, transplantation) do not.

    An augmentation's parts are a module's children, what is callable in an object's attributes or in lists and
    mappings there, and what a `functools.partial` calls. What a function does inside can't be seen: it counts as moving
    nothing, unless it is one of torchvision's or `kornia.geometry.transform`'s own.

    Args:
        transform: any augmentation.

    Example:
        >>> moves_pixels(K.RandomElasticTransform()), moves_pixels(K.RandomGaussianBlur(3, (1.0, 1.0)))
        (True, False)
        >>> moves_pixels(K.ImageSequential(K.RandomBrightness(), K.RandomHorizontalFlip()))
        True
    """
    return any(_is_geometric(part) for part in _parts(transform))


def _is_geometric(part: Any) -> bool:
    if isinstance(part, _WITHOUT_MATRIX):
        return True
    if isinstance(part, _WITH_MATRIX):
        return not isinstance(part, _STILL)
    if inspect.isroutine(part):
        return _is_geometric_function(part)
    return any(_is_geometric_class(base) for base in type(part).__mro__)


def _is_geometric_class(base: type) -> bool:
    if base.__module__.startswith(_KORNIA_GEOMETRY):
        return True
    return base.__module__.startswith(_TORCHVISION) and base.__name__ in _TORCHVISION_CLASSES


def _is_geometric_function(function: Any) -> bool:
    module = getattr(function, "__module__", None) or ""
    if module.startswith(_KORNIA_GEOMETRY):
        return True
    # "resize_image" is "resize" for tensors that are images.
    name = function.__name__.removesuffix("_image").removesuffix("_video")
    return module.startswith(_TORCHVISION) and name in _TORCHVISION_FUNCTIONS


def _parts(transform: Any) -> Iterator[Any]:
    """An augmentation and all that it is made of, each once."""
    waiting, seen = [transform], set()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        waiting.extend(_held(part))


def _held(part: Any) -> Iterator[Any]:
    """What an object holds that may be an augmentation."""
    if isinstance(part, Mapping):
        candidates = list(part.values())
    elif isinstance(part, list | tuple):
        candidates = list(part)
    elif isinstance(part, functools.partial):
        candidates = [part.func, *part.args, *part.keywords.values()]
    else:
        candidates = _attributes(part)
    yield from (candidate for candidate in candidates if _may_be_augmentation(candidate))


def _attributes(part: Any) -> list[Any]:
    if inspect.ismethod(part):
        # Of a method only the call itself is what its object is.
        return [part.__self__] if part.__name__ in ("__call__", "forward") else []
    if inspect.isroutine(part):
        return []
    # A module's children are there too, in a dictionary.
    return list(getattr(part, "__dict__", {}).values())


def _may_be_augmentation(candidate: Any) -> bool:
    if inspect.isclass(candidate) or isinstance(candidate, Tensor):
        return False
    return callable(candidate) or isinstance(candidate, Mapping | list | tuple)
