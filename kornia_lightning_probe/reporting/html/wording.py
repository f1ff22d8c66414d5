"""Numbers and facts of a page as words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from kornia_lightning_probe.wording import listed

_MOST_ENTRIES = 12
_LONGEST = 400
_DIGITS = 3


def with_error(value: float, error: float, *, sign: str = "", digits: int = _DIGITS) -> str:
    """A value and its standard error; "-" where there is none.

    Example:
        >>> with_error(0.25, 0.0125), with_error(0.25, float("nan"), sign="+"), with_error(float("nan"), 0.1)
        ('0.250 ± 0.013', '+0.250', '-')
    """
    if math.isnan(value):
        return "-"
    shown = f"{value:{sign}.{digits}f}"
    return shown if math.isnan(error) else f"{shown} ± {error:.{digits}f}"


def fact_text(name: str, value: Any) -> str:
    """A fact of the metadata as a line; the epoch before training is called so.

    Example:
        >>> fact_text("references", {"first": -1, "previous": 4})
        'first: before training, previous: epoch 4'
    """
    if name == "references" and isinstance(value, Mapping):
        value = {reference: _epoch_text(epoch) for reference, epoch in value.items()}
    text = str(value)
    if isinstance(value, Mapping):
        text = listed([f"{key}: {entry}" for key, entry in value.items()], most=_MOST_ENTRIES)
    elif isinstance(value, list | tuple):
        text = listed(value, most=_MOST_ENTRIES)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def _epoch_text(epoch: Any) -> str:
    if not isinstance(epoch, int):
        return "none yet"
    return f"epoch {epoch}" if epoch >= 0 else "before training"
