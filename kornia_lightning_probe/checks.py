"""What an argument must be, said where it was given with what came."""

from __future__ import annotations

import operator
from typing import Any


def whole_number(argument: str, value: Any, *, least: int | None = None) -> int:
    """An integer, of whatever kind (NumPy's too); no flag and no text.

    Args:
        argument: its name.
        value: what came.
        least: the smallest that it may be.

    Raises:
        TypeError: where it is no integer.
        ValueError: where it is too small.

    Example:
        >>> whole_number("batch_size", 32, least=1)
        32
    """
    try:
        number = operator.index(value)
    except TypeError as error:
        raise TypeError(f"{argument} must be an integer, got {value!r}") from error
    if isinstance(value, bool):
        raise TypeError(f"{argument} must be an integer, got {value!r}")
    if least is not None and number < least:
        raise ValueError(f"{argument} must be at least {least}, got {number}")
    return number
