import pytest
import torch

from kornia_lightning_probe.bank.pixels import PixelScale

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def _raw(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def _normalised(raw: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(IMAGENET[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    return (raw - mean) / std


def test_a_loaders_normalisation_is_undone_and_redone():
    raw, scale = _raw(2, 3, 5, 4), PixelScale(**IMAGENET)
    images = _normalised(raw)
    unit = scale.to_unit(images)
    torch.testing.assert_close(unit, raw, rtol=0, atol=1e-6)
    torch.testing.assert_close(scale.from_unit(unit, dtype=torch.float32), images, rtol=0, atol=1e-6)


def test_a_value_range_is_mapped_to_zero_and_one():
    # A CT from -1000 to 3000: 0 is a quarter of the way.
    scale = PixelScale(value_range=(-1000, 3000))
    assert scale.to_unit(torch.zeros(1, 1, 1, 1)).item() == 0.25
    assert scale.from_unit(torch.full((1, 1, 1, 1), 0.25), dtype=torch.float64).item() == 0


def test_mean_and_std_are_in_units_of_the_value_range():
    # raw = 1 * 50 + 100 = 150, of (0, 200) that is 0.75.
    scale = PixelScale(mean=100, std=50, value_range=(0, 200))
    assert scale.to_unit(torch.ones(1, 2, 1, 1)).flatten().tolist() == [0.75, 0.75]


def test_raw_images_between_zero_and_one_come_back_bit_by_bit_and_not_in_place():
    raw, scale = _raw(2, 3, 5, 4), PixelScale()
    unit = scale.to_unit(raw)
    assert torch.equal(scale.from_unit(unit, dtype=torch.float32), raw)
    assert unit.data_ptr() != raw.data_ptr()


def test_numbers_may_come_as_a_tensor_and_one_number_serves_all_channels():
    assert PixelScale(mean=torch.tensor([0.5, 0.25])).mean == (0.5, 0.25)
    PixelScale(mean=0.5, std=0.5).check(torch.zeros(1, 7, 2, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_rounding_of_the_dtype_is_inside_the_range(dtype):
    white = _normalised(torch.ones(1, 3, 2, 2)).to(dtype)
    scale = PixelScale(**IMAGENET)
    scale.check(white)
    assert scale.to_unit(white).max() <= 1
    with pytest.raises(ValueError, match="outside value_range"):
        scale.check(white + 1)


@pytest.mark.parametrize("off", [-0.9e-4, 1 + 0.9e-4])
def test_a_ten_thousandth_of_the_range_is_tolerated_and_cut(off):
    images = torch.full((1, 1, 1, 1), off)
    PixelScale().check(images)
    assert 0 <= PixelScale().to_unit(images).item() <= 1


@pytest.mark.parametrize(
    ("options", "images", "text"),
    [
        ({}, torch.full((1, 3, 2, 2), 1.001), r"values from 1.001 to 1.001, outside value_range=\(0, 1\)"),
        ({}, _normalised(_raw(1, 3, 4, 4)), "if the loader normalises, pass its mean= and std=; these"),
        ({}, _raw(1, 3, 4, 4) * 255, r"pass value_range=\(0, 255\), or scale the images"),
        ({}, _raw(1, 3, 4, 4) * 4000, r"pass value_range=\(0, 4095\)"),
        ({}, _raw(1, 3, 4, 4) * 60000, r"pass value_range=\(0, 65535\)"),
        ({}, _raw(1, 3, 4, 4) * 4000 - 1000, r"pass value_range=\(lowest, highest\) of the raw images"),
        (IMAGENET, _normalised(_raw(1, 3, 4, 4)) * 2, "after undoing mean and std, outside.*really has"),
        ({"mean": 0.5, "std": 2.0}, _raw(1, 3, 4, 4), "if the loader doesn't normalise, leave mean and std out"),
    ],
)
def test_values_outside_say_what_was_found_and_what_to_pass(options, images, text):
    with pytest.raises(ValueError, match=text):
        PixelScale(**options).check(images)


def test_nan_and_infinite_pixels_name_their_rows():
    images = torch.zeros(20, 1, 2, 2)
    images[3, 0, 0, 1] = torch.nan
    images[5] = torch.inf
    with pytest.raises(ValueError, match=r"block 2: NaN or infinite pixels in 2 of 20 images \(rows 3, 5\)"):
        PixelScale().check(images, what="block 2")
    with pytest.raises(ValueError, match=r"rows 0, 1, 2, 3, 4, 5, 6, 7 and 12 more"):
        PixelScale().check(images * torch.nan)


def test_8_bit_images_are_told_how_to_convert():
    with pytest.raises(TypeError, match=r"got torch.uint8; convert 8-bit images with `images.float\(\) / 255` or"):
        PixelScale().check(torch.zeros(1, 3, 2, 2, dtype=torch.uint8))


def test_a_single_image_is_told_to_add_a_dimension():
    with pytest.raises(
        ValueError, match=r"shape \(B, C, H, W\), got \(3, 2, 2\); add a batch dimension .*images\[None\]"
    ):
        PixelScale().check(torch.zeros(3, 2, 2))
    with pytest.raises(ValueError, match=r"got \(2, 2\)$"):
        PixelScale().check(torch.zeros(2, 2))


def test_what_is_no_tensor_or_has_no_pixels_is_an_error():
    with pytest.raises(TypeError, match=r"must be a tensor of shape .*, got list"):
        PixelScale().check([0.0])
    with pytest.raises(ValueError, match=r"no pixels in a tensor of shape \(0, 3, 2, 2\)"):
        PixelScale().check(torch.zeros(0, 3, 2, 2))


@pytest.mark.parametrize("name", ["mean", "std"])
def test_statistics_of_another_number_of_channels_are_an_error(name):
    with pytest.raises(ValueError, match=f"images have 1 channels, but {name} has 3 values"):
        PixelScale(**{name: (0.5, 0.5, 0.5)}).check(torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"std": (0.2, 0.0)}, "std must be positive"),
        ({"std": -1.0}, "std must be positive"),
        ({"mean": float("nan")}, "mean must be one finite number"),
        ({"mean": ()}, "mean must be one finite number"),
        ({"value_range": (1, 1)}, "low < high"),
        ({"value_range": (0, float("inf"))}, "low < high"),
    ],
)
def test_a_scale_that_makes_no_sense_is_an_error(options, text):
    with pytest.raises(ValueError, match=text):
        PixelScale(**options)
