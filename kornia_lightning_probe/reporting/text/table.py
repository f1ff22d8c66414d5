"""Tables for a terminal of 100 columns: numbers, short names, columns side by side; it knows no result."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from textwrap import fill

WIDTH = 100
GAP = "  "
LONGEST_TITLE = 24
NARROWEST = 4
EIGHTHS = " ▏▎▍▌▋▊▉█"
BAR_CELLS = 6
BLANK_BAR = " " * (BAR_CELLS + 1)


def number(value: float) -> str:
    """A number in about four characters; "-" where there is none.

    Example:
        >>> [number(value) for value in (0.256, 123.4, -0.001, float("nan"))]
        ['0.26', '123', '0.00', '-']
    """
    if math.isnan(value):
        return "-"
    return f"{value:z.2f}" if abs(value) < 100 else f"{value:.3g}"


def bar(value: float, scale: tuple[float, float]) -> str:
    """A bar of 6 cells from one end of a scale to the other, and a place for the "+" of what goes beyond.

    Example:
        >>> [bar(value, (0.0, 1.2)) for value in (0.3, 2.0, float("nan"))]
        ['█▌     ', '██████+', '       ']
    """
    if math.isnan(value):
        return BLANK_BAR
    low, high = scale
    share = min(max((value - low) / (high - low), 0.0), 1.0)
    whole, rest = divmod(round(8 * BAR_CELLS * share), 8)
    cells = "█" * whole + EIGHTHS[rest].strip()
    beyond = "+" if value > high else " "
    return f"{cells:<{BAR_CELLS}}{beyond}"


def decimals(values: Iterable[float]) -> int:
    """How many digits behind the point show two digits of the largest of the values; at least 2, at most 6.

    Example:
        >>> decimals([0.25, -0.01]), decimals([0.004, -0.0125])
        (2, 3)
    """
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    if largest == 0:
        return 2
    needed = 1 - math.floor(math.log10(largest))
    return min(max(2, needed), 6)


def elided(text: str, most: int) -> str:
    """The text, its middle left out where it is longer than `most` characters.

    Example:
        >>> elided("backbone.layer1", 7)
        'ba…yer1'
    """
    if len(text) <= most:
        return text
    at_the_end = most - most // 2
    return f"{text[: most // 2 - 1]}…{text[-at_the_end:]}"


def wrapped(text: str) -> str:
    """The text in lines of at most 100 characters."""
    return fill(text, WIDTH, subsequent_indent="    ")


def named(title: str, names: Sequence[str], most: int = 40) -> list[str]:
    """The first column of a table: a title and the rows' names, all of one width."""
    lines = [title]
    lines += [elided(name, most) for name in names]
    width = max(len(line) for line in lines)
    return [line.ljust(width) for line in lines]


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
        column = [elided(title, LONGEST_TITLE), *cells]
        width = max(NARROWEST, *(len(cell) for cell in column))
        if len(lines[0]) + len(GAP) + width > WIDTH:
            yield _joined(lines)
            lines = list(again)
        lines = [f"{line}{GAP}{cell.rjust(width)}" for line, cell in zip(lines, column, strict=True)]
    yield _joined(lines)


def _joined(lines: Iterable[str]) -> str:
    return "\n".join(line.rstrip() for line in lines)
