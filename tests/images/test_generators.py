# ruff: noqa: S311 - global and legacy streams are what is tested

import functools
import random

import numpy as np
import pytest
import torch

from kornia_lightning_probe.images.generators import find_generators, isolated_streams


class Slotted:
    __slots__ = ("generator", "unset")

    def __init__(self, generator):
        self.generator = generator

    def draw(self):
        return self.generator


class Transform:
    def __init__(self, generator):
        self.generator = generator
        self.itself = self


def closing_over(generator):
    unset = None
    del unset

    def draw(factor=1.0):
        return generator, factor, unset  # noqa: F821 - an empty cell on purpose

    return draw


@pytest.mark.parametrize(
    "wrap",
    [
        Transform,
        Slotted,
        closing_over,
        lambda generator: Slotted(generator).draw,
        lambda generator: functools.partial(max, generator),
        lambda generator: {"a": [torch.nn.Sequential(), Transform(generator)]},
        lambda generator: [generator, generator],
    ],
)
def test_a_generator_is_found_once_wherever_it_is_kept(wrap):
    generator = np.random.default_rng(0)
    assert find_generators(wrap(generator)) == [generator]


def test_long_containers_hold_data_and_are_not_searched():
    assert find_generators([[random.Random(0)] * 1000, dict.fromkeys(range(1000), random.Random(0))]) == []


GENERATORS = [
    (lambda: torch.Generator().manual_seed(5), lambda generator: torch.rand((), generator=generator).item()),
    (lambda: np.random.default_rng(5), lambda generator: generator.random()),
    (lambda: np.random.RandomState(5), lambda generator: generator.random_sample()),
    (lambda: random.Random(5), lambda generator: generator.random()),
]


@pytest.mark.parametrize(("make", "draw"), GENERATORS)
def test_a_kept_generator_is_seeded_and_put_back(make, draw):
    kept, untouched = make(), make()
    with isolated_streams(kept) as seed_all:
        seed_all(1)
        first = draw(kept)
        seed_all(1)
        assert draw(kept) == first
    assert draw(kept) == draw(untouched)


@pytest.mark.parametrize(("make", "draw"), GENERATORS)
def test_a_kept_generator_is_put_back_after_an_exception(make, draw):
    kept, untouched = make(), make()

    def fail():
        with isolated_streams(kept) as seed_all:
            seed_all(1)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert draw(kept) == draw(untouched)
