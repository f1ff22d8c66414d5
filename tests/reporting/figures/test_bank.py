import pytest
import torch
from support.pictures import FakeBank, pictures, titles

pytest.importorskip("matplotlib")

from kornia_lightning_probe.plotting import figure_pixels, plot_bank
from kornia_lightning_probe.reporting.figures.bank import bands_of
from kornia_lightning_probe.result import ViewInfo


def test_the_bank_is_shown_in_the_pixels_before_the_loaders_normalisation():
    bank = FakeBank([ViewInfo("dim", 1, 0.5)])
    images = torch.full((6, 3, 2, 2), 1.0)
    clean, *_, dimmed = pictures(plot_bank(bank, images, max_images=1))
    # (1 * .5 + .5) = 1 and (0 * .5 + .5) = .5.
    assert (clean.shape, clean.max(), dimmed.max()) == ((2, 2, 3), 1.0, 0.5)


def test_the_bank_draws_the_block_as_a_whole_and_shows_its_first_images():
    seen = []

    class Watched(FakeBank):
        def augment(self, view, images, block=0):
            seen.append((len(images), block))
            return super().augment(view, images, block)

    figure = plot_bank(Watched([ViewInfo("dim", 1, 0.5)]), torch.zeros(6, 1, 2, 2), max_images=2)
    assert seen == [(6, 0)]
    assert len(pictures(figure)) == 4


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_the_bank_shows_any_number_of_channels_and_a_cropped_view(channels):
    bank = FakeBank([ViewInfo("crop", 1, 1.0), ViewInfo("crop", 2, 2.0)])
    figure = plot_bank(bank, torch.zeros(1, channels, 4, 4))
    assert [picture.shape[:2] for picture in pictures(figure)] == [(4, 4), (4, 4), (3, 4)]
    assert figure_pixels(figure).size


def test_a_large_bank_goes_on_below_with_the_clean_images_again():
    views = [ViewInfo(name, i, float(i)) for name in ("one", "two") for i in range(1, 7)] + [ViewInfo("three", 1, 1.0)]
    found = titles(plot_bank(FakeBank(views), torch.zeros(1, 1, 4, 4)))
    assert found == [
        "clean",
        *(f"one\n{i}" for i in range(1, 7)),
        "clean",
        *(f"two\n{i}" for i in range(1, 7)),
        "three",
    ]


def test_a_card_shows_one_image_under_the_strongest_view_of_each_augmentation():
    views = [ViewInfo(name, i, float(i)) for name in ("one", "two", "three", "four") for i in (1, 2)]
    figure = plot_bank(FakeBank(views), torch.zeros(3, 1, 4, 4), card=True)
    assert titles(figure) == ["clean", "one\n2", "two\n2", "three\n2", "clean", "four\n2"]
    assert figure_pixels(figure).shape[1] == 704


def test_a_ladder_longer_than_a_row_is_broken():
    views = [ViewInfo("one", i, float(i)) for i in range(1, 22)]
    assert [len(band) for band in bands_of(views)] == [10, 10, 1]
