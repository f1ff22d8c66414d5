import pytest
import torch

from kornia_lightning_probe import presets


@pytest.mark.parametrize(
    ("ladder", "severities"),
    [
        (presets.brightness((-0.1, 0.2)), [0.1, 0.2]),
        (presets.darken(), [0.1, 0.2, 0.3]),
        (presets.contrast((0.5, 1.2)), [0.2, 0.5]),
        (presets.saturation((0.0,)), [1]),
        (presets.gamma((1.25, 2)), [0.25, 1]),
        (presets.solarize((0.9, 0.5)), [0.1, 0.5]),
        (presets.posterize((5, 3)), [3, 5]),
        (presets.jpeg((80, 20)), [20, 80]),
        (presets.hue((-0.1,)), [0.1]),
    ],
)
def test_a_severity_is_the_distance_from_the_identity_in_ascending_order(ladder, severities):
    assert list(ladder) == severities


@pytest.mark.parametrize(
    ("build", "at", "severity", "expected"),
    [
        (presets.brightness, (-0.1,), 0.1, 0.3),
        (presets.gamma, (2.0,), 1.0, 0.16),
        (presets.solarize, (0.25,), 0.75, 0.6),
        # 0.4 is 102 = 0b01100110 of 255; its three highest bits are 96.
        (presets.posterize, (3,), 5.0, 96 / 255),
        (presets.brightness_value, (0.3,), 0.3, 0.7),
    ],
)
def test_a_magnitude_is_pinned_to_what_was_asked_for(build, at, severity, expected):
    images = torch.full((4, 1, 8, 8), 0.4)
    torch.testing.assert_close(build(at)[severity](images), torch.full_like(images, expected), rtol=0, atol=1e-3)


def test_erasing_paints_the_fraction_of_the_area():
    erased = presets.erasing((0.0625,))[0.0625](torch.zeros(5, 1, 32, 32))
    # A sixteenth of 32 x 32 is a square of 8 x 8.
    assert (erased == 0.5).sum((1, 2, 3)).tolist() == [64] * 5


@pytest.mark.parametrize("factors", [(1,), (float("nan"),), (0.5, float("inf"))])
def test_a_level_that_is_the_identity_or_no_number_is_an_error(factors):
    with pytest.raises(ValueError, match="A level must differ from the identity: severity"):
        presets.contrast(factors)


def test_two_levels_of_one_severity_are_an_error():
    with pytest.raises(ValueError, match=r"Two levels have the severity 0.2: give each direction a ladder"):
        presets.contrast((0.8, 1.2))


def test_a_ladder_without_levels_is_an_error():
    with pytest.raises(ValueError, match="at least one level"):
        presets.rotation(())
