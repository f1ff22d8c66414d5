"""The digits that are kept of an older result: values as float32, errors as float32 where they are drawn as curves."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kornia_lightning_probe.results.lookup import SENSITIVITY
from kornia_lightning_probe.results.tables import MetricTable

#: Enough for an error: over N images it is itself known to 1/sqrt(2 (N - 1)) only, which is 4 % at 256 of them.
_ERROR_BITS = 6


def kept_errors(name: str, *, logged: bool) -> torch.dtype:
    """The type that holds a metric's errors in an older result.

    Args:
        name: the metric's.
        logged: whether it says of itself that its curves are drawn.
    """
    # An older version's metric says nothing of itself.
    if logged or name == SENSITIVITY:
        return torch.float32
    return torch.bfloat16


def rounded(name: str, table: MetricTable) -> MetricTable:
    """A metric's table in the digits of an older result, without each image's own part; rounded again it is the same.

    Values and the errors of curves are float32, other errors have six binary digits: they move by 1.6 % at most.

    Example:
        >>> third = torch.tensor([[1 / 3]], dtype=torch.float64)
        >>> table = rounded("own", MetricTable(("fc",), third, third, torch.tensor([[256]])))
        >>> table.value.item(), table.std_error.item()
        (0.3333333432674408, 0.3359375)
    """
    error = table.std_error.float()
    if kept_errors(name, logged=table.quantity.logged) is torch.bfloat16:
        error = _few_digits(error)
    return replace(table, value=table.value.float(), std_error=error, influence=None)


def _few_digits(error: Tensor) -> Tensor:
    mantissa, exponent = error.frexp()
    whole = (mantissa * 2.0**_ERROR_BITS).round()
    return torch.ldexp(whole, exponent - _ERROR_BITS).bfloat16()
