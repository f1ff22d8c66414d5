"""One view of one block: what an augmentation may return, and gradients through it."""

import copy
import gc
import weakref
from typing import Any

import kornia.augmentation as K  # noqa: N812
import pytest
import torch
from torch import nn

from kornia_lightning_probe import presets
from kornia_lightning_probe.bank.bank import AugmentationBank
from kornia_lightning_probe.bank.drawing import plain_float32


def _images(*shape: int) -> torch.Tensor:
    return torch.rand(*(shape or (6, 3, 16, 16)), generator=torch.Generator().manual_seed(0))


def _one(transform: Any, images: torch.Tensor) -> torch.Tensor:
    bank = AugmentationBank({"it": transform})
    return bank.augment(bank[0], images, block=0).images[0]


@pytest.mark.parametrize(
    ("transform", "error", "text"),
    [
        (
            lambda images: images.backward,
            TypeError,
            r"Augmentation 'it' \(level 1, severity 1\) returned method, expected a tensor",
        ),
        (lambda images: (images, images), TypeError, "returned tuple, expected a tensor"),
        (lambda images: (images * 255).byte(), TypeError, r"returned torch.uint8, expected floating point"),
        (
            lambda images: images[:2],
            ValueError,
            r"\(6, 3, 16, 16\) into \(2, 3, 16, 16\); it must keep the number of images",
        ),
        (lambda images: images[0], ValueError, r"into \(3, 16, 16\)"),
        (K.RandomGrayscale(p=1.0), None, ""),
        (lambda images: images.mean(1, keepdim=True), ValueError, r"into \(6, 1, 16, 16\); .* and of channels"),
    ],
)
def test_an_augmentation_that_returns_something_else_is_an_error_that_names_the_view(transform, error, text):
    if error is None:
        _one(transform, _images())
        return
    with pytest.raises(error, match=text):
        _one(transform, _images())


def test_an_augmentation_that_raises_is_named_and_the_cause_kept():
    bank = AugmentationBank({"hue": presets.hue()})
    with pytest.raises(
        RuntimeError, match=r"'hue' \(level 2, severity 0.1\) raised ValueError on .*\(6, 1, 8, 8\)"
    ) as caught:
        bank.augment(bank[1], _images(6, 1, 8, 8), block=0)
    assert isinstance(caught.value.__cause__, ValueError)


def test_running_out_of_memory_is_not_renamed():
    def exhaust(images: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError, match="full"):
        _one(exhaust, _images())


def _with_graph(transform: Any, unit: torch.Tensor) -> torch.Tensor:
    bank = AugmentationBank({"it": transform})
    return bank.draw(bank[0], [unit.detach()], [unit], block=0, graph=True).images[0]


def test_gradients_reach_the_images_through_a_brightened_view():
    # min(x + 1/4, 1): the derivative is 1 below 3/4 and 0 above.
    unit = torch.tensor([0.0, 0.5, 0.7, 0.8, 1.0]).view(1, 1, 1, 5).requires_grad_()
    brightened = _with_graph(presets.brightness((0.25,))[0.25], unit)
    (gradient,) = torch.autograd.grad(brightened.sum(), unit)
    assert gradient.flatten().tolist() == [1, 1, 1, 0, 0]


def test_gradients_reach_the_images_through_a_turned_view():
    # Turning a square by a right angle moves every pixel to another place, so each counts once.
    unit = _images(2, 1, 5, 5).requires_grad_()
    turned = _with_graph(K.RandomRotation((90.0, 90.0), p=1.0), unit)
    (gradient,) = torch.autograd.grad(turned.sum(), unit)
    torch.testing.assert_close(gradient, torch.ones_like(gradient), rtol=0, atol=1e-4)


def test_gradients_reach_what_the_loader_gave_through_its_normalisation():
    # x -> std x + mean -> minus 0.1 -> back: the factors std and 1 / std cancel.
    images = torch.zeros(1, 1, 2, 2).requires_grad_()
    bank = AugmentationBank({"darken": presets.darken((-0.1,))}, mean=0.5, std=0.25)
    (darkened,) = bank.augment(bank[0], images, block=0, graph=True).images
    torch.testing.assert_close(torch.autograd.grad(darkened.sum(), images)[0], torch.ones(1, 1, 2, 2))


@pytest.mark.parametrize(
    "transform",
    [
        K.RandomAffine(30.0, p=1.0),
        K.AugmentationSequential(K.RandomHorizontalFlip(p=0.5), K.RandomElasticTransform(p=1.0)),
        lambda images: images * torch.rand(1),
        lambda images: images.mul_(0.5),
        nn.Identity(),
    ],
    ids=["affine", "chain", "callable", "in place", "identity"],
)
def test_with_a_graph_the_images_are_the_same_and_nothing_of_it_stays(transform):
    bank, unit = AugmentationBank({"it": transform}), _images().requires_grad_()
    plain = bank.augment(bank[0], unit.detach(), block=0)
    traced = bank.augment(bank[0], unit, block=0, graph=True)
    assert torch.equal(traced.images[0].detach(), plain.images[0])
    assert traced.changed == plain.changed
    assert float(torch.autograd.grad(traced.images[0].sum(), unit)[0].abs().sum()) > 0
    assert torch.equal(unit, _images())
    # Neither the bank nor the augmentation holds on to the graph.
    copy.deepcopy(bank)
    node = weakref.ref(traced.images[0])
    del traced
    gc.collect()
    assert node() is None


def test_without_a_graph_nothing_requires_gradients():
    bank, images = AugmentationBank({"half": lambda images: images * 0.5}), _images().requires_grad_()
    assert not bank.augment(bank[0], images, block=0).images[0].requires_grad
    assert not bank.to_unit(images).requires_grad


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("outside", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_gradients_are_on_inside_only_where_a_graph_is_wanted_and_come_back(graph, outside):
    seen = []

    def fail() -> None:
        with plain_float32(torch.device("cpu"), graph=graph):
            seen.extend([torch.is_grad_enabled(), torch.is_inference_mode_enabled()])
            raise ZeroDivisionError

    with outside():
        before = torch.is_grad_enabled()
        with pytest.raises(ZeroDivisionError):
            fail()
        assert torch.is_grad_enabled() is before
    assert seen == [graph, False]


@pytest.mark.parametrize(("layout", "shape"), [("image", (6, 3, 16, 16)), ("video", (2, 4, 3, 16, 16))])
def test_kornias_classes_keep_nothing_of_what_they_draw(layout, shape):
    noise = K.RandomGaussianNoise(std=0.1, p=1.0)
    bank = AugmentationBank({"it": nn.Sequential(noise, K.RandomHorizontalFlip(p=1.0))}, layout=layout)
    # The bank has a copy of its own.
    modules = [noise, bank[0].transform[0]]
    held = [dict(vars(module)) for module in modules]
    bank.augment(bank[0], _images(*shape), block=0)
    for module, before in zip(modules, held, strict=True):
        assert vars(module).keys() == before.keys()
        assert all(vars(module)[name] is value for name, value in before.items())
    # Which would be noise of the size of all images.
    noise(torch.rand(2, 3, 8, 8))
    assert noise._params["gaussian_noise"].shape == (2, 3, 8, 8)
