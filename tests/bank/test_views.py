import json
import math
from collections.abc import Sequence

import kornia.augmentation as K  # noqa: N812
import pytest
import torch
from torch import nn

from kornia_lightning_probe.bank.views import View, describe_transform, read_views


def _flip() -> nn.Module:
    return K.RandomHorizontalFlip(p=1.0)


def test_one_augmentation_is_one_level_of_severity_one():
    assert read_views({"flip": _flip()}) == (View("flip", 1, 1.0, None, moves_pixels=True),)


class _ListConfig(Sequence):
    """A sequence that is no list, as OmegaConf's is."""

    def __init__(self, items) -> None:
        self.items = list(items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


@pytest.mark.parametrize("container", [list, tuple, nn.ModuleList, _ListConfig])
def test_a_list_is_levels_from_one_on(container):
    views = read_views({"flip": container([_flip(), _flip()])})
    assert [(view.level, view.severity) for view in views] == [(1, 1.0), (2, 2.0)]


def test_a_sequential_is_one_augmentation():
    assert len(read_views({"both": nn.Sequential(_flip(), _flip())})) == 1


def test_severities_are_sorted_ascending_and_augmentations_stay_in_order():
    views = read_views({"b": {10: _flip(), 2.5: _flip()}, "a": _flip()})
    assert [(view.augmentation, view.level, view.severity) for view in views] == [
        ("b", 1, 2.5),
        ("b", 2, 10),
        ("a", 1, 1),
    ]


def test_a_module_dict_is_a_mapping():
    views = read_views(nn.ModuleDict({"turn": nn.ModuleDict({"15": _flip(), "5": _flip()})}))
    assert [view.label for view in views] == ["turn 5", "turn 15"]


def test_severities_may_be_texts_since_json_has_no_other_keys():
    assert [view.severity for view in read_views({"turn": {"15": _flip(), "5.5": _flip()}})] == [5.5, 15]


def test_a_label_is_the_name_and_where_there_are_levels_the_severity():
    assert [view.label for view in read_views({"flip": _flip(), "turn": {15.0: _flip(), 0.05: _flip()}})] == [
        "flip",
        "turn 0.05",
        "turn 15",
    ]


@pytest.mark.parametrize(
    ("views", "error", "text"),
    [
        ({}, ValueError, "The bank is empty"),
        (
            [_flip()],
            TypeError,
            r"views must map names to augmentations, got list; .* write \{'name': \[first, second\]\}, else name each$",
        ),
        (_ListConfig([_flip()]), TypeError, "got _ListConfig; as the levels of one"),
        (
            _flip(),
            TypeError,
            r"got RandomHorizontalFlip; write \{'name': RandomHorizontalFlip\(\.\.\.\)\}, where the name",
        ),
        ("default", TypeError, r"got the text 'default'; .* write AugmentationBank\.preset\('default'\)$"),
        (7, TypeError, r"got int; write \{'flip': K\.RandomHorizontalFlip\(p=1\.0\)\}, for example$"),
        ({"flip": []}, ValueError, "Augmentation 'flip' has no levels"),
        ({"flip": {}}, ValueError, "Augmentation 'flip' has no levels"),
        ({"a/b": _flip()}, ValueError, "a text without '/', got 'a/b'"),
        ({"": _flip()}, ValueError, "a text without '/', got ''"),
        ({3: _flip()}, ValueError, "a text without '/', got 3"),
        (
            {"flip": {"mild": _flip()}},
            ValueError,
            "Augmentation 'flip': a severity must be a finite number, got 'mild'",
        ),
        ({"flip": {math.nan: _flip()}}, ValueError, "a severity must be a finite number, got nan"),
        ({"flip": {True: _flip()}}, ValueError, "a severity must be a finite number, got True"),
        ({"flip": K.RandomHorizontalFlip}, TypeError, "is the class RandomHorizontalFlip; make an instance of it"),
        (
            {"turn": {5: _flip(), 15: 15.0}},
            TypeError,
            r"Augmentation 'turn' \(level 2, severity 15\) is a float, expected a module or another callable",
        ),
    ],
)
def test_what_is_no_bank_is_an_error_that_names_the_entry(views, error, text):
    with pytest.raises(error, match=text):
        read_views(views)


def test_an_augmentation_that_cant_be_copied_is_an_error_that_names_it():
    flip = _flip()
    # deepcopy refuses what autograd has computed.
    flip.strength = torch.ones(1, requires_grad=True) * 2
    with pytest.raises(TypeError, match=r"Augmentation 'flip' .* can't be copied .*; give the bank a freshly made one"):
        read_views({"flip": flip})


def test_views_are_copies_also_of_one_object_given_twice():
    flip = _flip()
    one, two = read_views({"flip": [flip, flip]})
    assert len({id(flip), id(one.transform), id(two.transform)}) == 3


def test_a_description_holds_no_memory_address():
    class Thing:
        def __call__(self, images):
            return images

    for transform in (Thing(), Thing().__call__, abs, lambda images: images, _flip()):
        assert "0x" not in describe_transform(transform)
        json.dumps(describe_transform(transform))
    assert describe_transform(_flip()).startswith("RandomHorizontalFlip(p=1.0")
