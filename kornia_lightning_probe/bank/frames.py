"""How an augmentation is called on a batch: once on images or volumes; on video once on clips, or frame by frame."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import kornia.augmentation as K  # noqa: N812 - the name that Kornia's own documentation uses
import torch
from torch import Tensor, nn

from kornia_lightning_probe.randomness import isolated_rng

_FRAME_CLASSES = (K.AugmentationBase2D, K.MixAugmentationBaseV2, K.ImageSequential, K.AugmentationSequential)


def call(transform: Callable[..., Any], images: Tensor) -> Any:
    """Call an augmentation with a batch."""
    if isinstance(transform, K.AugmentationSequential):
        return transform(images, data_keys=["input"])
    return transform(images)


def call_on_clips(transform: Callable[..., Any], clips: Tensor) -> Any:
    """Call an augmentation with (B, T, C, H, W), in the order of axes that a `VideoSequential` in it asks for."""
    sequence = _video_sequence(transform)
    if sequence is None or sequence.data_format == "BTCHW":
        return call(transform, clips)
    result = call(transform, clips.transpose(1, 2))
    if isinstance(result, Tensor) and result.ndim == clips.ndim:
        return result.transpose(1, 2)
    return result


def takes_clips(transform: Callable[..., Any], clips: Tensor) -> bool:
    """Whether an augmentation is called with whole clips, or else with all first frames, all second ones, and so on.

    What holds a `VideoSequential` takes clips, Kornia's 2-D classes take frames. One of another kind is tried on two
    clips of three frames: it takes clips if it gives such clips back.

    Args:
        transform: the augmentation; it stays as it is.
        clips: (B, T, C, H, W).
    """
    if _video_sequence(transform) is not None:
        return True
    for module in _modules(transform):
        if isinstance(module, _FRAME_CLASSES):
            return False
    few = _two_of_three(clips)
    try:
        with isolated_rng():
            result = copy.deepcopy(transform)(few)
    except torch.OutOfMemoryError:
        raise
    except Exception:
        # Whatever it is, it is told when the augmentation gets frames.
        return False
    return isinstance(result, Tensor) and result.shape[:3] == few.shape[:3]


def _two_of_three(clips: Tensor) -> Tensor:
    """Two clips of three frames, so that what draws for each image can't be spread over frames by chance."""
    rows = torch.arange(2, device=clips.device) % clips.shape[0]
    frames = torch.arange(3, device=clips.device) % clips.shape[1]
    return clips[rows][:, frames]


def _video_sequence(transform: Any) -> K.VideoSequential | None:
    for module in _modules(transform):
        if isinstance(module, K.VideoSequential):
            return module
    return None


def _modules(transform: Any) -> list[nn.Module]:
    """An augmentation and all that it holds, where it is a module."""
    if not isinstance(transform, nn.Module):
        return []
    return list(transform.modules())
