"""The handful of numbers of a probe that Lightning itself logs: what a monitor watches and a progress bar shows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kornia_lightning_probe.result import ProbeResult

_OF_THE_OUTPUT = ("flip_rate", "accuracy_drop")


def summarise(history: Sequence[ProbeResult], *, name: str) -> dict[str, float]:
    """Sum up the latest result.

    Args:
        history: all results, oldest first.
        name: the probe's name.

    Returns:
        ``{name}/embedding_sensitivity``, ``{name}/spread`` (NaN where the first probe found none),
        ``{name}/flip_rate`` and ``{name}/accuracy_drop``, each where it was measured, and ``{name}/seconds``.
    """
    result = history[-1]
    values: dict[str, float] = {}
    if "sensitivity" in result.metrics:
        values["embedding_sensitivity"] = result.value("sensitivity", layer=result.metadata["embedding"])
    if "spread" in result.metrics:
        first = _spread(history[0]) if "spread" in history[0].metrics else math.nan
        values["spread"] = _spread(result) / first if first else math.nan
    values |= {metric: result.value(metric) for metric in _OF_THE_OUTPUT if metric in result.metrics}
    values["seconds"] = result.metadata["seconds"]
    return {f"{name}/{key}": value for key, value in values.items()}


def size_of(result: ProbeResult) -> str:
    """How much was measured, such as "256 images x 19 views x 16 layers"."""
    return f"{result.metadata['num_images']} images x {len(result.views)} views x {len(result.layers)} layers"


def compared(history: Sequence[ProbeResult]) -> dict[str, ProbeResult]:
    """The results that one picture shows: the first, the previous and the latest, each once."""
    if len(history) == 1:
        return {"now": history[0]}
    previous = {"previous": history[-2]} if len(history) > 2 else {}
    return {"start": history[0], **previous, "now": history[-1]}


def _spread(result: ProbeResult) -> float:
    """The spread of the embedding; of its class token, where it has one."""
    embedding = result.metadata["embedding"]
    layers = result.table("spread").layers
    return result.value("spread", layer=embedding if embedding in layers else f"{embedding}:cls")
