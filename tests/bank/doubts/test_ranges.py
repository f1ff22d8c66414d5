"""Ladders that name a number where Kornia draws from a range."""

import kornia.augmentation as K  # noqa: N812
import pytest

from kornia_lightning_probe import presets
from kornia_lightning_probe.bank.doubts.ranges import range_behind
from kornia_lightning_probe.bank.views import read_views


def _found(entry):
    return [range_behind(view) for view in read_views({"it": entry})]


@pytest.mark.parametrize(
    ("entry", "name", "low", "high"),
    [
        ({15: K.RandomRotation(15.0)}, "degrees", -15, 15),
        ({10: K.RandomShear(10.0)}, "shear_x", -10, 10),
        ({0.1: K.RandomAffine(0.0, translate=(0.1, 0.1))}, "translate_x", -0.1, 0.1),
        ({0.2: K.ColorJitter(0.2, 0.2, 0.2, 0.1)}, "brightness", 0.8, 1.2),
        ({30: K.RandomJPEG(30.0)}, "jpeg_quality", 20, 80),
        ({3: K.RandomPosterize(3)}, "bit", 3, 8),
        ({0.1: K.RandomSolarize(0.1, 0.0)}, "thresholds", 0.4, 0.6),
        ({15: K.RandomRotation3D(15.0)}, "yaw", -15, 15),
        # These keep the range alone, so that nobody can tell whether it was written as one number.
        ({0.1: K.RandomHue(0.1)}, "hue_factor", -0.1, 0.1),
        ({0.2: K.RandomBrightness(0.2)}, "brightness_factor", 0.8, 1.2),
        ({0.2: K.RandomContrast(0.2)}, "contrast_factor", 0.8, 1.2),
        ({0.5: K.RandomSaturation(0.5)}, "saturation_factor", 0.5, 1.5),
        ({15: K.AugmentationSequential(K.RandomRotation(15.0), data_keys=["input"])}, "degrees", -15, 15),
    ],
)
def test_a_single_number_that_kornia_takes_for_a_range_is_found(entry, name, low, high):
    (found,) = _found(entry)
    assert (found.name, found.low, found.high) == (name, pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize(
    "entry",
    [
        {15: K.RandomRotation((15.0, 15.0))},
        # Who writes both ends knows.
        {15: K.RandomRotation((-15.0, 15.0))},
        # No number is named.
        K.RandomRotation(15.0),
        [K.RandomRotation(1.0)],
        {0: K.RandomRotation(15.0)},
        # Corners move by chance, and there is no other perspective.
        {0.3: K.RandomPerspective(0.3)},
        {0.1: K.RandomErasing((0.1, 0.1))},
        {1: K.RandomErasing((0.1, 0.1))},
        {0.1: K.RandomGaussianNoise(std=0.1)},
        {2: abs},
        {0.1: K.RandomHue((0.1, 0.1))},
        {0.2: K.RandomBrightness((1.2, 1.2))},
        {0.2: K.RandomContrast((0.8, 0.8))},
        # A range of that width is named by no number here.
        {2: K.RandomGamma((0.5, 2.0))},
    ],
)
def test_what_is_pinned_or_names_no_number_is_not(entry):
    assert _found(entry) == [None]


def test_no_ready_made_ladder_is_a_range_even_as_a_plain_dict():
    names = [name for name in presets.__all__ if name not in ("NEEDS_RGB", "preset_ladders")]
    for name in names:
        ladder = getattr(presets, name)()
        assert _found(dict(ladder)) == [None] * len(ladder)
