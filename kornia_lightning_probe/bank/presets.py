"""The presets: families of ready-made ladders, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kornia_lightning_probe.bank import ladders
from kornia_lightning_probe.bank.views import Extremes, Ladder
from kornia_lightning_probe.image_layout import VOLUME, ImageLayout
from kornia_lightning_probe.wording import listed, near_names, unknown

#: Ladders whose operators need images of 3 channels.
NEEDS_RGB = frozenset({"saturation", "hue", "jpeg"})

_PRESETS: Mapping[str, Mapping[str, Callable[[], Ladder | Extremes]]] = {
    "default": {
        "hflip": ladders.hflip,
        "rotation": ladders.rotation,
        "translation": ladders.translation,
        "blur": ladders.gaussian_blur,
        "noise": ladders.gaussian_noise,
        "darken": ladders.darken,
        "contrast": ladders.contrast,
    },
    "photometric": {
        "blur": ladders.gaussian_blur,
        "motion_blur": ladders.motion_blur,
        "noise": ladders.gaussian_noise,
        "brighten": ladders.brightness,
        "darken": ladders.darken,
        "contrast": ladders.contrast,
        "saturation": ladders.saturation,
        "hue": ladders.hue,
        "gamma": ladders.gamma,
        "solarize": ladders.solarize,
        "posterize": ladders.posterize,
        "jpeg": ladders.jpeg,
        "erasing": ladders.erasing,
    },
    "geometric": {
        "hflip": ladders.hflip,
        "vflip": ladders.vflip,
        "rotation": ladders.rotation,
        "translation": ladders.translation,
        "scale": ladders.scale,
        "shear": ladders.shear,
        "perspective": ladders.perspective,
        "elastic": ladders.elastic,
    },
}

# The levels as published: of the noise and the offsets where white is 1, of the blur in pixels.
_CORRUPTIONS: Mapping[str, Callable[[Any], Ladder]] = {
    "noise": ladders.gaussian_noise,
    "blur": ladders.gaussian_blur_pixels,
    "contrast": ladders.contrast_per_channel,
    "brightness": ladders.brightness_value,
    "jpeg": ladders.jpeg,
}
_IMAGENET_C = {
    "noise": (0.08, 0.12, 0.18, 0.26, 0.38),
    "blur": (1, 2, 3, 4, 6),
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    "jpeg": (25, 18, 15, 10, 7),
}
_CIFAR_C = {
    "noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "blur": (0.4, 0.6, 0.7, 0.8, 1.0),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
    "jpeg": (80, 65, 58, 50, 40),
}


def preset_ladders(
    name: str = "default", *, small: bool = False, exclude: str | Sequence[str] = ()
) -> dict[str, Ladder | Extremes]:
    """Build the ladders of a preset.

    - "default": hflip, rotation, translation, blur, noise, darken, contrast; 19 views.
    - "photometric": blur, motion_blur, noise, brighten, darken, contrast, saturation, hue, gamma, solarize, posterize,
      jpeg, erasing.
    - "geometric": hflip, vflip, rotation, translation, scale, shear, perspective, elastic.
    - "corruptions": noise, blur, contrast, brightness, jpeg, at the five levels of ImageNet-C. These are the published
      parameters with Kornia's operators: results are not comparable with published mCE.

    Args:
        name: one of the four.
        small: for "corruptions", the milder levels of CIFAR-C, for images of about 32 pixels.
        exclude: names of ladders to leave out.

    Returns:
        A mapping of an augmentation's name to its ladder, as `AugmentationBank` takes it.

    Raises:
        ValueError: for another name, `small` with another preset, or an excluded name that the preset doesn't have.

    Source:
        Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, ICLR
        2019; the levels as in make_imagenet_c.py and make_cifar_c.py of the authors' repository hendrycks/robustness.

    Example:
        >>> sum(len(ladder) for ladder in preset_ladders("default").values())
        19
    """
    if small and name != "corruptions":
        raise ValueError(f"small=True chooses the levels of CIFAR-C; preset {name!r} has no such levels")
    if name == "corruptions":
        return _without(_corruptions(small=small), exclude, preset=name)
    if name not in _PRESETS:
        raise ValueError(_no_preset(name))
    ladders = {augmentation: build() for augmentation, build in _PRESETS[name].items()}
    return _without(ladders, exclude, preset=name)


def check_layout(name: str, layout: ImageLayout) -> None:
    """Raise where the images are volumes, for which the presets have nothing."""
    if layout is VOLUME:
        raise ValueError(
            f"preset {name!r} is 2-D and can't augment volumes; write AugmentationBank({{'flip': "
            "K.RandomHorizontalFlip3D(p=1.0)}, layout='volume'), with Kornia's 3-D classes or callables"
        )


def _without(
    ladders: dict[str, Ladder | Extremes], exclude: str | Sequence[str], *, preset: str
) -> dict[str, Ladder | Extremes]:
    excluded_names = [exclude] if isinstance(exclude, str) else list(exclude)
    for excluded in excluded_names:
        if excluded not in ladders:
            raise ValueError(f"exclude: {unknown('augmentation', excluded, list(ladders), place=f'{preset} preset')}")
    return {name: ladder for name, ladder in ladders.items() if name not in excluded_names}


def _no_preset(name: object) -> str:
    known = [*_PRESETS, "corruptions"]
    near = near_names(name, known, most=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"no preset {name!r}; there are {listed(known)}{hint}"


def _corruptions(*, small: bool) -> dict[str, Ladder | Extremes]:
    levels = _CIFAR_C if small else _IMAGENET_C
    return {augmentation: _CORRUPTIONS[augmentation](magnitudes) for augmentation, magnitudes in levels.items()}
