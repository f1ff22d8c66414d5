"""Banks that are chosen by name or written in a configuration file."""

import json
from collections.abc import Mapping, Sequence

import jsonargparse
import kornia.augmentation as K  # noqa: N812
import pytest
import torch

from kornia_lightning_probe import presets
from kornia_lightning_probe.bank.bank import AugmentationBank


def _images(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def test_a_preset_leaves_out_what_needs_three_channels_with_one_warning():
    bank = AugmentationBank.preset("photometric", seed=4, mean=0.5)
    assert bank.fit_channels(3) is bank
    with pytest.warns(
        UserWarning, match="Left out saturation, hue, jpeg: they need images of 3 channels.*have 1"
    ) as caught:
        grey = bank.fit_channels(1)
    assert len(caught) == 1
    assert len(grey) == len(bank) - 9
    assert (grey.seed, grey.pixels.mean) == (4, (0.5,))
    assert grey.fit_channels(1) is grey
    assert len(bank) == 39
    with pytest.warns(UserWarning, match="Left out jpeg"):
        assert len(AugmentationBank.preset("corruptions", channels=4)) == 20


def test_leaving_out_changes_no_other_view():
    bank = AugmentationBank.preset("photometric")
    with pytest.warns(UserWarning, match="Left out"):
        grey = bank.fit_channels(2)
    images = _images(4, 2, 16, 16)
    for view in grey:
        same = next(other for other in bank if other == view)
        assert torch.equal(grey.augment(view, images, block=0).images[0], bank.augment(same, images, block=0).images[0])


def test_nothing_is_left_out_of_a_bank_of_ones_own():
    bank = AugmentationBank({"hue": presets.hue()})
    assert bank.fit_channels(1) is bank


def test_names_can_be_excluded_from_a_preset_and_a_misspelt_one_shows_the_nearest():
    assert {view.augmentation for view in AugmentationBank.preset("geometric", exclude=("elastic", "hflip"))} == {
        "vflip", "rotation", "translation", "scale", "shear", "perspective"
    }  # fmt: skip
    with pytest.raises(
        ValueError,
        match=r"exclude: there is no augmentation 'rotations' in this default preset; did you mean 'rotation'",
    ):
        AugmentationBank.preset(exclude=["rotations"])


def _parse(text: str) -> AugmentationBank:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--bank", type=AugmentationBank)
    bank: AugmentationBank = parser.instantiate(parser.parse_object({"bank": json.loads(text)})).bank
    return bank


def test_nested_ladders_can_be_written_in_a_configuration_file():
    bank = _parse("""{"class_path": "kornia_lightning_probe.bank.bank.AugmentationBank", "init_args": {
        "seed": 3, "mean": [0.5, 0.4, 0.3], "std": 0.2, "value_range": [0, 255], "views": {
            "flip": {"class_path": "kornia.augmentation.RandomHorizontalFlip", "init_args": {"p": 1.0}},
            "blur": [{"class_path": "kornia.augmentation.RandomBoxBlur", "init_args": {"p": 1.0}},
                     {"class_path": "kornia.augmentation.RandomBoxBlur", "init_args": {"kernel_size": [5, 5]}}],
            "turn": {"15": {"class_path": "kornia.augmentation.RandomRotation", "init_args": {"degrees": [15, 15]}},
                     "5.5": {"class_path": "kornia.augmentation.RandomRotation", "init_args": {"degrees": [5.5, 5.5]}}}
        }}}""")
    assert [view.label for view in bank] == ["flip", "blur 1", "blur 2", "turn 5.5", "turn 15"]
    assert (bank.seed, bank.pixels.mean, bank.pixels.std) == (3, (0.5, 0.4, 0.3), (0.2,))
    assert bank.pixels.value_range == (0, 255)


def test_a_preset_can_be_written_in_a_configuration_file():
    bank = _parse("""{"class_path": "kornia_lightning_probe.bank.bank.AugmentationBank.preset",
                      "init_args": {"name": "geometric", "exclude": ["elastic"], "seed": 7}}""")
    assert (len(bank), bank.seed) == (17, 7)


def test_a_layout_can_be_written_in_a_configuration_file():
    bank = _parse("""{"class_path": "kornia_lightning_probe.bank.bank.AugmentationBank", "init_args": {
        "layout": "video", "views": {
            "flip": {"class_path": "kornia.augmentation.RandomHorizontalFlip", "init_args": {"p": 1.0}}}}}""")
    assert bank.layout.shape == "(B, T, C, H, W)"


class ListOf(Sequence):
    """A sequence that is no list, as Hydra's ListConfig."""

    def __init__(self, *entries):
        self._entries = entries

    def __len__(self):
        return len(self._entries)

    def __getitem__(self, index):
        return self._entries[index]


class MappingOf(Mapping):
    """A mapping that is no dict, as Hydra's DictConfig."""

    def __init__(self, entries):
        self._entries = entries

    def __len__(self):
        return len(self._entries)

    def __iter__(self):
        return iter(self._entries)

    def __getitem__(self, key):
        return self._entries[key]


def test_hydras_lists_and_mappings_are_lists_and_mappings():
    turn = K.RandomRotation((5.0, 5.0), p=1.0)
    bank = AugmentationBank(
        MappingOf({"list": ListOf(turn, turn), "mapping": MappingOf({"5": turn})}),
        mean=ListOf(0.5, 0.4, 0.3),
        std=ListOf(0.1, 0.2, 0.3),
        value_range=ListOf(0, 255),
        moves_pixels=ListOf("list"),
    )
    assert [view.severity for view in bank] == [1, 2, 5]
    assert [view.severity_given for view in bank] == [False, False, True]
    assert (bank.pixels.mean, bank.pixels.value_range) == ((0.5, 0.4, 0.3), (0, 255))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"mean": "imagenet"}, "mean must be one number, or one for each channel, got 'imagenet'"),
        ({"std": [None]}, r"std must be one number, or one for each channel, got \[None\]"),
        ({"value_range": 255}, r"value_range must be two numbers \(low, high\), got 255"),
        ({"value_range": ("a", "b")}, r"value_range must be two numbers \(low, high\), got \('a', 'b'\)"),
        ({"seed": "0"}, "seed must be an integer, got '0'"),
        ({"seed": 1.5}, "seed must be an integer, got 1.5"),
        ({"seed": None}, "seed must be an integer, got None"),
        ({"moves_pixels": 3}, "moves_pixels takes names of augmentations"),
    ],
)
def test_arguments_of_a_wrong_type_are_refused(options, text):
    with pytest.raises(TypeError, match=text):
        AugmentationBank({"turn": K.RandomRotation((5.0, 5.0), p=1.0)}, **options)


@pytest.mark.parametrize("options", [{"value_range": (0, 1, 2)}, {"layout": "vidoe"}, {"layout": None}])
def test_arguments_of_a_wrong_value_are_refused(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        AugmentationBank({"turn": K.RandomRotation((5.0, 5.0), p=1.0)}, **options)


def test_one_name_may_be_excluded_without_a_list():
    assert len(AugmentationBank.preset("default", exclude="blur")) == 16


def test_a_class_in_place_of_a_mapping_is_told_by_its_name():
    with pytest.raises(TypeError, match=r"got RandomHorizontalFlip; write \{'name': RandomHorizontalFlip\(\.\.\.\)\}"):
        AugmentationBank(K.RandomHorizontalFlip)
