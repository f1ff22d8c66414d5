"""One view of one block of images: drawn under a seed in plain float32, and checked. Knows no bank."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kornia_lightning_probe.bank.frames import call, call_on_clips, takes_clips
from kornia_lightning_probe.bank.matrices import MatrixRecorder, Way, is_kornia_chain
from kornia_lightning_probe.bank.pixels import PixelScale
from kornia_lightning_probe.bank.views import View
from kornia_lightning_probe.image_layout import IMAGE, VIDEO, VOLUME, ImageLayout
from kornia_lightning_probe.randomness import reseed

#: An augmentation whose largest pixel change stays below this, on the scale [0, 1], has done nothing.
NOTICEABLE = 1e-4


class Augmented(NamedTuple):
    """What became of one block of images.

    Attributes:
        images: one tensor for each entry that was given, in the loader's normalisation, dtype and device.
        changed: False where no pixel of any entry changed by more than 1e-4 of the range.
        matrix: (B, 3, 3) float32, from where a pixel (x, y, 1) of the first entry was to where it is now, integers at
            pixel centres; None where the augmentation doesn't tell.
        through: of a chain, the same after each of its steps but the last, (B, K, 3, 3) on the CPU; None where there is
            no such step.
        frames: height and width of the images after each of these steps: a crop makes them smaller until a pad.
    """

    images: tuple[Tensor, ...]
    changed: bool
    matrix: Tensor | None
    through: Tensor | None = None
    frames: tuple[tuple[int, int], ...] | None = None


class Drawn(NamedTuple):
    """What became of one entry of a block.

    Attributes:
        images: the augmented ones, in the loader's normalisation, dtype and device.
        changed: False where no pixel changed by more than 1e-4 of the range.
        matrix: (B, 3, 3) float32, from where a pixel (x, y, 1) was to where it is now, or None; of volumes and video
            always None.
        way: of a chain, where pixels were after each of its steps but the last, or None.
    """

    images: Tensor
    changed: bool
    matrix: Tensor | None
    way: Way | None


def draw_view(
    view: View, images: Tensor, unit: Tensor, *, pixels: PixelScale, seed: int, changes: bool = False, graph: bool
) -> Drawn:
    """Apply a view to one entry of a block.

    Args:
        view: what to do.
        images: (B, ...), as the loader gives them.
        unit: the same as `pixels.to_unit` gives them; they come back as they were.
        pixels: the loader's normalisation.
        seed: of the random streams, which are left as the view leaves them.
        changes: whether it is known that the view changes images, so that nobody has to look.
        graph: whether the result keeps its graph, back to `unit` and whatever that comes from.

    Returns:
        The augmented images, and what is known about the change.
    """
    with plain_float32(images.device, graph=graph):
        version = unit._version
        augmented, recorder = _augmented(view, unit, pixels.layout, seed=seed, graph=graph)
        if augmented.untyped_storage().data_ptr() == unit.untyped_storage().data_ptr():
            augmented = augmented.clone()
        if unit._version != version:
            # A class of Kornia's kind that writes into its input.
            unit.copy_(pixels.to_unit(images))
        changed = changes or differ(augmented.detach(), unit.detach())
        normalised = pixels.from_unit(augmented, dtype=images.dtype)
        matrix = way = None
        if recorder is not None:
            matrix, way = recorder.matrices(len(images))
    return Drawn(normalised, changed, matrix, way)


def draw_unit(view: View, unit: Tensor, *, layout: ImageLayout, seed: int) -> Tensor:
    """What an augmentation makes of images in [0, 1], before anything is limited to that range again.

    Args:
        view: what to do.
        unit: (B, ...); it comes back as it was.
        layout: its axes.
        seed: of the random streams, which are left as the view leaves them.
    """
    with plain_float32(unit.device):
        augmented, _ = _augmented(view, unit.clone(), layout, seed=seed, graph=False)
    return augmented


def differ(images: Tensor, others: Tensor) -> bool:
    """Whether images in [0, 1] differ by more than an augmentation that does nothing may change; NaN differs."""
    if images.shape != others.shape:
        return True
    # Both are NaN where a pixel is, and NaN differs.
    lowest, highest = torch.aminmax(images - others)
    return not (float(lowest) >= -NOTICEABLE and float(highest) <= NOTICEABLE)


def _augmented(
    view: View, unit: Tensor, layout: ImageLayout, *, seed: int, graph: bool
) -> tuple[Tensor, MatrixRecorder | None]:
    recorder = None
    if layout is VIDEO:
        result = _of_clips(view, unit, seed=seed, graph=graph)
    elif layout is VOLUME:
        result = _drawn(view, *_given(view, unit, graph=graph), seed=seed)
    else:
        transform, given = _given(view, unit, graph=graph)
        with MatrixRecorder(transform) as recorder:
            result = _drawn(view, transform, given, seed=seed)
    _check_result(view, result, unit, layout)
    augmented: Tensor = result.to(unit)
    return (augmented if graph else augmented.detach()), recorder


@contextmanager
def _holding_what_it_held(transform: Callable[..., Any]) -> Iterator[None]:
    """Let Kornia's classes forget what they draw in it, which may be noise of the size of all images."""
    modules = list(transform.modules()) if isinstance(transform, nn.Module) else []
    held = [dict(vars(module)) for module in modules]
    try:
        yield
    finally:
        for module, before in zip(modules, held, strict=True):
            now = vars(module)
            for name in now.keys() - before.keys():
                del now[name]
            now.update(before)


def _given(view: View, unit: Tensor, *, graph: bool) -> tuple[Callable[..., Any], Tensor]:
    # What draws from a generator of its own, or counts, would differ from call to call, and what writes into its input
    # would spoil it. Kornia's classes do neither; a graph would go with what they have drawn.
    if graph or not is_kornia_chain(view.transform):
        return copy.deepcopy(view.transform), unit.clone()
    return view.transform, unit


def _of_clips(view: View, unit: Tensor, *, seed: int, graph: bool) -> Any:
    if takes_clips(view.transform, unit):
        return _drawn(view, *_given(view, unit, graph=graph), seed=seed, on=call_on_clips)
    frames = []
    for frame in unit.unbind(1):
        # A generator of its own is copied, and gives every frame the same.
        result = _drawn(view, *_given(view, frame, graph=graph), seed=seed)
        _check_result(view, result, frame, IMAGE)
        frames.append(result)
    return torch.stack(frames, dim=1)


def _drawn(
    view: View, transform: Callable[..., Any], given: Tensor, *, seed: int, on: Callable[..., Any] = call
) -> Any:
    reseed(seed, device=given.device)
    try:
        with _holding_what_it_held(transform) if transform is view.transform else nullcontext():
            return on(transform, given)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        shape = tuple(given.shape)
        raise RuntimeError(f"{view.title} raised {type(error).__name__} on images of shape {shape}: {error}") from error


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


def _check_result(view: View, result: Any, unit: Tensor, layout: ImageLayout) -> None:
    if not isinstance(result, Tensor):
        raise TypeError(f"{view.title} returned {type(result).__name__}, expected a tensor like the images it got")
    if not result.is_floating_point():
        raise TypeError(f"{view.title} returned {result.dtype}, expected floating point images in [0, 1]")
    kept = layout.channel_axis + 1
    if result.ndim != layout.num_axes or result.shape[:kept] != unit.shape[:kept]:
        frames = ", of frames" if layout is VIDEO else ""
        raise ValueError(
            f"{view.title} turned images of shape {tuple(unit.shape)} into {tuple(result.shape)}; it must keep the "
            f"number of images{frames} and of channels"
        )
