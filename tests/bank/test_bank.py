import json
import pickle
import random
from typing import Any

import kornia.augmentation as K  # noqa: N812
import numpy as np
import pytest
import torch
from torch import nn

from kornia_lightning_probe import presets
from kornia_lightning_probe.bank.bank import AugmentationBank

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _images(*shape: int) -> torch.Tensor:
    return torch.rand(*(shape or (6, 3, 16, 16)), generator=torch.Generator().manual_seed(0))


def _random_chain(**options: Any) -> K.AugmentationSequential:
    return K.AugmentationSequential(
        K.RandomAffine(30.0, translate=(0.1, 0.1), p=0.7), K.ColorJitter(0.2, 0.2, 0.2, 0.1, p=0.7), **options
    )


def _one(transform: Any, images: torch.Tensor, *, block: int = 0, **options: Any) -> torch.Tensor:
    bank = AugmentationBank({"it": transform}, **options)
    return bank.augment(bank[0], images, block=block).images[0]


def _streams() -> tuple[object, str, bytes]:
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().numpy().tobytes()  # noqa: NPY002


def test_a_bank_is_a_sequence_of_its_views():
    bank = AugmentationBank({"flip": K.RandomHorizontalFlip(p=1.0), "turn": presets.rotation((15, 5))}, seed=3)
    assert len(bank) == 3
    assert list(bank) == list(bank.views) == [bank[0], bank[1], bank[2]]
    assert repr(bank) == "AugmentationBank(flip; turn 5, 15 (degrees); seed=3)"


def test_the_draw_depends_on_seed_name_and_block_and_on_nothing_else():
    images = _images()
    first = _one(_random_chain(), images)
    torch.manual_seed(99)
    assert torch.equal(_one(_random_chain(), images), first)
    assert not torch.equal(_one(_random_chain(), images, seed=1), first)
    assert not torch.equal(_one(_random_chain(), images, block=1), first)
    bank = AugmentationBank({"other": _random_chain()})
    assert not torch.equal(bank.augment(bank[0], images, block=0).images[0], first)


def test_calls_in_any_order_and_number_give_the_same_views():
    images, bank = _images(), AugmentationBank({"chain": _random_chain(), "noise": presets.gaussian_noise()})
    forward = [bank.augment(view, images, block=1).images[0] for view in bank]
    backward = [bank.augment(view, images, block=1).images[0] for view in reversed(bank.views)]
    assert all(map(torch.equal, forward, reversed(backward)))


def test_all_levels_share_one_realisation():
    bank = AugmentationBank({"turn": {d: K.RandomRotation((-d, d), p=1.0) for d in (10.0, 20.0)}})
    small, large = (bank.augment(view, _images(), block=0).matrix for view in bank)
    angle_small, angle_large = (torch.atan2(matrix[:, 0, 1], matrix[:, 0, 0]) for matrix in (small, large))
    torch.testing.assert_close(angle_large, 2 * angle_small)
    assert len(angle_small.unique()) == 6


def test_augmentations_that_draw_from_python_numpy_or_a_generator_of_their_own_are_seeded_too():
    class Shift(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.generator = torch.Generator()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            draws = random.random() + np.random.rand() + float(torch.rand(1, generator=self.generator))  # noqa: NPY002, S311
            return images * draws / 3

    bank = AugmentationBank({"shift": Shift()})
    first, again = (bank.augment(bank[0], _images(), block=0).images[0] for _ in range(2))
    assert torch.equal(first, again)


def test_entries_of_equal_shape_get_the_same_parameters():
    left, right = _images(), _images().flip(0)
    bank = AugmentationBank({"turn": K.RandomRotation(30.0, p=1.0)})
    pair = bank.augment(bank[0], [left, right], block=0)
    assert torch.equal(pair.images[0], _one_named(bank, left))
    assert torch.equal(pair.images[1], _one_named(bank, right))
    # One entry may be another size, and then the matrix is that of the first.
    mixed = bank.augment(bank[0], (left, _images(6, 1, 8, 8)), block=0)
    assert mixed.images[1].shape == (6, 1, 8, 8)
    assert torch.equal(mixed.matrix, pair.matrix)


def _one_named(bank: AugmentationBank, images: torch.Tensor) -> torch.Tensor:
    return bank.augment(bank[0], images, block=0).images[0]


def test_the_users_objects_are_neither_moved_nor_changed():
    chain = _random_chain(data_keys=["input", "mask"])
    chain.eval()
    chain[0].train()
    chain(_images(), _images())
    flags = [module.training for module in chain.modules()]
    params, state = pickle.dumps(chain._params), {key: value.clone() for key, value in chain.state_dict().items()}
    before = _streams()
    bank = AugmentationBank({"chain": chain})
    bank.augment(bank[0], _images(), block=0)
    assert _streams() == before
    assert [module.training for module in chain.modules()] == flags
    assert [module.training for module in bank[0].transform.modules()] == flags
    assert pickle.dumps(chain._params) == params
    assert all(torch.equal(value, state[key]) for key, value in chain.state_dict().items())
    assert all(not module._forward_hooks for module in chain.modules())
    assert {(module.device, module.dtype) for module in chain.children()} == {(torch.device("cpu"), torch.float32)}


class _Blacken(K.IntensityAugmentationBase2D):
    """Writes into what it gets, as no class of Kornia's does."""

    def apply_transform(self, input, params, flags, transform=None):  # noqa: A002 - Kornia's name
        input[:, :, 0] = 0.0
        return input[:, :, :]


def test_an_augmentation_that_writes_into_its_images_spoils_no_other_view():
    images = _images() * 0.5 + 0.25
    bank = AugmentationBank({"black": _Blacken(p=1.0), "still": nn.Identity(), "flip": K.RandomHorizontalFlip(p=1.0)})
    unit = bank.to_unit(images)
    drawn = [bank.draw(view, [images], [unit], block=0) for view in bank]
    assert torch.equal(unit, images)
    assert [one.changed for one in drawn] == [True, False, True]
    # Nobody looks again at a view that is known to change images.
    assert bank.draw(bank[1], [images], [unit], block=0, changes=True).changed
    black, still, flipped = (one.images[0] for one in drawn)
    assert not black[:, :, 0].any()
    assert torch.equal(black[:, :, 1:], images[:, :, 1:])
    assert torch.equal(flipped, images.flip(3))
    # Nor does a model that writes into its input.
    still.zero_()
    assert torch.equal(unit, images)


@pytest.mark.parametrize("fails", [False, True])
def test_streams_dtype_and_modes_come_back_also_after_an_exception(fails):
    def draw(images: torch.Tensor) -> torch.Tensor:
        assert torch.get_default_dtype() == torch.float32
        assert not torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        assert not torch.is_autocast_enabled("cpu")
        random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002, S311
        if fails:
            raise ZeroDivisionError("no")
        return images

    before = _streams()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode(), torch.autocast("cpu"):
            if fails:
                with pytest.raises(RuntimeError, match="ZeroDivisionError"):
                    _one(draw, _images())
            else:
                _one(draw, _images())
            assert torch.is_inference_mode_enabled()
            assert torch.is_autocast_enabled("cpu")
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert _streams() == before


def test_the_input_is_not_changed_by_an_augmentation_that_works_in_place():
    def in_place(images: torch.Tensor) -> torch.Tensor:
        return images.mul_(0.5)

    images = _images()
    bank = AugmentationBank({"half": in_place})
    augmented = bank.augment(bank[0], images, block=0)
    assert torch.equal(images, _images())
    assert torch.equal(augmented.images[0], images * 0.5)
    assert augmented.changed


def test_an_augmentation_sees_pixels_from_zero_to_one_whatever_the_loader_did():
    raw, seen = _images(), []
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))

    def spy(images: torch.Tensor) -> torch.Tensor:
        seen.append(images.clone())
        return images

    normalised = (raw - mean) / std
    back = _one(spy, normalised, mean=MEAN, std=STD)
    torch.testing.assert_close(seen[0], raw, rtol=0, atol=1e-6)
    torch.testing.assert_close(back, normalised, rtol=0, atol=1e-5)
    _one(spy, raw * 4095, value_range=(0, 4095))
    torch.testing.assert_close(seen[1], raw, rtol=0, atol=1e-6)


def test_darkening_normalised_images_is_darkening_raw_ones():
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    darkened = _one(presets.darken((-0.1,))[0.1], (_images() - mean) / std, mean=MEAN, std=STD)
    torch.testing.assert_close(darkened * std + mean, (_images() - 0.1).clamp_min(0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes_are_augmented_in_float32_and_come_back(dtype):
    images = _images().to(dtype)
    augmented = _one(K.RandomRotation((10.0, 10.0), p=1.0), images)
    assert augmented.dtype == dtype
    assert torch.equal(augmented, _one(K.RandomRotation((10.0, 10.0), p=1.0), images.float()).to(dtype))


def test_autocast_around_the_bank_changes_nothing():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = _one(_random_chain(), _images())
    assert torch.equal(inside, _one(_random_chain(), _images()))


def test_channels_last_images_give_the_same_views():
    images = _images().contiguous(memory_format=torch.channels_last)
    assert torch.equal(_one(_random_chain(), images), _one(_random_chain(), _images()))


@pytest.mark.parametrize("data_keys", [["input"], ["input", "mask", "keypoints"], None])
def test_a_training_pipeline_works_whatever_its_data_keys(data_keys):
    assert torch.equal(_one(_random_chain(data_keys=data_keys), _images()), _one(_random_chain(), _images()))


@pytest.mark.parametrize(
    "transform",
    [
        K.ImageSequential(K.RandomRotation(20.0, p=1.0), K.RandomGaussianBlur(3, (1.0, 1.0), p=1.0)),
        nn.Sequential(K.RandomRotation(20.0, p=1.0), nn.AvgPool2d(3, 1, 1)),
        lambda images: images.flip(-1),
        K.RandomMixUpV2(p=1.0),
        K.auto.RandAugment(n=2, m=10),
    ],
    ids=["ImageSequential", "Sequential", "callable", "mixup", "RandAugment"],
)
def test_containers_foreign_callables_and_policies_work(transform):
    augmented = _one(transform, _images())
    assert augmented.shape == (6, 3, 16, 16)
    assert not torch.equal(augmented, _images())


@pytest.mark.parametrize(
    "transform",
    [
        K.RandomHorizontalFlip(p=0.0),
        K.RandomRotation((0.0, 0.0), p=1.0),
        K.RandomBrightness((1.0, 1.0)),
        lambda images: images,
    ],
    ids=["p=0", "rotation by 0", "factor 1", "identity"],
)
def test_a_view_that_does_nothing_is_seen(transform):
    bank = AugmentationBank({"nothing": transform, "noise": presets.gaussian_noise((0.001,))[0.001]})
    assert not bank.augment(bank[0], _images(), block=0).changed
    assert bank.augment(bank[1], _images(), block=0).changed


def test_saturation_does_nothing_to_grey_images():
    bank = AugmentationBank({"saturation": presets.saturation()})
    assert not bank.augment(bank[0], _images(6, 1, 8, 8).expand(-1, 3, -1, -1), block=0).changed


def test_a_change_of_one_entry_is_a_change_and_another_size_is_one():
    bank = AugmentationBank({"saturation": presets.saturation((0.5,)), "crop": K.CenterCrop(8)})
    grey = _images(6, 1, 8, 8).expand(-1, 3, -1, -1)
    assert bank.augment(bank[0], [grey, _images()], block=0).changed
    cropped = bank.augment(bank[1], _images(), block=0)
    assert cropped.changed
    assert cropped.images[0].shape == (6, 3, 8, 8)


def test_matrices_come_with_the_images():
    bank = AugmentationBank({"flip": K.RandomHorizontalFlip(p=1.0), "own": torch.square})
    # x -> 15 - x
    assert bank.augment(bank[0], _images(), block=0).matrix[0].tolist() == [[-1, 0, 15], [0, 1, 0], [0, 0, 1]]
    assert bank.augment(bank[1], _images(), block=0).matrix is None


def test_images_of_a_wrong_kind_are_refused_before_anything_is_drawn():
    with pytest.raises(TypeError, match=r"got torch\.uint8; convert 8-bit"):
        _one(torch.square, torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match="add a batch dimension"):
        _one(torch.square, torch.zeros(3, 4, 4))
    bank = AugmentationBank({"it": torch.square})
    with pytest.raises(ValueError, match="block 7: NaN or infinite pixels in 1 of 2 images"):
        bank.check(torch.tensor([0.0, torch.nan]).view(2, 1, 1, 1), what="block 7")
    with pytest.raises(ValueError, match="outside value_range"):
        bank.check(torch.full((1, 1, 1, 1), 2.0))


def test_an_infinite_or_nan_result_counts_as_a_change():
    bank = AugmentationBank({"nan": lambda images: images * torch.nan})
    assert bank.augment(bank[0], _images(), block=0).changed


def test_a_bank_travels_to_another_process_and_describes_itself_in_json():
    bank = AugmentationBank.preset("photometric", seed=5, mean=MEAN, std=STD)
    twin = pickle.loads(pickle.dumps(bank))  # noqa: S301 - our own bytes
    assert json.loads(json.dumps(twin.describe())) == bank.describe()
    assert bank.describe()["views"][0]["transform"].startswith("PinnedGaussianBlur(")
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    images = (_images() - mean) / std
    for view, copied in zip(bank, twin, strict=True):
        assert torch.equal(
            bank.augment(view, images, block=0).images[0], twin.augment(copied, images, block=0).images[0]
        )


def test_a_description_does_not_change_with_use():
    bank = AugmentationBank({"chain": _random_chain(), "own": torch.square})
    before = bank.describe()
    bank.augment(bank[0], _images(), block=0)
    assert bank.describe() == before
