"""What a bank sees of a view on one block."""

import kornia.augmentation as K  # noqa: N812
import numpy as np
import pytest
import torch
from torch import nn

from kornia_lightning_probe import AugmentationBank, presets
from kornia_lightning_probe.bank.doubts.looking import Look


def _images(count=16, *, size=8):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def _look(transform, images=None, **options) -> Look:
    images = _images() if images is None else images
    bank = AugmentationBank({"it": transform}, **options)
    unit = bank.to_unit(images)
    drawn = bank.draw(bank[0], [images], [unit], block=0)
    look = bank.look_at(bank[0], [unit], drawn)
    assert torch.equal(unit, bank.to_unit(images))
    return look


class _Own(nn.Module):
    """Darkens each image by a factor from a generator of its own, which has a seed."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, images):
        return images * torch.rand(len(images), 1, 1, 1, generator=self.generator)


def _seeds_itself(images):
    generator = np.random.default_rng(0)
    return images * torch.from_numpy(generator.random((len(images), 1, 1, 1))).to(images)


def _closed_over(generator):
    def darken(images):
        return images * torch.rand(len(images), 1, 1, 1, generator=generator)

    return darken


def _by_the_clock(images):
    return images * float(np.random.default_rng().random())


def _seeded(images):
    return images * torch.rand(len(images), 1, 1, 1)


def _of_numpys_stream(images):
    return images * float(np.random.rand())  # noqa: NPY002


@pytest.mark.parametrize("transform", [_closed_over(torch.Generator()), _by_the_clock])
def test_a_view_that_does_not_replay_is_seen(transform):
    look = _look(transform)
    assert (look.strays, look.is_blind) == (True, False)


@pytest.mark.parametrize("count", [1, 2, 16])
@pytest.mark.parametrize("transform", [_Own(), _seeds_itself])
def test_a_view_that_seeds_itself_is_seen(transform, count):
    look = _look(transform, _images(count))
    assert (look.strays, look.is_blind) == (False, True)


@pytest.mark.parametrize(
    "transform",
    [
        _seeded,
        _of_numpys_stream,
        lambda images: images.flip(-1),
        lambda images: images.roll(1, 0),
        lambda images: images,
        K.RandomRotation(30.0, p=1.0),
        K.RandomGaussianNoise(std=0.05, p=1.0),
        K.auto.RandAugment(n=2, m=10),
        *presets.rotation().values(),
    ],
)
@pytest.mark.parametrize("count", [1, 2, 16])
def test_a_view_that_follows_its_seed_or_draws_nothing_is_not(transform, count):
    look = _look(transform, _images(count))
    assert (look.strays, look.is_blind) == (False, False)


def test_two_images_that_turn_to_the_same_sides_twice_are_no_proof():
    class Sign(nn.Module):
        """Mirrors each image or not, by torch's stream: two of them are alike under one seed in four."""

        def forward(self, images):
            sides = torch.rand(len(images)) < 0.5
            return torch.where(sides.view(-1, 1, 1, 1), images.flip(-1), images)

    for seed in range(20):
        assert not _look(Sign(), _images(2), seed=seed).is_blind


@pytest.mark.parametrize(
    ("transform", "lowest", "highest"),
    [
        (
            nn.Sequential(K.RandomHorizontalFlip(p=1.0), K.Normalize(torch.full((3,), 0.5), torch.full((3,), 0.5))),
            -1,
            1,
        ),
        (lambda images: images * 255, 0, 255),
        (lambda images: images + 1, 1, 2),
        (lambda images: torch.where(images > 0.9, -1.0, images), -1, 0.9),
    ],
)
@pytest.mark.parametrize("options", [{}, {"mean": 0.5, "std": 0.25}])
def test_what_a_view_puts_out_far_outside_of_the_range_is_seen(transform, lowest, highest, options):
    images = (_images() - options.get("mean", 0)) / options.get("std", 1)
    look = _look(transform, images, **options)
    assert look.leaves_range
    assert (look.lowest, look.highest) == (pytest.approx(lowest, abs=0.03), pytest.approx(highest, rel=0.02))


@pytest.mark.parametrize(
    "transform",
    [
        lambda images: images * 0.01,
        lambda images: images * 1.2,
        # Noise and interpolation overshoot a little.
        K.RandomGaussianNoise(std=0.1, p=1.0),
        K.RandomRotation(30.0, resample="bicubic", p=1.0),
        lambda images: images * torch.nan,
    ],
)
def test_a_little_outside_of_the_range_is_nothing_to_tell(transform):
    assert not _look(transform).leaves_range


@pytest.mark.parametrize(
    "transform", [K.RandomHorizontalFlip(), K.ImageSequential(K.RandomHorizontalFlip(p=0.5)), K.RandomErasing(p=0.3)]
)
def test_a_view_that_moves_part_of_the_images_by_chance_is_seen(transform):
    look = _look(transform)
    assert look.by_chance
    assert 0 < look.moved < 1


def test_images_that_a_view_can_not_change_are_no_chance():
    # Every second image is grey, and has no saturation to lose.
    images = _images()
    images[::2] = images[::2, :1].expand(-1, 3, -1, -1).clone()
    look = _look(presets.saturation((0.5,))[0.5], images)
    assert (look.moved, look.by_chance) == (0.5, False)


def test_a_view_that_moves_all_images_or_none_leaves_nothing_to_chance():
    assert not _look(K.RandomHorizontalFlip(p=1.0)).by_chance
    assert not _look(K.RandomHorizontalFlip(p=0.0)).by_chance


def test_any_entry_that_changes_is_a_change_of_the_image():
    bank = AugmentationBank({"fade": presets.saturation((0.5,))[0.5]})
    grey = _images()[:, :1].expand(-1, 3, -1, -1).contiguous()
    entries = [grey, _images()]
    units = [bank.to_unit(entry) for entry in entries]
    look = bank.look_at(bank[0], units, bank.draw(bank[0], entries, units, block=0))
    assert look.moved == 1


@pytest.mark.parametrize("name", ["default", "photometric", "geometric", "corruptions"])
def test_there_is_nothing_to_tell_of_the_presets(name):
    images = _images(8, size=24)
    bank = AugmentationBank.preset(name)
    unit = bank.to_unit(images)
    for view in bank:
        look = bank.look_at(view, [unit], bank.draw(view, [images], [unit], block=0))
        assert not any((look.leaves_range, look.by_chance, look.strays, look.is_blind)), view.label
