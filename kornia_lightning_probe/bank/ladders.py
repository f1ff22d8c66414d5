"""Ready-made severity ladders.

A ladder maps a severity, the distance from the identity in the unit that its docstring names, to an augmentation whose
magnitude is pinned. Directions (left or right, where to erase) are drawn for each image; a bank seeds every level
alike, so that one image goes the same way on all of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Literal

import kornia.augmentation as K  # noqa: N812 - the name that Kornia's own documentation uses
from torch import nn

from kornia_lightning_probe.bank import operators
from kornia_lightning_probe.bank.views import Extremes, Ladder

_DEGREES = "degrees"


def hflip() -> Ladder:
    """Mirror left and right: one level, severity 1."""
    return _ladder([1.0], lambda _: K.RandomHorizontalFlip(p=1.0))


def vflip() -> Ladder:
    """Mirror top and bottom: one level, severity 1."""
    return _ladder([1.0], lambda _: K.RandomVerticalFlip(p=1.0))


def rotation(degrees: Sequence[float] = (5, 15, 30), *, ends: Literal["drawn", "both"] = "drawn") -> Ladder | Extremes:
    """Rotate about the centre, to the left or to the right.

    Args:
        degrees: the angles, which are the severities.
        ends: "drawn" draws a side for each image. "both" shows each image turned to either side, under signed
            severities (to the left above 0), for the worst of them, `worst` in `ProbeResult.severity()`; these are no
            curve from the identity.

    Raises:
        ValueError: for another word.

    Example:
        >>> list(rotation((10, 45))), list(rotation((10, 45), ends="both"))
        ([10.0, 45.0], [-45.0, -10.0, 10.0, 45.0])
    """
    if ends not in ("drawn", "both"):
        raise ValueError(f"ends is 'drawn' or 'both', got {ends!r}")
    ladder = _ladder(degrees, operators.SignedRotation, unit=_DEGREES)
    if ends == "drawn":
        return ladder
    angles = sorted([*ladder, *(-angle for angle in ladder)])
    both = Extremes({angle: operators.PinnedPose(angle) for angle in angles})
    both.unit = _DEGREES
    return both


def corners(rotation: float = 30, translation: float = 0.1) -> Extremes:
    """Every corner, edge and face of a box of rotations and moves, without its centre: 26 views, for the worst of them.

    Args:
        rotation: degrees to either side.
        translation: fraction of the width to the left and right, of the height up and down.

    Returns:
        The views by the numbers 1 to 26, which are no severities: rotation changes slowest, then right, then down, each
        from its negative to its positive end. `worst` in `ProbeResult.severity()` takes each image at its own worst.

    Raises:
        ValueError: for an end that isn't a positive number.

    Example:
        >>> len(corners())
        26
    """
    for end in (rotation, translation):
        _check_severity(float(end), {})
    steps = itertools.product((-1, 0, 1), repeat=3)
    moved = [step for step in steps if any(step)]
    poses = [
        operators.PinnedPose(turn * float(rotation), right=right * translation, down=down * translation)
        for turn, right, down in moved
    ]
    return Extremes({float(number): pose for number, pose in enumerate(poses, start=1)})


def translation(fractions: Sequence[float] = (0.02, 0.05, 0.10)) -> Ladder:
    """Move along both axes, forwards or backwards on each.

    Args:
        fractions: of the width along x and of the height along y, which are the severities.
    """
    return _ladder(fractions, operators.SignedTranslation, unit="of the side")


def scale(changes: Sequence[float] = (0.1, 0.2, 0.3)) -> Ladder:
    """Enlarge or shrink about the centre, by the factor 1 + change or 1 - change.

    Args:
        changes: |factor - 1|, in (0, 1), which are the severities.
    """
    return _ladder(changes, operators.SignedScale, unit="|factor - 1|")


def shear(degrees: Sequence[float] = (5, 10, 20)) -> Ladder:
    """Shear along x, to the left or to the right.

    Args:
        degrees: the angles by which a vertical line tilts, which are the severities.
    """
    return _ladder(degrees, operators.SignedShear, unit=_DEGREES)


def perspective(distortions: Sequence[float] = (0.1, 0.2, 0.4)) -> Ladder:
    """Change the point of view: each corner moves inwards by a random distance.

    Args:
        distortions: in (0, 1], which are the severities; a corner moves by up to half of this fraction of each side.
    """
    return _ladder(distortions, lambda distortion: K.RandomPerspective(float(distortion), p=1.0), unit="of the side")


def elastic(displacements: Sequence[float] = (0.01, 0.02, 0.04)) -> Ladder:
    """Warp by a smooth random field.

    Args:
        displacements: root mean square of the displacement along one axis, as a fraction of that axis, which are the
            severities.
    """
    return _ladder(displacements, operators.PinnedElastic, unit="of the side")


def gaussian_blur(fractions: Sequence[float] = (0.005, 0.01, 0.02)) -> Ladder:
    """Blur with a Gaussian.

    Args:
        fractions: standard deviation as a fraction of the shorter side, which are the severities.
    """
    return _ladder(
        fractions, lambda fraction: operators.PinnedGaussianBlur(fraction, relative=True), unit="of the side"
    )


def gaussian_blur_pixels(sigmas: Sequence[float] = (1, 2, 3, 4, 6)) -> Ladder:
    """Blur with a Gaussian whose width doesn't depend on the size of the images.

    Args:
        sigmas: standard deviations in pixels, which are the severities.
    """
    return _ladder(sigmas, operators.PinnedGaussianBlur, unit="pixels")


def motion_blur(fractions: Sequence[float] = (0.02, 0.05, 0.10)) -> Ladder:
    """Smear along a line, in a direction drawn for each image.

    Args:
        fractions: length of the line as a fraction of the shorter side, which are the severities. By the variance of
            what becomes of a point; below two pixels that of a tilted line is up to a fifth too long.
    """
    return _ladder(fractions, operators.PinnedMotionBlur, unit="of the side")


def gaussian_noise(sigmas: Sequence[float] = (0.02, 0.05, 0.10)) -> Ladder:
    """Add Gaussian noise, limited to [0, 1] afterwards.

    Args:
        sigmas: standard deviations, where white is 1, which are the severities.
    """
    return _ladder(sigmas, operators.ClampedGaussianNoise, unit="sigma")


def brightness(offsets: Sequence[float] = (0.1, 0.2, 0.3)) -> Ladder:
    """Add to every pixel, limited to [0, 1].

    Args:
        offsets: in [-1, 1], where white is 1; the severities are |offset|.
    """
    return _ladder(offsets, lambda offset: K.RandomBrightness(_exactly(1.0 + offset)), identity=0.0, unit="of white")


def darken(offsets: Sequence[float] = (-0.1, -0.2, -0.3)) -> Ladder:
    """Subtract from every pixel, limited to [0, 1].

    Args:
        offsets: in [-1, 0), where white is 1; the severities are |offset|.

    Raises:
        ValueError: for an offset that is not negative.
    """
    if max(offsets, default=-1.0) >= 0:
        raise ValueError(f"darken takes negative offsets, such as (-0.1, -0.2), got {tuple(offsets)}; see brightness")
    return brightness(offsets)


def brightness_value(offsets: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5)) -> Ladder:
    """Add to V of hue, saturation and value, limited to [0, 1].

    Args:
        offsets: where white is 1; the severities are |offset|.
    """
    return _ladder(offsets, operators.PinnedValue, identity=0.0, unit="of white")


def contrast(factors: Sequence[float] = (0.8, 0.6, 0.4)) -> Ladder:
    """Move every pixel towards the image's mean grey (below 1), or away from it; see :func:`contrast_per_channel`.

    Args:
        factors: at least 0, 1 is the identity; the severities are |factor - 1|.
    """
    return _ladder(factors, operators.PinnedContrast, identity=1.0, unit="|factor - 1|")


def contrast_per_channel(factors: Sequence[float] = (0.4, 0.3, 0.2, 0.1, 0.05)) -> Ladder:
    """Move every pixel towards the mean of its channel (below 1), or away from it, as ImageNet-C does.

    A cast of colour stays, so on photographs it is milder than :func:`contrast`, which takes colour away as well.

    Args:
        factors: at least 0, 1 is the identity; the severities are |factor - 1|.
    """
    return _ladder(
        factors, lambda factor: operators.PinnedContrast(factor, per_channel=True), identity=1.0, unit="|factor - 1|"
    )


def saturation(factors: Sequence[float] = (0.75, 0.5, 0.25)) -> Ladder:
    """Take colour away (below 1) or add it; needs 3 channels.

    Args:
        factors: at least 0, 1 is the identity; the severities are |factor - 1|.
    """
    return _ladder(factors, lambda factor: K.RandomSaturation(_exactly(factor)), identity=1.0, unit="|factor - 1|")


def hue(turns: Sequence[float] = (0.05, 0.1, 0.2)) -> Ladder:
    """Turn the colour circle; needs 3 channels.

    Args:
        turns: in [-0.5, 0.5], fractions of the circle; the severities are |turn|.
    """
    return _ladder(turns, lambda turn: K.RandomHue(_exactly(turn)), identity=0.0, unit="of the circle")


def gamma(exponents: Sequence[float] = (1.25, 1.5, 2.0)) -> Ladder:
    """Raise every pixel to a power, which darkens above 1.

    Args:
        exponents: positive, 1 is the identity; the severities are |exponent - 1|.
    """
    return _ladder(exponents, lambda exponent: K.RandomGamma(_exactly(exponent)), identity=1.0, unit="|exponent - 1|")


def solarize(thresholds: Sequence[float] = (0.9, 0.75, 0.5)) -> Ladder:
    """Invert the pixels that are brighter than a threshold.

    Args:
        thresholds: in [0, 1), where white is 1; the severities are 1 - threshold.
    """
    return _ladder(
        thresholds,
        lambda threshold: K.RandomSolarize(_exactly(threshold), _exactly(0.0), p=1.0),
        identity=1.0,
        unit="1 - threshold",
    )


def posterize(bits: Sequence[int] = (5, 4, 3)) -> Ladder:
    """Keep the highest bits of 8.

    Args:
        bits: whole numbers from 0 to 7; the severities are 8 - bits.
    """
    return _ladder(bits, lambda kept: K.RandomPosterize((kept, kept), p=1.0), identity=8.0, unit="8 - bits")


def jpeg(qualities: Sequence[float] = (80, 50, 20)) -> Ladder:
    """Compress as JPEG; needs 3 channels. Severity 0 would not quite be the identity.

    Kornia's differentiable codec loses 5 to 9 % less than PIL's at the same quality (root mean square on photographs).

    Args:
        qualities: from 1 to 99; the severities are 100 - quality.
    """
    return _ladder(qualities, lambda quality: K.RandomJPEG(_exactly(quality)), identity=100.0, unit="100 - quality")


def erasing(fractions: Sequence[float] = (0.02, 0.05, 0.10)) -> Ladder:
    """Paint a square mid-grey, at a place drawn for each image.

    Args:
        fractions: of the image's area, which are the severities.
    """
    return _ladder(
        fractions,
        lambda fraction: K.RandomErasing(_exactly(fraction), _exactly(1.0), value=0.5, p=1.0),
        unit="of the area",
    )


def _exactly(magnitude: float) -> tuple[float, float]:
    """The range that holds one magnitude, as Kornia's classes take it."""
    number = float(magnitude)
    return number, number


def _ladder(
    magnitudes: Iterable[Any], build: Callable[[Any], nn.Module], *, identity: float | None = None, unit: str = ""
) -> Ladder:
    """Build a ladder whose severities are the magnitudes, or their distances from that of the identity."""
    ladder = Ladder()
    for magnitude in magnitudes:
        severity = float(magnitude)
        if identity is not None:
            # 1 - 0.8 is 0.19999999999999996, which no label should show.
            severity = round(abs(severity - identity), 9)
        _check_severity(severity, ladder)
        ladder[severity] = build(magnitude)
    if not ladder:
        raise ValueError("A ladder needs at least one level")
    ordered = Ladder(sorted(ladder.items()))
    ordered.unit = unit
    return ordered


def _check_severity(severity: float, ladder: Collection[float]) -> None:
    if not math.isfinite(severity) or severity <= 0:
        raise ValueError(f"A level must differ from the identity: severity {severity:g} isn't a positive number")
    if severity in ladder:
        raise ValueError(f"Two levels have the severity {severity:g}: give each direction a ladder of its own")
