"""Tables for a terminal of 100 columns: numbers, short names, columns side by side; it knows no result."""

from __future__ import annotations

import math
from textwrap import fill
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

WIDTH = 100
EIGHTHS = " ▏▎▍▌▋▊▉█"
BAR_CELLS = 6
BAR_END = 1.2


def number(value: float) -> str:
    """A number in about four characters; "-" where there is none.

    Example:
        >>> [number(value) for value in (0.256, 123.4, -0.001, float("nan"))]
        ['0.26', '123', '0.00', '-']
    """
    if math.isnan(value):
        return "-"
    return f"{value:z.2f}" if abs(value) < 100 else f"{value:.3g}"


def bar(value: float) -> str:
    """A bar of 6 cells that is full at 1.2, and a place for the "+" of what goes beyond; blank where there is none.

    Example:
        >>> [bar(value) for value in (0.3, 2.0, float("nan"))]
        ['█▌     ', '██████+', '       ']
    """
    if math.isnan(value):
        return " " * (BAR_CELLS + 1)
    eighths = round(8 * BAR_CELLS * min(max(value / BAR_END, 0.0), 1.0))
    rest = EIGHTHS[eighths % 8] if eighths % 8 else ""
    return f"{'█' * (eighths // 8) + rest:<{BAR_CELLS}}" + ("+" if value > BAR_END else " ")


def decimals(values: Iterable[float]) -> int:
    """How many digits behind the point show two digits of the largest of the values; at least 2, at most 6.

    Example:
        >>> decimals([0.25, -0.01]), decimals([0.004, -0.0125])
        (2, 3)
    """
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return min(max(2, 1 - math.floor(math.log10(largest))), 6) if largest > 0 else 2


def elided(text: str, most: int) -> str:
    """The text, its middle left out where it is longer than `most` characters."""
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[len(text) - (most - most // 2) :]}"


def wrapped(text: str) -> str:
    """The text in lines of at most 100 characters."""
    return fill(text, WIDTH, subsequent_indent="    ")


def named(title: str, names: Sequence[str], most: int = 40) -> list[str]:
    """The first column of a table: a title and the rows' names, all of one width."""
    lines = [title, *(elided(name, most) for name in names)]
    width = max(map(len, lines))
    return [f"{line:<{width}}" for line in lines]


def side_by_side(
    left: Sequence[str], columns: Iterable[tuple[str, Sequence[str]]], *, again: Sequence[str]
) -> Iterator[str]:
    """Put columns to the right of a table's first lines, and go on below where the terminal ends.

    Args:
        left: the first lines of the table, the header among them, all of one width.
        columns: each column's title and cells, one for each line but the header.
        again: what stands at the left of the lines that go on below.

    Yields:
        The table, in one or more texts of several lines.
    """
    lines = list(left)
    for title, cells in columns:
        column = [elided(title, 24), *cells]
        width = max(4, *map(len, column))
        if len(lines[0]) + 2 + width > WIDTH:
            yield _joined(lines)
            lines = list(again)
        lines = [f"{line}  {cell:>{width}}" for line, cell in zip(lines, column, strict=True)]
    yield _joined(lines)


def _joined(lines: Iterable[str]) -> str:
    return "\n".join(line.rstrip() for line in lines)
