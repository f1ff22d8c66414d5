"""Pictures of the images that moved furthest, made by hand: two images of 2 x 3 under the second of two views."""

from dataclasses import replace

import pytest
import torch
from support.pictures import pictures, small_print, titles

pytest.importorskip("matplotlib")
from kornia_lightning_probe.plotting import figure_pixels
from kornia_lightning_probe.reporting.figures.worst import plot_worst
from kornia_lightning_probe.result import ProbeResult, ViewInfo
from kornia_lightning_probe.results.tables import ImageScores, WorstImages

VIEWS = (ViewInfo("turn", 1, 5.0, unit="degrees"), ViewInfo("turn", 2, 30.0, unit="degrees"))


def made_worst(count=2, *, size=(2, 3), layer="fc"):
    clean = torch.arange(count * size[0] * size[1] * 3).remainder(256).to(torch.uint8).view(count, *size, 3)
    return WorstImages(layer, 1, torch.arange(count), clean, 255 - clean)


def made(worst, *, labels=True, layer="fc", views=VIEWS):
    # d_i / (2 mean e) of 4 and 1 are scores of 2 and 1.
    count = len(worst.places)
    moved = torch.tensor([4.0, *[1.0] * (count - 1)]).expand(2, 1, -1)
    numbers = torch.arange(count) + 3 if labels else None
    images = ImageScores((layer,), moved, torch.ones(2, 1, count), numbers, worst)
    ids = [10 + place for place in range(count)]
    return ProbeResult(layers=(layer,), views=views, tables={}, epoch=2, images=images, metadata={"image_ids": ids})


def test_each_image_stands_above_what_the_view_made_of_it_with_score_number_and_label():
    worst = made_worst()
    figure = plot_worst(made(worst))
    assert titles(figure) == ["2.00\n#10, label 3", "1.00\n#11, label 4"]
    shown = [torch.as_tensor(picture) for picture in pictures(figure)]
    expected = [*worst.clean, *worst.augmented]
    assert all(torch.equal(picture, image) for picture, image in zip(shown, expected, strict=True))
    assert figure.get_suptitle() == "moved furthest by turn 30 (degrees) at fc"
    assert small_print(figure).endswith("; epoch 2, step 0")


def test_without_labels_only_numbers_are_shown():
    assert titles(plot_worst(made(made_worst(), labels=False))) == ["2.00\n#10", "1.00\n#11"]


def test_a_card_has_three_images_beside_each_other():
    figure = plot_worst(made(made_worst(6)), card=True)
    assert len(pictures(figure)) == 12
    assert figure.axes[0].get_gridspec().ncols == 3
    assert figure_pixels(figure).shape[1] == 704


@pytest.mark.parametrize("size", [(96, 1), (1, 96), (1, 1)])
@pytest.mark.parametrize("count", [1, 4, 6])
def test_any_number_and_shape_can_be_drawn(count, size):
    result = made(made_worst(count, size=size))
    for card in (False, True):
        assert max(figure_pixels(plot_worst(result, card=card)).shape) < 2000


def test_names_stand_as_they_are():
    bad = r"$\bad{$"
    views = [replace(view, augmentation=bad) for view in VIEWS]
    figure = plot_worst(made(made_worst(layer=bad), layer=bad, views=views))
    assert bad in figure.get_suptitle()
    assert figure_pixels(figure).size


def test_a_result_without_pictures_says_in_one_sentence_why_it_has_none():
    result = made(made_worst())
    for poorer in (result.without_influence(), ProbeResult(layers=(), views=(), tables={})):
        with pytest.raises(ValueError, match=r"pictures of the images that moved furthest aren't kept here: they are"):
            poorer.plot("worst")
