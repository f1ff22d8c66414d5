"""Ready-made severity ladders, and the presets that gather them.

A ladder maps a severity, the distance from the identity in the unit that its docstring names, to an augmentation whose
magnitude is pinned. Directions (left or right, where to erase) are drawn for each image; a bank seeds every level
alike, so that one image goes the same way on all of them.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import kornia.augmentation as K  # noqa: N812 - the name that Kornia's own documentation uses
from torch import nn

from kornia_lightning_probe.bank import operators
from kornia_lightning_probe.bank.views import Ladder

#: Ladders whose operators need images of 3 channels.
NEEDS_RGB = frozenset({"saturation", "hue", "jpeg"})


def hflip() -> Ladder:
    """Mirror left and right: one level, severity 1."""
    return _ladder([(1.0, K.RandomHorizontalFlip(p=1.0))])


def vflip() -> Ladder:
    """Mirror top and bottom: one level, severity 1."""
    return _ladder([(1.0, K.RandomVerticalFlip(p=1.0))])


def rotation(degrees: Sequence[float] = (5, 15, 30)) -> Ladder:
    """Rotate about the centre, to the left or to the right.

    Args:
        degrees: the angles, which are the severities.

    Example:
        >>> list(rotation((10, 45)))
        [10.0, 45.0]
    """
    return _ladder((angle, operators.SignedRotation(angle)) for angle in degrees)


def translation(fractions: Sequence[float] = (0.02, 0.05, 0.10)) -> Ladder:
    """Move along both axes, forwards or backwards on each.

    Args:
        fractions: of the width along x and of the height along y, which are the severities.
    """
    return _ladder((fraction, operators.SignedTranslation(fraction)) for fraction in fractions)


def scale(changes: Sequence[float] = (0.1, 0.2, 0.3)) -> Ladder:
    """Enlarge or shrink about the centre, by the factor 1 + change or 1 - change.

    Args:
        changes: |factor - 1|, in (0, 1), which are the severities.
    """
    return _ladder((change, operators.SignedScale(change)) for change in changes)


def shear(degrees: Sequence[float] = (5, 10, 20)) -> Ladder:
    """Shear along x, to the left or to the right.

    Args:
        degrees: the angles by which a vertical line tilts, which are the severities.
    """
    return _ladder((angle, operators.SignedShear(angle)) for angle in degrees)


def perspective(distortions: Sequence[float] = (0.1, 0.2, 0.4)) -> Ladder:
    """Change the point of view: each corner moves inwards by a random distance.

    Args:
        distortions: in (0, 1], which are the severities; a corner moves by up to half of this fraction of each side.
    """
    return _ladder((distortion, K.RandomPerspective(float(distortion), p=1.0)) for distortion in distortions)


def elastic(displacements: Sequence[float] = (0.01, 0.02, 0.04)) -> Ladder:
    """Warp by a smooth random field.

    Args:
        displacements: root mean square of the displacement along one axis, as a fraction of that axis, which are the
            severities.
    """
    return _ladder((displacement, operators.PinnedElastic(displacement)) for displacement in displacements)


def gaussian_blur(fractions: Sequence[float] = (0.005, 0.01, 0.02)) -> Ladder:
    """Blur with a Gaussian.

    Args:
        fractions: standard deviation as a fraction of the shorter side, which are the severities.
    """
    return _ladder((fraction, operators.PinnedGaussianBlur(fraction, relative=True)) for fraction in fractions)


def gaussian_blur_pixels(sigmas: Sequence[float] = (1, 2, 3, 4, 6)) -> Ladder:
    """Blur with a Gaussian whose width doesn't depend on the size of the images.

    Args:
        sigmas: standard deviations in pixels, which are the severities.
    """
    return _ladder((sigma, operators.PinnedGaussianBlur(sigma)) for sigma in sigmas)


def motion_blur(fractions: Sequence[float] = (0.02, 0.05, 0.10)) -> Ladder:
    """Smear along a line, in a direction drawn for each image.

    Args:
        fractions: length of the line as a fraction of the shorter side, which are the severities.
    """
    return _ladder((fraction, operators.PinnedMotionBlur(fraction)) for fraction in fractions)


def gaussian_noise(sigmas: Sequence[float] = (0.02, 0.05, 0.10)) -> Ladder:
    """Add Gaussian noise, limited to [0, 1] afterwards.

    Args:
        sigmas: standard deviations, where white is 1, which are the severities.
    """
    return _ladder((sigma, operators.ClampedGaussianNoise(sigma)) for sigma in sigmas)


def brightness(offsets: Sequence[float] = (0.1, 0.2, 0.3)) -> Ladder:
    """Add to every pixel, limited to [0, 1].

    Args:
        offsets: in [-1, 1], where white is 1; the severities are |offset|.
    """
    return _ladder((abs(offset), K.RandomBrightness((1.0 + offset, 1.0 + offset))) for offset in offsets)


def darken(offsets: Sequence[float] = (-0.1, -0.2, -0.3)) -> Ladder:
    """Subtract from every pixel, limited to [0, 1].

    Args:
        offsets: in [-1, 0), where white is 1; the severities are |offset|.

    Raises:
        ValueError: for an offset that is not negative.
    """
    if any(offset >= 0 for offset in offsets):
        raise ValueError(f"darken takes negative offsets, such as (-0.1, -0.2), got {tuple(offsets)}; see brightness")
    return brightness(offsets)


def brightness_value(offsets: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5)) -> Ladder:
    """Add to V of hue, saturation and value, limited to [0, 1].

    Args:
        offsets: where white is 1; the severities are |offset|.
    """
    return _ladder((abs(offset), operators.PinnedValue(offset)) for offset in offsets)


def contrast(factors: Sequence[float] = (0.8, 0.6, 0.4)) -> Ladder:
    """Move every pixel towards the image's mean grey (below 1), or away from it.

    Args:
        factors: at least 0, 1 is the identity; the severities are |factor - 1|.
    """
    return _ladder((_distance(factor, 1.0), operators.PinnedContrast(factor)) for factor in factors)


def saturation(factors: Sequence[float] = (0.75, 0.5, 0.25)) -> Ladder:
    """Take colour away (below 1) or add it; needs 3 channels.

    Args:
        factors: at least 0, 1 is the identity; the severities are |factor - 1|.
    """
    return _ladder((_distance(factor, 1.0), K.RandomSaturation((factor, factor))) for factor in factors)


def hue(turns: Sequence[float] = (0.05, 0.1, 0.2)) -> Ladder:
    """Turn the colour circle; needs 3 channels.

    Args:
        turns: in [-0.5, 0.5], fractions of the circle; the severities are |turn|.
    """
    return _ladder((abs(turn), K.RandomHue((turn, turn))) for turn in turns)


def gamma(exponents: Sequence[float] = (1.25, 1.5, 2.0)) -> Ladder:
    """Raise every pixel to a power, which darkens above 1.

    Args:
        exponents: positive, 1 is the identity; the severities are |exponent - 1|.
    """
    return _ladder((_distance(exponent, 1.0), K.RandomGamma((exponent, exponent))) for exponent in exponents)


def solarize(thresholds: Sequence[float] = (0.9, 0.75, 0.5)) -> Ladder:
    """Invert the pixels that are brighter than a threshold.

    Args:
        thresholds: in [0, 1), where white is 1; the severities are 1 - threshold.
    """
    return _ladder(
        (_distance(threshold, 1.0), K.RandomSolarize((threshold, threshold), (0.0, 0.0), p=1.0))
        for threshold in thresholds
    )


def posterize(bits: Sequence[int] = (5, 4, 3)) -> Ladder:
    """Keep the highest bits of 8.

    Args:
        bits: whole numbers from 0 to 7; the severities are 8 - bits.
    """
    return _ladder((_distance(kept, 8.0), K.RandomPosterize((kept, kept), p=1.0)) for kept in bits)


def jpeg(qualities: Sequence[float] = (80, 50, 20)) -> Ladder:
    """Compress as JPEG; needs 3 channels. Severity 0 would not quite be the identity.

    Args:
        qualities: from 1 to 99; the severities are 100 - quality.
    """
    return _ladder((_distance(quality, 100.0), K.RandomJPEG((float(quality),) * 2)) for quality in qualities)


def erasing(fractions: Sequence[float] = (0.02, 0.05, 0.10)) -> Ladder:
    """Paint a square mid-grey, at a place drawn for each image.

    Args:
        fractions: of the image's area, which are the severities.
    """
    return _ladder(
        (fraction, K.RandomErasing((fraction, fraction), (1.0, 1.0), value=0.5, p=1.0)) for fraction in fractions
    )


def preset_ladders(name: str = "default", *, small: bool = False) -> dict[str, Ladder]:
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

    Returns:
        A mapping of an augmentation's name to its ladder, as `AugmentationBank` takes it.

    Raises:
        ValueError: for another name, or `small` with another preset.

    Source:
        Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, ICLR
        2019; the levels as in make_imagenet_c.py and make_cifar_c.py of the authors' repository hendrycks/robustness.

    Example:
        >>> sum(len(ladder) for ladder in preset_ladders("default").values())
        19
    """
    if small and name != "corruptions":
        raise ValueError(f"small=True chooses the levels of CIFAR-C; preset {name!r} has no such levels.")
    if name == "corruptions":
        return _corruptions(small=small)
    if name not in _PRESETS:
        raise ValueError(f"No preset {name!r}; there are {', '.join([*_PRESETS, 'corruptions'])}.")
    return {augmentation: build() for augmentation, build in _PRESETS[name].items()}


_PRESETS: dict[str, dict[str, Callable[[], Ladder]]] = {
    "default": {
        "hflip": hflip,
        "rotation": rotation,
        "translation": translation,
        "blur": gaussian_blur,
        "noise": gaussian_noise,
        "darken": darken,
        "contrast": contrast,
    },
    "photometric": {
        "blur": gaussian_blur,
        "motion_blur": motion_blur,
        "noise": gaussian_noise,
        "brighten": brightness,
        "darken": darken,
        "contrast": contrast,
        "saturation": saturation,
        "hue": hue,
        "gamma": gamma,
        "solarize": solarize,
        "posterize": posterize,
        "jpeg": jpeg,
        "erasing": erasing,
    },
    "geometric": {
        "hflip": hflip,
        "vflip": vflip,
        "rotation": rotation,
        "translation": translation,
        "scale": scale,
        "shear": shear,
        "perspective": perspective,
        "elastic": elastic,
    },
}


def _corruptions(*, small: bool) -> dict[str, Ladder]:
    return {
        "noise": gaussian_noise((0.04, 0.06, 0.08, 0.09, 0.10) if small else (0.08, 0.12, 0.18, 0.26, 0.38)),
        "blur": gaussian_blur_pixels((0.4, 0.6, 0.7, 0.8, 1.0) if small else (1, 2, 3, 4, 6)),
        "contrast": contrast((0.75, 0.5, 0.4, 0.3, 0.15) if small else (0.4, 0.3, 0.2, 0.1, 0.05)),
        "brightness": brightness_value((0.05, 0.1, 0.15, 0.2, 0.3) if small else (0.1, 0.2, 0.3, 0.4, 0.5)),
        "jpeg": jpeg((80, 65, 58, 50, 40) if small else (25, 18, 15, 10, 7)),
    }


def _distance(magnitude: float, identity: float) -> float:
    # 1 - 0.8 is 0.19999999999999996, which no label should show.
    return round(abs(magnitude - identity), 9)


def _ladder(levels: Iterable[tuple[float, nn.Module]]) -> Ladder:
    ladder = Ladder()
    for severity, augmentation in levels:
        if not (math.isfinite(severity) and severity > 0):
            raise ValueError(f"A level must differ from the identity: severity {severity} isn't a positive number.")
        if severity in ladder:
            raise ValueError(f"Two levels have the severity {severity:g}: give each direction a ladder of its own.")
        ladder[float(severity)] = augmentation
    if not ladder:
        raise ValueError("A ladder needs at least one level.")
    return Ladder(sorted(ladder.items()))
