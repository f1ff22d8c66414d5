"""Distances between activations: subtracted first, then squared, and added up without losing digits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kornia_lightning_probe.functional.memory import Room, groups, piece_of, row_pieces

# So many numbers in float64, 1 MB, stay in a processor's cache while they are multiplied.
_MULTIPLIED = 2**17
# What torch calls a loss that isn't added up.
_ELEMENTWISE = 0


def accumulation_dtype(device: torch.device) -> torch.dtype:
    """The widest float of a device: float64, or float32 on MPS, which has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def upcast(activation: Tensor) -> Tensor:
    """Half-precision activations as float32; float32 and float64 as they are."""
    return activation.float() if activation.dtype in (torch.float16, torch.bfloat16) else activation


def squared_norm(x: Tensor) -> Tensor:
    r"""Squared Euclidean norm of each image's features, :math:`|x_i|^2`, accumulated in float64.

    Args:
        x: features, (B, ...), float32 or float64.

    Returns:
        (B,) float64 (float32 on MPS), in [0, inf).

    Example:
        >>> squared_norm(torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
        tensor([25.,  4.], dtype=torch.float64)
    """
    rows = x.flatten(1) if x.ndim > 1 else x.unsqueeze(1)
    return sum_of_squares(torch.cat([torch.linalg.vector_norm(piece, dim=2) for piece in row_pieces(rows)], 1))


def sum_of_squares(norms: Tensor) -> Tensor:
    """From the norms of a row's pieces, (..., pieces), to the row's squared norm, (...) float64 (float32 on MPS)."""
    total: Tensor = torch.linalg.vector_norm(norms, dim=-1, dtype=accumulation_dtype(norms.device))
    return total.square()


def all_finite(x: Tensor) -> bool:
    """Whether no entry is NaN or infinite; one pass without a temporary.

    Example:
        >>> all_finite(torch.tensor([1.0, torch.nan])), all_finite(torch.tensor([1.0, torch.inf]))
        (False, False)
    """
    if x.numel() == 0:
        return True
    # Both are NaN where any entry is.
    low, high = torch.aminmax(x)
    return math.isfinite(low) and math.isfinite(high)


def squared_distance(x: Tensor, y: Tensor, *, room: Room | None = None) -> Tensor:
    r"""Squared distance of each pair of rows, :math:`|x_i - y_i|^2`: subtracted first, then squared.

    Args:
        x: features, (B, ...).
        y: features, (B, ...); or fewer rows, (n, ...) with B a multiple of n, which every n rows of ``x`` are compared
            with, such as a single mean.
        room: memory for some rows such as those of ``x``; as many rows are done at a time.

    Returns:
        (B,) float64 (float32 on MPS), in [0, inf).

    Example:
        >>> squared_distance(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 5.0]]))
        tensor([9.], dtype=torch.float64)
    """
    if torch.is_grad_enabled() and (x.requires_grad or y.requires_grad):
        return squared_norm(x - y if len(y) in (1, len(x)) else (groups(x, len(y)) - y).flatten(0, 1))
    room = Room(torch.empty_like(piece_of(x))) if room is None else room
    norms = x.new_empty(x.shape[0], room.num_pieces)
    room.write_norms(y, x, norms)
    return sum_of_squares(norms)


def squared_difference(x: Tensor, y: Tensor, *, out: Tensor) -> Tensor:
    """Elementwise ``(x - y) ** 2`` in one go, without a graph, into memory of ``x``'s shape that is there already."""
    # MPS takes nothing but equal shapes.
    y = y if y.shape == x.shape else y.expand_as(x)
    if torch.is_grad_enabled():
        x, y = x.detach(), y.detach()
    squared: Tensor = torch.ops.aten.mse_loss.out(x, y, _ELEMENTWISE, out=out)
    return squared


def block_mean(activation: Tensor) -> Tensor:
    """The mean over a block's images, taken of the differences to the first one.

    So it is exact where all images are the same, and loses no digits to a mean that is large beside the spread.

    Args:
        activation: (n, ...).

    Returns:
        (1, ...), of the activation's dtype.

    Example:
        >>> block_mean(torch.tensor([[0.1], [0.1], [0.1]])).item() == torch.tensor(0.1).item()
        True
    """
    first = upcast(activation[:1])
    # A few images at a time: what is subtracted is still in the cache when it is added up.
    parts = torch.split(activation, max(1, len(piece_of(activation))))
    total = torch.zeros_like(first)
    for part in parts:
        total = total + (upcast(part) - first).sum(0, keepdim=True)
    return (first + total / len(activation)).to(activation.dtype)


def block_mean_and_distance(activation: Tensor, *, room: Room) -> tuple[Tensor, Tensor]:
    """:func:`block_mean` and each image's squared distance from it, with one read of the activation.

    Args:
        activation: (n, ...).
        room: memory for as many rows.

    Returns:
        The mean, (1, ...), and the distances, (n,) float64 (float32 on MPS).

    Example:
        >>> block_mean_and_distance(torch.tensor([[0.0], [2.0]]), room=Room(torch.empty(2, 1)))
        (tensor([[1.]]), tensor([1., 1.], dtype=torch.float64))
    """
    first = activation[:1]
    moved = room.rows[: len(activation)]
    shift = torch.sub(activation, first, out=moved).mean(0, keepdim=True)
    return first + shift, squared_distance(moved, shift, room=room)


def pair_distances(x: Tensor) -> Tensor:
    r"""Squared distances of all pairs of rows, :math:`|x_i - x_j|^2`, from their products in float64.

    Products of float32 numbers are exact there, so that what cancels leaves an error of 1e-16 of the largest distance:
    two images that lie a million times closer together than others still have a distance of four digits.

    Args:
        x: features, (n, ...), float32 or float64, without a graph.

    Returns:
        (n, n) float64 (float32 on MPS), at least 0, of diagonal 0.

    Example:
        >>> pair_distances(torch.tensor([[0.0], [1.0], [3.0]]))
        tensor([[0., 1., 9.],
                [1., 0., 4.],
                [9., 4., 0.]], dtype=torch.float64)
    """
    rows = _dense_rows(x.detach())
    wide = accumulation_dtype(x.device)
    products = torch.zeros(len(rows), len(rows), dtype=wide, device=x.device)
    for part in torch.split(rows, max(1, _MULTIPLIED // max(1, len(rows))), 1):
        # A mean that is large beside the spread would be all that products hold.
        centred = part.to(wide, copy=True)
        centred -= centred[:1].clone()
        products.addmm_(centred, centred.T)
    lengths = products.diagonal()
    distances = lengths.unsqueeze(0) + lengths.unsqueeze(1) - 2 * products
    return distances.clamp_(min=0.0).fill_diagonal_(0.0)


def _dense_rows(x: Tensor) -> Tensor:
    """Rows (n, width) of features (n, ...), whose order is that of memory: a view, however an image's axes lie."""
    strides = x.stride()
    axes = sorted(range(1, x.ndim), key=lambda axis: -strides[axis])
    return x.permute(0, *axes).reshape(len(x), -1)
