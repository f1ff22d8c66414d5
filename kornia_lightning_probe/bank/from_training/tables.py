"""Which classes have which magnitudes, and which are no augmentations or can't be probed: data, and how it is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kornia_lightning_probe.bank.from_training.pins import Pin

_FACTOR = "|factor - 1|"
_SIDE = "of the side"
_WHITE = "of white"
_TURN = "of the circle"
_AREA = "of the area"


def _sampled(name: str, identity: float, unit: str) -> Pin:
    return Pin(f"_param_generator.{name}", identity, unit)


def _plain(name: str, identity: float, unit: str) -> Pin:
    return _sampled(f"sampler_dict.{name}", identity, unit)


_JITTER = (
    _sampled("brightness_sampler", 1.0, _FACTOR),
    _sampled("contrast_sampler", 1.0, _FACTOR),
    _sampled("saturation_sampler", 1.0, _FACTOR),
    _sampled("hue_sampler", 0.0, _TURN),
)
_GAIN = (_sampled("gain_sampler", 0.0, _WHITE),)

#: Of Kornia's classes, whose range is in the generator of their parameters. Where a class isn't here, the identity of
#: what it draws is not known, as of CLAHE's limit, or it has no magnitude, as a flip.
KORNIA: Mapping[str, tuple[Pin, ...]] = {
    "RandomRotation": (_plain("degrees", 0.0, "degrees"),),
    "RandomAffine": (
        _sampled("degree_sampler", 0.0, "degrees"),
        _sampled("translate_x_sampler", 0.0, _SIDE),
        _sampled("translate_y_sampler", 0.0, _SIDE),
        _sampled("scale_2_sampler", 1.0, _FACTOR),
        _sampled("scale_4_sampler", 1.0, _FACTOR),
        _sampled("shear_x_sampler", 0.0, "degrees"),
        _sampled("shear_y_sampler", 0.0, "degrees"),
    ),
    "RandomShear": (_sampled("shear_x_sampler", 0.0, "degrees"), _sampled("shear_y_sampler", 0.0, "degrees")),
    "RandomTranslate": (_sampled("translate_x_sampler", 0.0, _SIDE), _sampled("translate_y_sampler", 0.0, _SIDE)),
    "RandomPerspective": (Pin("_param_generator._distortion_scale", 0.0, _SIDE, drawn=False),),
    "RandomElasticTransform": (Pin("flags.alpha", 0.0, "alpha", drawn=False),),
    "RandomThinPlateSpline": (Pin("dist", 0.0, "of half a side", drawn=False),),
    "RandomResizedCrop": (_sampled("scale", 1.0, "1 - area"),),
    "RandomErasing": (_sampled("scale_sampler", 0.0, _AREA),),
    "ColorJiggle": _JITTER,
    "ColorJitter": _JITTER,
    "RandomBrightness": (_plain("brightness_factor", 1.0, _WHITE),),
    "RandomContrast": (_plain("contrast_factor", 1.0, _FACTOR),),
    "RandomSaturation": (_plain("saturation_factor", 1.0, _FACTOR),),
    "RandomHue": (_plain("hue_factor", 0.0, _TURN),),
    "RandomGamma": (_plain("gamma_factor", 1.0, "|exponent - 1|"), _plain("gain_factor", 1.0, _FACTOR)),
    "RandomSharpness": (_plain("sharpness", 1.0, _FACTOR),),
    "RandomPosterize": (Pin("_param_generator.bit_sampler", 8.0, "8 - bits", whole=True),),
    "RandomSolarize": (_plain("thresholds", 1.0, "1 - threshold"), _plain("additions", 0.0, _WHITE)),
    "RandomRGBShift": (
        _plain("r_shift", 0.0, _WHITE),
        _plain("g_shift", 0.0, _WHITE),
        _plain("b_shift", 0.0, _WHITE),
    ),
    "RandomGaussianBlur": (_sampled("sigma_sampler", 0.0, "pixels"),),
    "RandomGaussianNoise": (
        Pin("_param_generator.std", 0.0, "sigma", drawn=False),
        Pin("_param_generator.mean", 0.0, _WHITE, drawn=False),
    ),
    "RandomSaltAndPepperNoise": (_sampled("amount_sampler", 0.0, "of the pixels"),),
    "RandomJPEG": (_sampled("jpeg_quality_sampler", 100.0, "100 - quality"),),
    "RandomGaussianIllumination": _GAIN,
    "RandomLinearIllumination": _GAIN,
    "RandomLinearCornerIllumination": _GAIN,
    "RandomPlasmaBrightness": (_plain("intensity", 0.0, _WHITE),),
    "RandomPlasmaShadow": (_plain("shade_intensity", 0.0, _WHITE),),
}

#: Of torchvision's classes, v2 and before, whose range is an attribute.
TORCHVISION: Mapping[str, tuple[Pin, ...]] = {
    "RandomRotation": (Pin("degrees", 0.0, "degrees"),),
    "RandomAffine": (
        Pin("degrees", 0.0, "degrees"),
        Pin("translate", 0.0, _SIDE, drawn=False),
        Pin("scale", 1.0, _FACTOR),
        Pin("shear", 0.0, "degrees"),
        Pin("shear", 0.0, "degrees", start=2),
    ),
    "RandomPerspective": (Pin("distortion_scale", 0.0, _SIDE, drawn=False),),
    "ElasticTransform": (Pin("alpha", 0.0, "alpha", drawn=False),),
    "RandomResizedCrop": (Pin("scale", 1.0, "1 - area"),),
    "RandomZoomOut": (Pin("side_range", 1.0, _FACTOR),),
    "RandomErasing": (Pin("scale", 0.0, _AREA),),
    "ColorJitter": (
        Pin("brightness", 1.0, _FACTOR),
        Pin("contrast", 1.0, _FACTOR),
        Pin("saturation", 1.0, _FACTOR),
        Pin("hue", 0.0, _TURN),
    ),
    "RandomPosterize": (Pin("bits", 8.0, "8 - bits", drawn=False, whole=True),),
    "RandomSolarize": (Pin("threshold", 1.0, "1 - threshold", drawn=False, in_bytes=(255.0, "255 - threshold")),),
    "RandomAdjustSharpness": (Pin("sharpness_factor", 1.0, _FACTOR, drawn=False),),
    "GaussianBlur": (Pin("sigma", 0.0, "pixels"),),
    "GaussianNoise": (Pin("sigma", 0.0, "sigma", drawn=False), Pin("mean", 0.0, _WHITE, drawn=False)),
    "JPEG": (Pin("quality", 100.0, "100 - quality", whole=True),),
}

#: Classes that turn one kind of image into another, or tidy what isn't an image: no augmentations.
CONVERSIONS = frozenset(
    {
        "ClampBoundingBoxes",
        "ClampKeyPoints",
        "ConvertBoundingBoxFormat",
        "Identity",
        "PILToTensor",
        "RGB",
        "SanitizeBoundingBoxes",
        "SanitizeKeyPoints",
        "ToImage",
        "ToPILImage",
        "ToPureTensor",
    }
)
#: Those that make of bytes numbers in [0, 1], where their dtype is a floating one.
TO_FLOAT = frozenset({"ConvertImageDtype", "ToDtype", "ToTensor"})

#: Classes that do the same to every image, mostly to its size, on the way to a crop: no augmentations by themselves.
SAME_FOR_ALL = frozenset({"CenterCrop", "Grayscale", "LongestMaxSize", "Pad", "PadTo", "Resize", "SmallestMaxSize"})
#: Classes that choose what part of an image is seen, and how large it becomes.
CROPS = frozenset(
    {
        "RandomCrop",
        "RandomResize",
        "RandomResizedCrop",
        "RandomShortestSize",
        "RandomZoomOut",
        "ScaleJitter",
    }
)

_MIXES = "it mixes several images and their labels"
_SEVERAL = "it makes several images of one"
#: Why an augmentation can't be probed, by its class.
UNFIT: Mapping[str, str] = {
    "CutMix": _MIXES,
    "FiveCrop": _SEVERAL,
    "MixAugmentationBaseV2": _MIXES,
    "MixUp": _MIXES,
    "RandomIoUCrop": "it needs boxes",
    "TenCrop": _SEVERAL,
}

#: Classes that run what they hold; what they hold are the children of a pipeline.
CONTAINERS = frozenset(
    {
        "AugmentationSequential",
        "Compose",
        "ImageSequential",
        "RandomApply",
        "RandomChoice",
        "RandomOrder",
        "Sequential",
        "VideoSequential",
    }
)
#: Classes that hold operators and choose among them in a way of their own: one augmentation each.
POLICIES = frozenset({"PatchSequential", "PolicyAugmentBase", "PolicySequential"})

_TORCHVISION = "torchvision.transforms."
_KORNIA = "kornia.augmentation."
_KNOWN = (_TORCHVISION, _KORNIA, "torch.nn.modules.")


def is_torchvision(transform: Any) -> bool:
    """Whether it is one of torchvision's transforms, told without importing it."""
    return any(base.__module__.startswith(_TORCHVISION) for base in type(transform).__mro__)


def is_kornia(transform: Any) -> bool:
    """Whether it is one of Kornia's augmentations."""
    return any(base.__module__.startswith(_KORNIA) for base in type(transform).__mro__)


def class_names(transform: Any) -> list[str]:
    """The names of its class and the classes that this comes from, as far as they are Kornia's, torchvision's, torch's.

    A class of the user's own that is called like one of these isn't one.
    """
    return [base.__name__ for base in type(transform).__mro__ if base.__module__.startswith(_KNOWN)]


def is_among(transform: Any, names: frozenset[str]) -> bool:
    """Whether its class, or one that this comes from, has one of these names."""
    return not names.isdisjoint(class_names(transform))


def pins_of(transform: Any, *, in_bytes: bool = False) -> tuple[Pin, ...]:
    """The rows of its class, or of the nearest one that this comes from; none where it has no magnitude that is known.

    Args:
        transform: any augmentation.
        in_bytes: whether it is for images of 0 to 255.
    """
    table = TORCHVISION if is_torchvision(transform) else KORNIA
    for name in class_names(transform):
        if name in table:
            return tuple(_on(pin, in_bytes=in_bytes) for pin in table[name])
    return ()


def why_unfit(transform: Any) -> str:
    """Why it can't be probed; an empty text where it can."""
    for name in class_names(transform):
        if name in UNFIT and not is_among(transform, frozenset({"RandomJigsaw"})):
            return UNFIT[name]
    return ""


def _on(pin: Pin, *, in_bytes: bool) -> Pin:
    if not in_bytes or pin.in_bytes is None:
        return pin
    identity, unit = pin.in_bytes
    return pin._replace(identity=identity, unit=unit)
