"""What is put around the steps of a pipeline so that a bank can call them: each a module on a batch of images."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from kornia_lightning_probe.bank.frames import call
from kornia_lightning_probe.bank.from_training.pins import Ends, Pin, look_up, put
from kornia_lightning_probe.bank.from_training.scale import Scale


class ImageByImage(nn.Module):
    """Runs steps on every image by itself, as a dataset does, so that each is drawn anew; gives all the size they had.

    Args:
        steps: callables on one image.
        in_bytes: whether the first of them gets bytes, from 0 to 255, as from a file.
        as_batch: whether they get a batch of one image, and else (C, H, W).
    """

    def __init__(self, steps: Sequence[Callable[..., Any]], *, in_bytes: bool = False, as_batch: bool = False) -> None:
        super().__init__()
        self.steps = list(steps)
        self.in_bytes = in_bytes
        self.as_batch = as_batch

    def forward(self, images: Tensor) -> Tensor:
        """Run them on (B, C, H, W) in [0, 1]."""
        return torch.stack([self._one(image) for image in images])

    def extra_repr(self) -> str:
        """The steps, which need not be modules."""
        return ", ".join(map(repr, self.steps))

    def _one(self, image: Tensor) -> Tensor:
        changed: Any = image.unsqueeze(0) if self.as_batch else image
        if self.in_bytes:
            changed = changed.mul(255).round().to(torch.uint8)
        for step in self.steps:
            changed = step(changed)
        changed = to_unit(changed)
        # Kornia's classes make a batch of one image.
        if changed.ndim == image.ndim + 1:
            changed = changed.squeeze(0)
        return resized(changed.unsqueeze(0), image)[0]


class AtEnds:
    """Runs a step whose magnitudes are each at one end of a range, drawn anew for each image.

    Args:
        transform: one of torchvision's; it stays as it is.
        drawn: which magnitudes have which ends.
    """

    def __init__(self, transform: Callable[..., Any], drawn: Sequence[tuple[Pin, Ends]]) -> None:
        self.transform = transform
        self.drawn = list(drawn)

    def __call__(self, image: Any) -> Any:
        """Draw the ends, and run the step with them."""
        own = copy.copy(self.transform)
        for pin, ends in self.drawn:
            end = float(ends.rsample())
            put(own, pin.place, _with_pair(look_up(own, pin.place), pin, end))
        return own(image)

    def __repr__(self) -> str:
        ends = ", ".join(f"{pin.place}={ends}" for pin, ends in self.drawn)
        return f"{self.transform!r} at {ends}" if ends else repr(self.transform)


class SameSize(nn.Module):
    """Gives images the size back that they had before, by bilinear interpolation.

    Args:
        transform: what may change it.
    """

    def __init__(self, transform: Callable[..., Any]) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, images: Tensor) -> Tensor:
        """Run it on (B, C, H, W), and resize where the size is another."""
        return resized(call(self.transform, images), images)


class Unscaled(nn.Module):
    """Runs what stands behind a normalisation, or ends with one, on images without it.

    Args:
        transform: what to run.
        before: the normalisation that it expects to be done; None where it does it itself.
        after: the normalisation that its result has.
    """

    def __init__(self, transform: Callable[..., Any], *, before: Scale | None, after: Scale) -> None:
        super().__init__()
        self.transform = transform
        self.before = before
        self.after = after

    def forward(self, images: Tensor) -> Tensor:
        """Normalise, run, and take the normalisation back."""
        scaled = images if self.before is None else self.before.done(images)
        return self.after.undone(call(self.transform, scaled))


class ToUnit(nn.Module):
    """Makes numbers in [0, 1] of bytes, and leaves other images alone; in the place of `ToTensor` and `ToDtype`."""

    def forward(self, images: Any) -> Any:
        """Divide bytes by 255."""
        return to_unit(images)


def to_unit(images: Any) -> Any:
    """Bytes as float32 in [0, 1]; anything else as it is."""
    if isinstance(images, Tensor) and images.dtype == torch.uint8:
        return images.to(torch.float32) / 255
    return images


def resized(images: Tensor, like: Tensor) -> Tensor:
    """(B, C, H, W) at the height and width of other images, themselves where they have it."""
    size = like.shape[-2:]
    if images.shape[-2:] == size:
        return images
    return interpolate(images, size=tuple(size), mode="bilinear", antialias=True, align_corners=False)


def _with_pair(held: Any, pin: Pin, end: float) -> Any:
    """A sequence of numbers in which both ends of the range are the same."""
    number = int(end) if pin.whole else end
    numbers = list(held)
    numbers[pin.start : pin.start + 2] = [number, number]
    return type(held)(numbers)
