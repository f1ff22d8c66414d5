"""What a reader notes of a pipeline."""

import kornia.augmentation as K  # noqa: N812
from torch import nn

from kornia_lightning_probe.bank.from_training.reading import Reader, held_by, is_container
from kornia_lightning_probe.bank.from_training.scale import Scale


def test_children_know_what_stands_in_front_of_them():
    resize, crop = K.Resize((9, 9)), K.RandomCrop((8, 8))
    reader = Reader(nn.Sequential(K.RandomInvert(), resize, crop, K.Normalize(0.5, 0.25), K.RandomInvert()))
    assert [child.name for child in reader.children] == ["invert_1", "crop", "invert_2"]
    assert [child.sizing for child in reader.children] == [(), (resize,), ()]
    assert [child.scale for child in reader.children] == [None, None, Scale((0.5,), (0.25,))]
    assert (reader.resizes, reader.loaded_scale) == (True, None)


def test_classes_become_names():
    steps = [K.RandomJPEG(), K.RandomRGBShift(), K.ColorJiggle(), K.RandomHorizontalFlip(), nn.AvgPool2d(1)]
    names = [child.name for child in Reader(nn.Sequential(*steps)).children]
    assert names == ["jpeg", "rgb_shift", "color_jiggle", "horizontal_flip", "avg_pool2d"]


def test_a_container_of_kornia_gives_no_names_of_its_own():
    assert [child.name for child in Reader(K.AugmentationSequential(K.RandomInvert())).children] == ["invert"]


def test_a_step_that_is_there_twice_is_held_twice():
    step = nn.Identity()
    assert held_by(nn.Sequential(step, step)) == [("0", step), ("1", step)]
    assert not is_container(nn.ModuleList([step]))
