"""Distances between activations: subtracted first, then squared, and added up without losing digits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# A float32 norm over more terms than this loses digits; longer rows are cut into pieces, which are added in float64.
_PIECE = 1024
# A width that can't be cut into pieces of one length, at least this, has a rest.
_SHORT_PIECE = 256
# What torch calls a loss that isn't added up.
_ELEMENTWISE = 0
# Elements of a temporary that is written and read back at once: 4 MB of float32.
_CACHED = 2**20


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
    return sum_of_squares(torch.cat([torch.linalg.vector_norm(piece, dim=2) for piece in _pieces(rows)], 1))


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


def piece_of(x: Tensor) -> Tensor:
    """The first rows of ``x``, as many as stay in a processor's cache while they are read twice; at least one."""
    return x if x.numel() <= _CACHED else x[: max(1, _CACHED * len(x) // x.numel())]


class Room:
    """Memory for the differences between some rows and others, to be written, added up, and overwritten.

    Args:
        like: rows such as those to come, (n, ...); their memory is theirs alone, and is written to.

    Attributes:
        rows: that memory, (n, ...).
        num_pieces: of how many norms a row's squared norm is made.
    """

    def __init__(self, like: Tensor) -> None:
        count, width = like.shape[0], math.prod(like.shape[1:])
        # An image must lie in one run, whatever the order of its axes, to be cut into pieces.
        is_dense = count > 0 and _extent(like[0]) == width and (count == 1 or like.stride(0) == width)
        self.rows = like if is_dense else torch.empty_like(like, memory_format=torch.contiguous_format)
        self._size = count
        self._pieces = _pieces(self.rows.as_strided((count, width), (width, 1)))
        self.num_pieces = sum(piece.shape[1] for piece in self._pieces)

    def write_norms(self, y: Tensor, x: Tensor, out: Tensor) -> None:
        """Write the norms of all pieces of ``x - y``, without a graph; :func:`sum_of_squares` makes distances of them.

        Args:
            y: (B, ...); or fewer rows, (m, ...) with B a multiple of m.
            x: (B, ...), of the shape, dtype and device of this room's rows, but for their number.
            out: (B, num_pieces), of the same dtype.
        """
        count, size, others = x.shape[0], self._size, y.shape[0]
        if count > size:
            step = others if 1 < others < count else size
            for first in range(0, count, step):
                part = slice(first, first + step)
                self.write_norms(y[part] if others == count else y, x[part], out[part])
            return
        into, pieces = self.rows, self._pieces
        if count < size:
            into, pieces = into[:count], [piece[:count] for piece in pieces]
        if others in (1, count):
            torch.sub(x, y, out=into)
        else:
            torch.sub(_groups(x, others), y, out=_groups(into, others))
        if len(pieces) == 1:
            torch.linalg.vector_norm(pieces[0], dim=2, out=out)
            return
        for piece, slot in zip(pieces, torch.split(out, [piece.shape[1] for piece in pieces], 1), strict=True):
            torch.linalg.vector_norm(piece, dim=2, out=slot)


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
        return squared_norm(x - y if len(y) in (1, len(x)) else (_groups(x, len(y)) - y).flatten(0, 1))
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


def _groups(x: Tensor, size: int) -> Tensor:
    grouped: Tensor = x.unflatten(0, (-1, size))  # type: ignore[no-untyped-call] # torch doesn't say
    return grouped


def _pieces(rows: Tensor) -> list[Tensor]:
    """All entries of rows (n, width), as (n, pieces, length) where lengths differ between the tensors only."""
    count, width = rows.shape
    length = _piece_length(width)
    whole = width // length * length
    if whole == width:
        number = max(1, width // length)
        return [rows.view(count, number, width // number)]
    return [rows[:, :whole].view(count, whole // length, length), rows[:, whole:].unsqueeze(1)]


def _piece_length(width: int) -> int:
    """Such that all pieces are of one length where that does not make them short."""
    if width <= _PIECE:
        return max(1, width)
    counts = range(-(-width // _PIECE), width // _SHORT_PIECE + 1)
    return next((width // count for count in counts if width % count == 0), _PIECE)


def _extent(x: Tensor) -> int:
    """How many entries of memory a tensor spans."""
    return 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))


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
    first = activation[:1]
    return (activation - first).mean(0, keepdim=True).add_(first)


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
