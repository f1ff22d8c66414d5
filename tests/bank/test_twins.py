import kornia.augmentation as K  # noqa: N812
import pytest
import torch

from kornia_lightning_probe.bank.twins import twin_seed, twins_of, with_noise_as_long
from kornia_lightning_probe.bank.views import read_views


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def lengths(rows):
    return rows.double().flatten(1).norm(dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e18])
def test_noise_is_as_long_as_each_images_movement(dtype, scale):
    images = torch.zeros(4, 3, 8, 8, dtype=dtype)
    # Movements of four lengths, one of them none.
    moved = images + scale * torch.tensor([0.0, 1e-3, 1.0, 7.0], dtype=dtype).view(4, 1, 1, 1) * drawn(4, 3, 8, 8)
    noisy = with_noise_as_long(images, moved.to(dtype), seed=0)
    assert noisy.dtype == dtype
    torch.testing.assert_close(lengths(noisy), lengths(moved), rtol=1e-5, atol=0)
    assert torch.equal(noisy[0], images[0])


def test_noise_is_isotropic_and_its_own_for_each_image_and_channel():
    # Of noise in d dimensions that is r long, each entry has the variance r^2/d: 4/192; and no two images share it.
    images = drawn(2000, 3, 8, 8)
    step = torch.zeros(2000, 3, 8, 8)
    step[:, 0, 0, 0] = 2.0
    noise = with_noise_as_long(images, images + step, seed=1) - images
    variance = noise.square().mean(0)
    # 2000 draws know a variance to sqrt(2/2000), 3.2 %; the largest of 192 lies within four and a half of those.
    torch.testing.assert_close(variance, torch.full_like(variance, 4 / 192), rtol=0.15, atol=0)
    products = (noise[:-1] * noise[1:]).flatten(1).sum(1)
    # The product of two such is 0, of the standard deviation r^2/sqrt(d).
    assert abs(products.mean()) < 4 * 4 / 192**0.5 / 1999**0.5


def test_noise_depends_on_its_seed_alone_and_moves_no_stream():
    images, moved = drawn(2, 1, 4, 4), drawn(2, 1, 4, 4, seed=1)
    state = torch.get_rng_state()
    once, again, other = (with_noise_as_long(images, moved, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_all_levels_share_a_direction_and_blocks_and_augmentations_do_not():
    views = read_views(
        {"turn": {5: K.RandomRotation((5.0, 5.0)), 15: K.RandomRotation((15.0, 15.0))}, "flip": K.Resize(4)}
    )
    small, large, flip = twins_of(views)
    assert twin_seed(0, small, 0) == twin_seed(0, large, 0)
    assert len({twin_seed(0, small, 0), twin_seed(0, small, 1), twin_seed(1, small, 0), twin_seed(0, flip, 0)}) == 4


def test_a_twin_goes_by_its_views_name_and_moves_no_pixel():
    (view,) = read_views({"flip": K.RandomHorizontalFlip(p=1.0)})
    (twin,) = twins_of([view])
    assert (twin.label, twin.is_twin, twin.moves_pixels) == ("flip", True, False)
    assert (view.is_twin, view.moves_pixels) == (False, True)
