"""One view of one block of images: drawn under a seed in plain float32, and checked. Knows no bank."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from kornia.augmentation import AugmentationSequential
from torch import Tensor

from kornia_lightning_probe.bank.matrices import MatrixRecorder, is_kornia_chain
from kornia_lightning_probe.bank.pixels import PixelScale
from kornia_lightning_probe.bank.views import View
from kornia_lightning_probe.randomness import reseed

# An augmentation whose largest pixel change stays below this, on the scale [0, 1], has done nothing.
_NOTICEABLE = 1e-4


class Drawn(NamedTuple):
    """What became of one entry of a block.

    Attributes:
        images: the augmented ones, in the loader's normalisation, dtype and device.
        changed: False where no pixel changed by more than 1e-4 of the range.
        matrix: (B, 3, 3) float32, from where a pixel (x, y, 1) was to where it is now, or None.
        through: of a chain, the same after each of its steps but the last, (B, K, 3, 3), or None.
    """

    images: Tensor
    changed: bool
    matrix: Tensor | None
    through: Tensor | None


def draw_view(
    view: View, images: Tensor, unit: Tensor, *, pixels: PixelScale, seed: int, changes: bool = False, graph: bool
) -> Drawn:
    """Apply a view to one entry of a block.

    Args:
        view: what to do.
        images: (B, C, H, W), as the loader gives them.
        unit: the same as `pixels.to_unit` gives them; they come back as they were.
        pixels: the loader's normalisation.
        seed: of the random streams, which are left as the view leaves them.
        changes: whether it is known that the view changes images, so that nobody has to look.
        graph: whether the result keeps its graph, back to `unit` and whatever that comes from.

    Returns:
        The augmented images, and what is known about the change.
    """
    with plain_float32(images.device, graph=graph):
        reseed(seed, device=images.device)
        version = unit._version
        augmented, recorder = _augmented(view, unit, graph=graph)
        if augmented.untyped_storage().data_ptr() == unit.untyped_storage().data_ptr():
            augmented = augmented.clone()
        if unit._version != version:
            # A class of Kornia's kind that writes into its input.
            unit.copy_(pixels.to_unit(images))
        changed = changes or _differ(augmented.detach(), unit.detach())
        normalised = pixels.from_unit(augmented, dtype=images.dtype)
        matrix, through = recorder.matrices(len(images))
    return Drawn(normalised, changed, matrix, through)


def _augmented(view: View, unit: Tensor, *, graph: bool) -> tuple[Tensor, MatrixRecorder]:
    transform, given = view.transform, unit
    # What draws from a generator of its own, or counts, would differ from call to call, and what writes into its input
    # would spoil it. Kornia's classes do neither, but keep what they have drawn, with its graph.
    if graph or not is_kornia_chain(transform):
        transform, given = copy.deepcopy(transform), unit.clone()
    with MatrixRecorder(transform) as recorder:
        result = _apply(view, transform, given)
    _check_result(view, result, unit)
    augmented: Tensor = result.to(unit)
    return (augmented if graph else augmented.detach()), recorder


@contextmanager
def plain_float32(device: torch.device, *, graph: bool = False) -> Iterator[None]:
    """Work in float32 without autocast and inference mode, and with gradients only where a graph is wanted."""
    if not (
        torch.is_grad_enabled() != graph
        or torch.is_inference_mode_enabled()
        or torch.is_autocast_enabled(device.type)
        or torch.get_default_dtype() != torch.float32
    ):
        # As for every view of a probe; entering all this takes as long as drawing some of them.
        yield
        return
    with ExitStack() as stack:
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(graph))
        stack.enter_context(torch.autocast(device.type, enabled=False))
        torch.set_default_dtype(torch.float32)
        yield


def _differ(images: Tensor, others: Tensor) -> bool:
    if images.shape != others.shape:
        return True
    # Both are NaN where a pixel is, and NaN differs.
    lowest, highest = torch.aminmax(images - others)
    return not (float(lowest) >= -_NOTICEABLE and float(highest) <= _NOTICEABLE)


def _apply(view: View, transform: Callable[..., Any], unit: Tensor) -> Any:
    try:
        if isinstance(transform, AugmentationSequential):
            return transform(unit, data_keys=["input"])
        return transform(unit)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise RuntimeError(
            f"{view.title} raised {type(error).__name__} on images of shape {tuple(unit.shape)}: {error}"
        ) from error


def _check_result(view: View, result: Any, unit: Tensor) -> None:
    if not isinstance(result, Tensor):
        raise TypeError(f"{view.title} returned {type(result).__name__}, expected a tensor like the images it got")
    if not result.is_floating_point():
        raise TypeError(f"{view.title} returned {result.dtype}, expected floating point images in [0, 1]")
    if result.ndim != 4 or result.shape[:2] != unit.shape[:2]:
        raise ValueError(
            f"{view.title} turned images of shape {tuple(unit.shape)} into {tuple(result.shape)}; it must keep the "
            "number of images and of channels"
        )
