"""Memory that is used again: buffers for temporaries, and for differences that are squared and added up at once.

Tensors that are made anew in a forward pass cost more than what is computed in them. So ``out=``, views by strides and
reuse live in this one room; whoever asks for memory gets it with arbitrary content, until the next one asks.
"""

from __future__ import annotations

import math
from collections.abc import Hashable

import torch
from torch import Tensor

# A float32 norm over more terms than this loses digits; longer rows are cut into pieces, which are added in float64.
_PIECE = 1024
# A width that can't be cut into pieces of one length, at least this, has a rest.
_SHORT_PIECE = 256
# Elements of a temporary that is written and read back at once: 4 MB of float32.
_CACHED = 2**20


def piece_of(x: Tensor) -> Tensor:
    """The first rows of ``x``, as many as stay in a processor's cache while they are read twice; at least one."""
    if x.numel() <= _CACHED:
        return x
    return x[: max(1, _CACHED * len(x) // x.numel())]


class Scratch:
    """One buffer that is used again for every temporary of a kind."""

    def __init__(self) -> None:
        self._buffer = torch.empty(0)
        self._views: dict[Hashable, Tensor] = {}

    def like(self, x: Tensor) -> Tensor:
        """A tensor of ``x``'s shape, layout, dtype and device with arbitrary content, overwritten by the next call."""
        key = (x.shape, x.stride(), x.dtype, x.device)
        if key not in self._views:
            if self._buffer.dtype != x.dtype or self._buffer.device != x.device or self._buffer.numel() < x.numel():
                self._views.clear()
                self._buffer = torch.empty(x.numel(), dtype=x.dtype, device=x.device)
            # Of the same layout, since walking through two of different ones takes several times as long.
            strides = torch.empty_like(x, device="meta").stride()
            self._views[key] = self._buffer[: x.numel()].as_strided(x.shape, strides)
        return self._views[key]

    def rows(self, number: int, x: Tensor) -> Tensor:
        """So many tensors such as ``x``, all rows behind each other, (number, ...), with arbitrary content."""
        count = x.shape[0]
        all_rows = self.like(x[:1].expand(number * count, *x.shape[1:]))
        grouped: Tensor = all_rows.unflatten(0, (number, count))  # type: ignore[no-untyped-call] # torch doesn't say
        return grouped


class Temporaries:
    """Memory for temporaries of an activation's size: a buffer for each shape of an image's activation.

    One for all would be smaller, and slower: what a core writes now is what another one has in its cache, since their
    shares begin elsewhere in every shape.
    """

    def __init__(self) -> None:
        self._scratches: dict[Hashable, Scratch] = {}
        self._rooms: dict[Hashable, Room] = {}

    def like(self, x: Tensor) -> Tensor:
        """A tensor of ``x``'s shape, layout, dtype and device with arbitrary content, overwritten by the next call."""
        kind = (x.shape[1:], x.dtype, x.device)
        if kind not in self._scratches:
            self._scratches[kind] = Scratch()
        return self._scratches[kind].like(x)

    def room(self, x: Tensor) -> Room:
        """Memory for differences of some of ``x``'s rows."""
        key = (x.shape, x.stride(), x.dtype, x.device)
        if key not in self._rooms:
            self._rooms[key] = Room(self.like(piece_of(x)))
        return self._rooms[key]


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
        self._pieces = row_pieces(self.rows.as_strided((count, width), (width, 1)))
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
            torch.sub(groups(x, others), y, out=groups(into, others))
        if len(pieces) == 1:
            torch.linalg.vector_norm(pieces[0], dim=2, out=out)
            return
        for piece, slot in zip(pieces, torch.split(out, [piece.shape[1] for piece in pieces], 1), strict=True):
            torch.linalg.vector_norm(piece, dim=2, out=slot)


def groups(x: Tensor, size: int) -> Tensor:
    """Rows (B, ...) in groups of a size, (groups, size, ...), a view."""
    grouped: Tensor = x.unflatten(0, (-1, size))  # type: ignore[no-untyped-call] # torch doesn't say
    return grouped


def row_pieces(rows: Tensor) -> list[Tensor]:
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
