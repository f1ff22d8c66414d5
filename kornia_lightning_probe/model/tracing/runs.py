"""Runs of cells: how the axes of a tensor walk through an image. Pure arithmetic on fractions, knows no tensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import prod
from typing import TypeAlias

Vector: TypeAlias = tuple[Fraction, ...]
"""A place, or a way: one number a coordinate (pixels down, pixels right; or entry, image)."""


class LostError(Exception):
    """It is not known any more where the cells lie; the text says why."""


@dataclass(frozen=True)
class Run:
    """`count` cells in a row, each one `step` behind the one before; channels are a run whose step is zero."""

    count: int
    step: Vector

    @property
    def is_bare(self) -> bool:
        """Whether it goes nowhere, as channels do."""
        return not any(self.step)

    def outer(self, count: int) -> tuple[Run, Run]:
        """Splits it into `count` runs, outermost first.

        Example:
            >>> outer, inner = Run(6, (Fraction(1),)).outer(2)
            >>> outer.count, int(outer.step[0]), inner.count, int(inner.step[0])
            (2, 3, 3, 1)
        """
        inside = self.count // count
        return Run(count, scaled(self.step, inside)), Run(inside, self.step)


@dataclass(frozen=True)
class Framed:
    """Cells with something else in front of them (`lead`) and behind: class tokens, padding. No view splits it."""

    count: int
    lead: int
    runs: tuple[Run, ...]


Atom: TypeAlias = Run | Framed
Axis: TypeAlias = tuple[Atom, ...]
"""What one axis of a tensor walks through, outermost first; an axis of one element is empty."""


@lru_cache
def nowhere(dims: int) -> Vector:
    """The zero of `dims` coordinates."""
    return (Fraction(0),) * dims


def added(place: Vector, way: Vector, times: Fraction | int = 1) -> Vector:
    """`place + times * way`."""
    if not any(way):
        return place
    return tuple(start + times * step for start, step in zip(place, way, strict=True))


def scaled(way: Vector, times: Fraction | int) -> Vector:
    """`times * way`."""
    if not any(way):
        return way
    return tuple(step * times for step in way)


def plain(count: int, dims: int) -> Axis:
    """An axis of so many elements that lie all in one place."""
    if count == 1:
        return ()
    return (Run(count, nowhere(dims)),)


def size_of(axis: Axis) -> int:
    """The number of elements along an axis."""
    return prod(atom.count for atom in axis)


def walked(axes: Iterable[Axis]) -> Iterator[Run]:
    """All runs of some axes, those within frames too."""
    for axis in axes:
        for atom in axis:
            if isinstance(atom, Framed):
                yield from atom.runs
            else:
                yield atom


def is_bare(axis: Axis) -> bool:
    """Whether all elements of an axis lie in one place."""
    return all(run.is_bare for run in walked([axis]))


def coordinates_of(axis: Axis, dims: int) -> tuple[bool, ...]:
    """Along which coordinates an axis walks."""
    runs = list(walked([axis]))
    return tuple(any(run.step[index] for run in runs) for index in range(dims))


def joined(atoms: Iterable[Atom]) -> Axis:
    """Takes runs together that go on where the one before them ends, and drops those of one element.

    Example:
        >>> rows, columns = Run(4, (Fraction(8),)), Run(8, (Fraction(1),))
        >>> [run.count for run in joined([rows, columns])]
        [32]
    """
    found: list[Atom] = []
    for atom in atoms:
        last = found[-1] if found else None
        if atom.count == 1:
            continue
        if isinstance(atom, Run) and isinstance(last, Run) and last.step == scaled(atom.step, atom.count):
            found[-1] = Run(last.count * atom.count, atom.step)
        else:
            found.append(atom)
    return tuple(found)


def regrouped(axes: Iterable[Axis], shape: Sequence[int]) -> tuple[Axis, ...]:
    """Deals the runs of all axes to the axes of another shape, as a view does.

    Raises:
        LostError: An axis would begin in the middle of a run that can't be split there, or in a frame.
    """
    atoms: list[Atom] = []
    for axis in axes:
        atoms.extend(axis)
    left = list(reversed(joined(atoms)))
    return tuple(joined(_taken(left, need)) for need in shape)


def _taken(left: list[Atom], need: int) -> list[Atom]:
    """Takes `need` elements off the end of a stack of atoms, whose outermost comes last."""
    taken: list[Atom] = []
    while need > 1 and left:
        atom = left.pop()
        if need % atom.count == 0:
            need //= atom.count
        elif isinstance(atom, Run) and atom.count % need == 0:
            atom, rest = atom.outer(need)
            left.append(rest)
            need = 1
        else:
            raise LostError("a view across cells")
        taken.append(atom)
    if need != 1:
        raise LostError("a view of another size")
    return taken


def refined(first: Axis, second: Axis) -> list[tuple[Atom, Atom]]:
    """Cuts two descriptions of one axis into parts of equal length, outermost first.

    Raises:
        LostError: They have no common parts.

    Example:
        >>> bare, cells = (Run(6, (Fraction(0),)),), (Run(2, (Fraction(3),)), Run(3, (Fraction(7),)))
        >>> [one.count for one, _ in refined(bare, cells)]
        [2, 3]
    """
    lefts, rights = list(reversed(first)), list(reversed(second))
    parts: list[tuple[Atom, Atom]] = []
    while lefts and rights:
        left, right = lefts.pop(), rights.pop()
        if left.count > right.count:
            left, rest = _split(left, right.count)
            lefts.append(rest)
        elif right.count > left.count:
            right, rest = _split(right, left.count)
            rights.append(rest)
        parts.append((left, right))
    return parts


def _split(atom: Atom, count: int) -> tuple[Run, Run]:
    if isinstance(atom, Framed) or atom.count % count:
        raise LostError("rows and cells are interwoven")
    return atom.outer(count)
