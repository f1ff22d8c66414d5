"""Pictures of the images that move furthest: the right ones, drawn again as they were, on any number of processes."""

import kornia.augmentation as K  # noqa: N812 - the name that Kornia's own documentation uses
import pytest
import torch
from support.nets import SmallCNN
from support.probing import images_of, random_bank, run_on_all
from support.volumes import clips_of, volumes_of
from torch import nn

from kornia_lightning_probe import AugmentationBank, probe_model
from kornia_lightning_probe.engine.under_views.worst import small_pictures
from kornia_lightning_probe.image_layout import IMAGE, VOLUME
from kornia_lightning_probe.randomness import isolated_rng

# Nets of few channels have a leading one.
pytestmark = pytest.mark.filterwarnings("ignore:one channel holds more than half")


def net(kind=SmallCNN):
    with isolated_rng(3):
        return kind()


def flat_net(count):
    with isolated_rng(3):
        return nn.Sequential(nn.Flatten(), nn.Linear(count, 6), nn.ReLU(), nn.Linear(6, 2))


def levels(images):
    """Images in [0, 1] as pictures."""
    return images.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1)


def test_they_are_the_six_that_the_view_that_moves_the_embedding_most_moves_furthest():
    result = probe_model(net(), images_of(40), random_bank())
    worst = result.images.worst
    assert worst.layer == result.metadata["embedding"]
    view = result.views[worst.view]
    values = [result.value("sensitivity", worst.layer, view.augmentation, view.level) for view in result.views]
    assert max(values) == result.value("sensitivity", worst.layer, view.augmentation, view.level)
    rows = result.worst_images(augmentation=view.augmentation, level=view.level)
    ids = result.metadata["image_ids"]
    assert [ids[place] for place in worst.places.tolist()] == [row.image for row in rows]


def test_the_pictures_are_the_images_and_what_the_model_saw_of_them():
    inputs, bank = images_of(40), random_bank()
    seen = []

    def forward(called, x):
        seen.append(x.clone())
        return called(x)

    result = probe_model(net(), inputs, bank, forward=forward, batch_size=1000)
    worst = result.images.worst
    ids = [result.metadata["image_ids"][place] for place in worst.places.tolist()]
    assert torch.equal(worst.clean, levels(inputs[ids]))
    drawn = levels(torch.cat(seen))
    for picture in worst.augmented:
        assert (drawn == picture).flatten(1).all(1).any()


def test_normalisation_is_undone():
    inputs, options = images_of(8), {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.1]}
    bank = AugmentationBank({"flip": K.RandomHorizontalFlip(p=1.0)}, **options)
    worst = probe_model(net(), bank.pixels.from_unit(inputs, dtype=torch.float32), bank).images.worst
    # Eight images are one block, in their order but for the deal, which the places count.
    assert torch.equal(worst.augmented, worst.clean.flip(2))
    assert {tuple(picture.flatten().tolist()) for picture in worst.clean} <= {
        tuple(picture.flatten().tolist()) for picture in levels(inputs)
    }


@pytest.mark.parametrize("size", [2, 3, 7])
def test_every_process_has_those_of_one_process(size):
    (alone,) = run_on_all(1, net(), images_of(80), random_bank(), metrics=None)
    expected = alone.images.worst
    for result in run_on_all(size, net(), images_of(80), random_bank(), metrics=None):
        worst = result.images.worst
        assert (worst.layer, worst.view) == (expected.layer, expected.view)
        for name in ("places", "clean", "augmented"):
            assert torch.equal(getattr(worst, name), getattr(expected, name))


def test_the_random_streams_are_left_as_they_were():
    torch.manual_seed(5)
    probe_model(net(), images_of(8), random_bank())
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), after)


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_of_other_than_three_channels_the_first_is_grey(channels):
    inputs = images_of(8, channels=channels)
    worst = probe_model(flat_net(channels * 144), inputs, AugmentationBank({"half": lambda x: x / 2})).images.worst
    assert worst.clean.shape == (6, 12, 12, 3)
    assert torch.equal(worst.clean[..., 0], worst.clean[..., 2])


@pytest.mark.parametrize(("inputs", "layout"), [(volumes_of(8), "volume"), (clips_of(8), "video")])
def test_of_volumes_and_video_the_middle_is_shown(inputs, layout):
    bank = AugmentationBank({"half": lambda x: x / 2}, layout=layout)
    worst = probe_model(flat_net(inputs[0].numel()), inputs, bank).images.worst
    assert worst.clean.shape == (6, *inputs.shape[-2:], 3)


def test_large_images_are_made_smaller_to_96_pixels_by_the_mean_of_areas():
    image = torch.zeros(1, 3, 192, 96)
    image[..., ::2, :] = 1.0
    # Each pixel of 96 x 48 is the mean of two white and two black ones.
    assert torch.equal(small_pictures(image, IMAGE), torch.full((1, 96, 48, 3), 128.0))


def test_what_leaves_the_range_or_is_no_number_is_shown_at_its_end():
    image = torch.tensor([-1.0, 2.0, torch.nan]).view(1, 1, 1, 1, 3)
    assert small_pictures(image, VOLUME)[0, 0, :, 0].tolist() == [0.0, 255.0, 0.0]


def test_a_dead_embedding_has_no_pictures():
    model = nn.Sequential(nn.Flatten(), nn.Linear(432, 6), nn.Linear(6, 2))
    nn.init.zeros_(model[1].weight)
    with pytest.warns(UserWarning, match="same activation"):
        result = probe_model(model, images_of(8), random_bank(), layers=["1"], embedding="1")
    assert result.images.worst is None


def test_where_a_view_can_not_be_drawn_again_the_numbers_stay(monkeypatch):
    bank = random_bank()

    def fail(*_, **__):
        raise RuntimeError("out of paint")

    monkeypatch.setattr(bank, "augment", fail)
    with pytest.warns(UserWarning, match="6 pictures could not be drawn again"):
        result = probe_model(net(), images_of(8), bank)
    assert result.images.worst is None
    assert "of the images that moved furthest, 6 pictures could not be drawn again" in result.metadata["notes"]
    assert result.worst_images()
