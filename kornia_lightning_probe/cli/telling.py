"""What the command line says on its side channel, and how it refuses; results alone go to standard output."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

PROGRAM = "kornia-lightning-probe"
#: Exit statuses.
FINE, ABOVE, WRONG = 0, 1, 2
INTERRUPTED = 130


class CommandError(Exception):
    """What a user has asked for can't be done; the text says what came, what was expected and what to do."""


def say(text: str) -> None:
    """Print a line of a result."""
    sys.stdout.write(f"{text}\n")


def remark(text: str) -> None:
    """Print a remark, in one line, where it doesn't mix with results."""
    sys.stderr.write(f"{one_line(text)}\n")


def one_line(text: object) -> str:
    r"""A text without line breaks.

    Example:
        >>> one_line("size mismatch:\n\t(3,) and (4,)")
        'size mismatch: (3,) and (4,)'
    """
    return " ".join(str(text).split())


def reason_of(error: BaseException) -> str:
    """Why something failed, in one line; the kind of error stands in front where it isn't one with a sentence.

    Example:
        >>> reason_of(KeyError("conv")), reason_of(ValueError("no images"))
        ("KeyError: 'conv'", 'no images')
    """
    text = one_line(error)
    if isinstance(error, CommandError | ValueError | TypeError | OSError | ImportError | RuntimeError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def kind_of(value: object) -> str:
    """What a value is, as a text.

    Example:
        >>> kind_of(3), kind_of([]), kind_of(None)
        ('an int', 'a list', 'nothing')
    """
    if value is None:
        return "nothing"
    name = type(value).__name__
    article = "an" if name[0].lower() in "aeiou" else "a"
    return f"{article} {name}"


def shortened(text: str, most: int = 300) -> str:
    """A text cut after so many characters, where it is longer."""
    return text if len(text) <= most else f"{text[:most]} ..."


@contextmanager
def warnings_as_remarks() -> Iterator[None]:
    """Say each warning once, as a remark, without the place in the code that it came from."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for text in dict.fromkeys(one_line(warning.message) for warning in caught):
        remark(f"warning: {text}")


def close_quietly() -> None:
    """Let Python end without a word where the reader of our output, such as `head`, has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
