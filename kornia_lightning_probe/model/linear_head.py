"""The directions of an embedding that a linear head reads; all others leave the differences of scores as they are."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from kornia_lightning_probe.activations.site import HeadSpace

# So much of the largest score may differ where the head computes in float32 (TF32 on a GPU), or in half precision.
_TOLERANCE, _COARSE = 2e-3, 3e-2
# Directions that are weaker than this part of the strongest are rounding.
_WEAKEST = 1e-6


def head_space(
    model: nn.Module, features: Tensor, scores: Tensor, *, part: str = "", is_coarse: bool = False
) -> HeadSpace | None:
    """What a head reads of an embedding, where it is one matrix product: scores = W features + b.

    Adding one number to all scores changes no prediction, so the directions are those of W minus its mean row.

    Args:
        model: whose modules are tried.
        features: some images' embedding, (n, C).
        scores: what the model makes of it, (n, K).
        part: which part of a sequence the features are, as in `Site.part`.
        is_coarse: whether the model has computed features or scores in half precision.

    Returns:
        The space; None where no module of the model gives these scores, or the head reads all directions.

    Example:
        >>> head = nn.Linear(5, 2)
        >>> features = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
        >>> head_space(head, features, head(features).detach()).basis.shape  # two classes differ in one direction
        torch.Size([5, 1])
    """
    if features.ndim != 2 or scores.ndim != 2 or not bool(scores.isfinite().all()):
        return None
    if scores.shape[1] == 2 and not bool(scores[:, 0].any()):
        # One logit, beside the 0 of the other class: what its row reads.
        scores = scores[:, 1:]
    for weight, bias in _products(model, classes=scores.shape[1], width=features.shape[1]):
        if _gives(scores, features, weight, bias, is_coarse=is_coarse):
            basis = _row_space(weight)
            return HeadSpace(basis, part) if 0 < basis.shape[1] < basis.shape[0] else None
    return None


def _products(model: nn.Module, *, classes: int, width: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Weights (K, C) and biases of matrix products and of convolutions that look at one cell, last ones first."""
    for module in reversed(list(model.modules())):
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        # Of a sharded model each process has a part.
        if not isinstance(weight, Tensor) or hasattr(weight, "device_mesh") or not weight.is_floating_point():
            continue
        matrix = weight.detach()
        if matrix.shape[:2] == (classes, width) and matrix.numel() == classes * width:
            yield matrix.flatten(1), bias.detach() if isinstance(bias, Tensor) else None


def _gives(scores: Tensor, features: Tensor, weight: Tensor, bias: Tensor | None, *, is_coarse: bool) -> bool:
    wide = torch.float64 if scores.device.type != "mps" else torch.float32
    found = features.to(wide) @ weight.to(wide).T
    if bias is not None:
        found = found + bias.to(wide)
    is_half = is_coarse or weight.dtype in (torch.float16, torch.bfloat16)
    allowed = (_COARSE if is_half else _TOLERANCE) * found.abs().amax()
    return bool((found - scores.to(wide)).abs().amax() <= allowed) and bool(allowed > 0)


def _row_space(weight: Tensor) -> Tensor:
    """An orthonormal basis (C, r) of the rows minus their mean."""
    rows = weight.double().cpu()
    if len(rows) > 1:
        rows = rows - rows.mean(0)
    _, strengths, directions = torch.linalg.svd(rows, full_matrices=False)
    basis: Tensor = directions[strengths > _WEAKEST * strengths[0]].T.contiguous()
    return basis
