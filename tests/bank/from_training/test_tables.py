"""Each row of the table of Kornia's classes: what is drawn is what the row says."""

import kornia.augmentation as K  # noqa: N812
import pytest
import torch
from torch import nn

from kornia_lightning_probe import AugmentationBank
from kornia_lightning_probe.bank.from_training import tables
from kornia_lightning_probe.bank.from_training.pins import look_up, range_of

SIDE = 30
GENERATOR = "_param_generator."
PLAIN = "_param_generator.sampler_dict."
OFF = (1.0, 1.0)

# Class and place of a row; one made with a range of this magnitude alone; what tells how far it is from the identity;
# and how far that is at a third, two thirds and the whole of the range, by hand.
ROWS = [
    ("RandomRotation", f"{PLAIN}degrees", K.RandomRotation(30.0), lambda drawn: drawn["degrees"], (10, 20, 30)),
    ("RandomAffine", f"{GENERATOR}degree_sampler", K.RandomAffine(30.0), lambda drawn: drawn["angle"], (10, 20, 30)),
    (
        "RandomAffine",
        f"{GENERATOR}translate_x_sampler",
        K.RandomAffine(0.0, translate=(0.3, 0.0)),
        lambda drawn: drawn["translations"][:, 0] / SIDE,
        (0.1, 0.2, 0.3),
    ),
    (
        "RandomAffine",
        f"{GENERATOR}translate_y_sampler",
        K.RandomAffine(0.0, translate=(0.0, 0.3)),
        lambda drawn: drawn["translations"][:, 1] / SIDE,
        (0.1, 0.2, 0.3),
    ),
    (
        "RandomAffine",
        f"{GENERATOR}scale_2_sampler",
        K.RandomAffine(0.0, scale=(0.7, 1.3)),
        lambda drawn: drawn["scale"] - 1,
        (0.1, 0.2, 0.3),
    ),
    (
        "RandomAffine",
        f"{GENERATOR}scale_4_sampler",
        K.RandomAffine(0.0, scale=(1.0, 1.0, 0.7, 1.3)),
        lambda drawn: drawn["scale"][:, 1] - 1,
        (0.1, 0.2, 0.3),
    ),
    (
        "RandomAffine",
        f"{GENERATOR}shear_x_sampler",
        K.RandomAffine(0.0, shear=(-30.0, 30.0, 0.0, 0.0)),
        lambda drawn: drawn["shear_x"],
        (10, 20, 30),
    ),
    (
        "RandomAffine",
        f"{GENERATOR}shear_y_sampler",
        K.RandomAffine(0.0, shear=(0.0, 0.0, -30.0, 30.0)),
        lambda drawn: drawn["shear_y"],
        (10, 20, 30),
    ),
    (
        "RandomShear",
        f"{GENERATOR}shear_x_sampler",
        K.RandomShear((-30.0, 30.0, 0.0, 0.0)),
        lambda drawn: drawn["shear_x"],
        (10, 20, 30),
    ),
    (
        "RandomShear",
        f"{GENERATOR}shear_y_sampler",
        K.RandomShear((0.0, 0.0, -30.0, 30.0)),
        lambda drawn: drawn["shear_y"],
        (10, 20, 30),
    ),
    (
        "RandomTranslate",
        f"{GENERATOR}translate_x_sampler",
        K.RandomTranslate((-0.3, 0.3), None),
        lambda drawn: drawn["translate_x"] / SIDE,
        (0.1, 0.2, 0.3),
    ),
    (
        "RandomTranslate",
        f"{GENERATOR}translate_y_sampler",
        K.RandomTranslate(None, (-0.3, 0.3)),
        lambda drawn: drawn["translate_y"] / SIDE,
        (0.1, 0.2, 0.3),
    ),
    ("RandomErasing", f"{GENERATOR}scale_sampler", K.RandomErasing((0.04, 0.36), OFF), None, (0.12, 0.24, 0.36)),
    *[
        (
            name,
            f"{GENERATOR}{factor}_sampler",
            getattr(K, name)(**{factor: 0.3}),
            lambda drawn, key=f"{factor}_factor", identity=float(factor != "hue"): drawn[key] - identity,
            (0.1, 0.2, 0.3),
        )
        for name in ("ColorJiggle", "ColorJitter")
        for factor in ("brightness", "contrast", "saturation", "hue")
    ],
    (
        "RandomBrightness",
        f"{PLAIN}brightness_factor",
        K.RandomBrightness((0.7, 1.3)),
        lambda drawn: drawn["brightness_factor"] - 1,
        (0.1, 0.2, 0.3),
    ),
    (
        "RandomContrast",
        f"{PLAIN}contrast_factor",
        K.RandomContrast((0.7, 1.3)),
        lambda drawn: drawn["contrast_factor"] - 1,
        (0.1, 0.2, 0.3),
    ),
    (
        "RandomSaturation",
        f"{PLAIN}saturation_factor",
        K.RandomSaturation((0.7, 1.3)),
        lambda drawn: drawn["saturation_factor"] - 1,
        (0.1, 0.2, 0.3),
    ),
    ("RandomHue", f"{PLAIN}hue_factor", K.RandomHue((-0.3, 0.3)), lambda drawn: drawn["hue_factor"], (0.1, 0.2, 0.3)),
    (
        "RandomGamma",
        f"{PLAIN}gamma_factor",
        K.RandomGamma((0.7, 1.3)),
        lambda drawn: drawn["gamma_factor"] - 1,
        (0.1, 0.2, 0.3),
    ),
    (
        "RandomGamma",
        f"{PLAIN}gain_factor",
        K.RandomGamma(OFF, (0.7, 1.3)),
        lambda drawn: drawn["gain_factor"] - 1,
        (0.1, 0.2, 0.3),
    ),
    # A number is a range from 0, and 1 leaves an image as it is.
    (
        "RandomSharpness",
        f"{PLAIN}sharpness",
        K.RandomSharpness((1.0, 4.0)),
        lambda drawn: drawn["sharpness"] - 1,
        (1, 2, 3),
    ),
    (
        "RandomPosterize",
        f"{GENERATOR}bit_sampler",
        K.RandomPosterize(5),
        lambda drawn: drawn["bits_factor"] - 8,
        (1, 2, 3),
    ),
    (
        "RandomSolarize",
        f"{PLAIN}thresholds",
        K.RandomSolarize((0.4, 1.0), (0.0, 0.0)),
        lambda drawn: drawn["thresholds"] - 1,
        (0.2, 0.4, 0.6),
    ),
    (
        "RandomSolarize",
        f"{PLAIN}additions",
        K.RandomSolarize(OFF, 0.3),
        lambda drawn: drawn["additions"],
        (0.1, 0.2, 0.3),
    ),
    *[
        (
            "RandomRGBShift",
            f"{PLAIN}{channel}_shift",
            K.RandomRGBShift(**({f"{other}_shift_limit": 0.0 for other in "rgb"} | {f"{channel}_shift_limit": 0.3})),
            lambda drawn, key=f"{channel}_shift": drawn[key],
            (0.1, 0.2, 0.3),
        )
        for channel in "rgb"
    ],
    # The identity is a width of 0, although nobody trains with less than 0.1.
    (
        "RandomGaussianBlur",
        f"{GENERATOR}sigma_sampler",
        K.RandomGaussianBlur((5, 5), (0.1, 1.5)),
        lambda drawn: drawn["sigma"],
        (0.5, 1.0, 1.5),
    ),
    (
        "RandomJPEG",
        f"{GENERATOR}jpeg_quality_sampler",
        K.RandomJPEG((40.0, 90.0)),
        lambda drawn: drawn["jpeg_quality"] - 100,
        (20, 40, 60),
    ),
    (
        "RandomGaussianNoise",
        f"{GENERATOR}mean",
        K.RandomGaussianNoise(0.3, 0.0),
        lambda drawn: drawn["gaussian_noise"],
        (0.1, 0.2, 0.3),
    ),
    (
        "RandomPlasmaBrightness",
        f"{PLAIN}intensity",
        K.RandomPlasmaBrightness(intensity=(0.0, 0.3)),
        lambda drawn: drawn["intensity"],
        (0.1, 0.2, 0.3),
    ),
    (
        "RandomPlasmaShadow",
        f"{PLAIN}shade_intensity",
        K.RandomPlasmaShadow(shade_intensity=(-0.3, 0.0)),
        lambda drawn: drawn["shade_intensity"],
        (0.1, 0.2, 0.3),
    ),
]

# Those whose magnitude limits something that is drawn anew for each pixel or corner: under one seed that something is a
# third, two thirds and all of what it is at the whole range.
PROPORTIONAL = [
    (
        "RandomPerspective",
        f"{GENERATOR}_distortion_scale",
        K.RandomPerspective(0.3),
        lambda drawn: drawn["end_points"] - drawn["start_points"],
        (0.1, 0.2, 0.3),
    ),
    (
        "RandomThinPlateSpline",
        "dist",
        K.RandomThinPlateSpline(0.3),
        lambda drawn: drawn["dst"] - drawn["src"],
        (0.1, 0.2, 0.3),
    ),
    (
        "RandomGaussianNoise",
        f"{GENERATOR}std",
        K.RandomGaussianNoise(0.0, 0.3),
        lambda drawn: drawn["gaussian_noise"],
        (0.1, 0.2, 0.3),
    ),
    *[
        (
            name,
            f"{GENERATOR}gain_sampler",
            getattr(K, name)(gain=(0.0, 0.3)),
            lambda drawn: drawn["gradient"],
            (0.1, 0.2, 0.3),
        )
        for name in ("RandomGaussianIllumination", "RandomLinearIllumination", "RandomLinearCornerIllumination")
    ],
]

# Those that are told by what becomes of the image.
OTHERWISE = {
    ("RandomErasing", f"{GENERATOR}scale_sampler"),
    ("RandomElasticTransform", "flags.alpha"),
    ("RandomResizedCrop", f"{GENERATOR}scale"),
    ("RandomSaltAndPepperNoise", f"{GENERATOR}amount_sampler"),
}


def name_of(row):
    return f"{row[0]}-{row[1].rpartition('.')[2]}"


def drawn_by(bank):
    """What each view but that of the whole pipeline draws for eight images, under one seed."""
    images = torch.rand(8, 3, SIDE, SIDE)
    for view in list(bank)[:-1]:
        torch.manual_seed(0)
        view.transform(images)
        yield view, view.transform._params


def test_every_row_has_a_test():
    rows = {(name, pin.place) for name, pins in tables.KORNIA.items() for pin in pins}
    assert {row[:2] for row in [*ROWS, *PROPORTIONAL]} | OTHERWISE == rows


@pytest.mark.parametrize("row", [row for row in ROWS if row[3] is not None], ids=name_of)
def test_what_is_drawn_is_a_third_two_thirds_and_all_of_the_way_from_the_identity(row):
    _, _, augmentation, distance, expected = row
    bank = AugmentationBank.from_training(nn.Sequential(augmentation))
    assert [view.severity for view in bank][:-1] == pytest.approx(list(expected))
    for view, drawn in drawn_by(bank):
        far = distance(drawn).abs().float()
        torch.testing.assert_close(far, torch.full_like(far, view.severity), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("row", PROPORTIONAL, ids=name_of)
def test_what_is_drawn_within_limits_shrinks_with_them(row):
    _, _, augmentation, change, expected = row
    bank = AugmentationBank.from_training(nn.Sequential(augmentation))
    assert [view.severity for view in bank][:-1] == pytest.approx(list(expected))
    first, second, whole = (change(drawn).clone() for _, drawn in drawn_by(bank))
    assert whole.abs().max() > 0
    torch.testing.assert_close(first * 3, whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(second * 3, whole * 2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("row", [*ROWS, *PROPORTIONAL], ids=name_of)
def test_the_rows_of_a_class_tell_which_magnitudes_are_used(row):
    name, place, augmentation, _, _ = row
    used = [pin.place for pin in tables.KORNIA[name] if range_of(augmentation, pin) is not None]
    # Scale in y is told apart from scale in x, which has no range of its own here.
    assert used == [place]
    assert look_up(augmentation, place) is not None


def test_erasing_paints_the_part_of_the_area():
    bank = AugmentationBank.from_training(nn.Sequential(K.RandomErasing((0.04, 0.36), OFF, value=0.0)))
    for view in list(bank)[:-1]:
        erased = bank.augment(view, torch.ones(8, 1, SIDE, SIDE), block=0).images[0] == 0
        # A square of side s sqrt(fraction), rounded to whole pixels: 10.4, 14.7 and 18.
        sides = {0.12: 10, 0.24: 15, 0.36: 18}
        assert set(erased.flatten(1).sum(dim=1).tolist()) == {sides[view.severity] ** 2}


def test_a_resized_crop_cuts_the_part_of_the_area():
    bank = AugmentationBank.from_training(nn.Sequential(K.RandomResizedCrop((SIDE, SIDE), (0.4, 1.0), OFF)))
    assert [view.severity for view in bank][:-1] == pytest.approx([0.2, 0.4, 0.6])
    for view in list(bank)[:-1]:
        view.transform(torch.rand(8, 3, SIDE, SIDE))
        corners = view.transform.transform[-1]._params["src"]
        widths = corners[:, 1, 0] - corners[:, 0, 0] + 1
        # sqrt(0.8), sqrt(0.6), sqrt(0.4) of 30 are 26.8, 23.2 and 19.0.
        assert set(widths.tolist()) == {{0.2: 27.0, 0.4: 23.0, 0.6: 19.0}[view.severity]}


def test_salt_and_pepper_fall_on_the_part_of_the_pixels():
    pepper = K.RandomSaltAndPepperNoise((0.1, 0.6), (0.5, 0.5))
    bank = AugmentationBank.from_training(nn.Sequential(pepper))
    for view in list(bank)[:-1]:
        changed = bank.augment(view, torch.full((8, 1, 100, 100), 0.5), block=0).images[0] != 0.5
        # Of 80000 pixels the share that changes has a standard error below 0.0018.
        assert float(changed.float().mean()) == pytest.approx(view.severity, abs=0.008)
    assert [view.severity for view in bank][:-1] == pytest.approx([0.2, 0.4, 0.6])


def test_an_elastic_field_is_shortened_to_the_part():
    bank = AugmentationBank.from_training(nn.Sequential(K.RandomElasticTransform(alpha=(0.3, 0.6))))
    alphas = [view.transform.flags["alpha"] for view in list(bank)[:-1]]
    # A third, two thirds and all of 0.3 along one axis and 0.6 along the other.
    assert [number for pair in alphas for number in pair] == pytest.approx([0.1, 0.2, 0.2, 0.4, 0.3, 0.6])
    assert [view.severity for view in bank][:-1] == pytest.approx([0.2, 0.4, 0.6])


def test_a_class_of_ones_own_has_the_rows_of_the_class_that_it_comes_from():
    class Turn(K.RandomRotation):
        pass

    assert tables.pins_of(Turn(3.0)) == tables.KORNIA["RandomRotation"]


def test_a_class_of_ones_own_that_is_only_called_like_one_has_no_rows():
    class RandomRotation(nn.Module):
        pass

    class Compose(nn.Module):
        transforms = ()

    assert tables.pins_of(RandomRotation()) == ()
    assert not tables.is_among(Compose(), tables.CONTAINERS)
