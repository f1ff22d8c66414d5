"""A probe's results in a checkpoint: plain tables, and what does not change from one to the next stored once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kornia_lightning_probe.result import ProbeResult


def states_of(history: Sequence[ProbeResult]) -> list[dict[str, Any]]:
    """The states of results, oldest first; equal parts are the same objects, which a pickle writes once.

    Args:
        history: all results.

    Returns:
        Plain containers, numbers, strings and tensors, that load as weights only.
    """
    states: list[dict[str, Any]] = []
    for result in history:
        state = result.state()
        states.append(_shared(state, states[-1]) if states else state)
    return states


def results_of(states: Sequence[dict[str, Any]]) -> list[ProbeResult]:
    """The results that :func:`states_of` has written."""
    return [ProbeResult.from_state(state) for state in states]


def _shared(new: Any, old: Any) -> Any:
    """The new value, with every part that equals the old one's replaced by that very object."""
    if type(new) is not type(old):
        return new
    if isinstance(new, Tensor):
        return old if new.dtype == old.dtype and torch.equal(new, old) else new
    if isinstance(new, dict):
        parts = {key: _shared(value, old.get(key)) for key, value in new.items()}
        return old if parts.keys() == old.keys() and all(parts[key] is old[key] for key in parts) else parts
    return old if new == old else new
