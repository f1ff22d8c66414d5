"""Normalisations that are joined and undone."""

import kornia.augmentation as K  # noqa: N812
import torch

from kornia_lightning_probe.bank.from_training.scale import Scale, scale_of


def test_two_in_one_do_what_both_do():
    first, second = Scale((0.5,), (0.25,)), Scale((1.0, 2.0, 3.0), (2.0, 4.0, 8.0))
    images = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(first.then(second).done(images), second.done(first.done(images)))
    torch.testing.assert_close(second.then(first).done(images), first.done(second.done(images)))


def test_what_is_done_is_undone():
    scale = Scale((0.1, 0.2, 0.3), (0.5,))
    images = torch.rand(3, 4, 4)
    torch.testing.assert_close(scale.undone(scale.done(images)), images)


def test_the_numbers_are_those_that_the_user_wrote():
    assert scale_of(K.Normalize(torch.tensor([0.485]), (0.229, 0.225))) == Scale((0.485,), (0.229, 0.225))
    assert scale_of(K.Denormalize(0.5, 0.25)) == Scale((0.5,), (0.25,))
