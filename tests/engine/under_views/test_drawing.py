"""What a probe says of its views and images, the same on every process."""

import re

import kornia.augmentation as K  # noqa: N812
import pytest
import torch
from support.nets import SmallCNN
from support.probing import halved, images_of, mirrored, run, run_on_all

from kornia_lightning_probe import AugmentationBank
from kornia_lightning_probe.activations.about import Shown
from kornia_lightning_probe.engine.under_views import drawing
from kornia_lightning_probe.images.probe_images import ProbeImages

IMAGES = images_of(40)


def _straying():
    generator = torch.Generator()
    return lambda images: images * torch.rand(len(images), 1, 1, 1, generator=generator)


def _blind(images):
    generator = torch.Generator().manual_seed(0)
    return images * torch.rand(len(images), 1, 1, 1, generator=generator)


def _far(images):
    return images * 255


def _sometimes(images):
    return torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images, images / 2)


@pytest.mark.parametrize(
    ("transform", "fact", "text"),
    [
        (_straying(), "unrepeatable_views", "these views do not repeat themselves under one seed: odd;"),
        (_blind, "self_seeded_views", "these views draw the same whatever the seed: odd;"),
        (_far, "views_outside_range", r"these views put out values far outside of \[0, 1\].*: odd \(from .* to 25\d"),
        (_sometimes, "partly_changed_views", r"part of the images, by chance: odd \(\d\d%\) of the first block, and"),
    ],
)
@pytest.mark.parametrize("size", [1, 2])
def test_an_odd_view_is_named_once_on_every_process(transform, fact, text, size):
    bank = AugmentationBank({"odd": transform, "mirror": mirrored, "halve": halved})
    for result in run_on_all(size, SmallCNN(), IMAGES, bank, metrics="sensitivity"):
        (sentence,) = result.metadata["warnings"]
        assert re.search(text, sentence)
        assert list(result.metadata[fact]) == ["odd"]


def test_what_is_fine_is_in_no_warning_and_has_no_fact():
    result = run(SmallCNN(), IMAGES, AugmentationBank({"mirror": mirrored, "halve": halved}), metrics="sensitivity")
    assert result.metadata["warnings"] == []
    facts = ("unrepeatable_views", "self_seeded_views", "views_outside_range", "partly_changed_views")
    assert not any(fact in result.metadata for fact in (*facts, "implausible_images", "views_with_ranges"))


def test_a_range_in_place_of_a_magnitude_is_named():
    bank = AugmentationBank({"turn": {5: K.RandomRotation((5.0, 5.0), p=1.0), 15: K.RandomRotation(15.0, p=1.0)}})
    result = run(SmallCNN(), IMAGES, bank, metrics="sensitivity")
    (sentence,) = result.metadata["warnings"]
    assert "turn 15 (degrees from -15 to 15);" in sentence
    assert result.metadata["views_with_ranges"] == {"turn 15": "degrees from -15 to 15"}


def test_images_that_are_implausible_are_told_once():
    bank = AugmentationBank({"mirror": mirrored}, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    result = run(SmallCNN(), IMAGES, bank, metrics="sensitivity")
    (sentence,) = result.metadata["warnings"]
    assert sentence == result.metadata["implausible_images"]
    assert "if the loader doesn't normalise, leave mean and std out" in sentence


def test_a_bank_is_looked_at_once_for_the_same_images(monkeypatch):
    looked = []
    look_at = AugmentationBank.look_at

    def counted(self, view, units, augmented):
        looked.append(view.label)
        return look_at(self, view, units, augmented)

    monkeypatch.setattr(AugmentationBank, "look_at", counted)
    bank, images = AugmentationBank({"odd": _blind, "mirror": mirrored}), ProbeImages(IMAGES)
    for _ in range(2):
        views = drawing.Views(bank, images)
        for block in images.blocks:
            views.draw(block, _shown(block), range(2))
        assert views.seen[:, drawing._LOOK :][0, drawing.Look._fields.index("is_blind")] == 1
    assert looked == ["odd", "mirror"]


def _shown(block):
    return Shown(ids=(block.ids.start, block.ids.stop), rows=slice(0, len(block)))
