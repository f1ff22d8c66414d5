"""What results are summed up by, and which of them may be compared: the same images, views, layers and embedding."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kornia_lightning_probe.engine.segments import slices, view_groups
from kornia_lightning_probe.randomness import stable_seed
from kornia_lightning_probe.reporting.text.clean import is_of_clean_images
from kornia_lightning_probe.result import ProbeResult
from kornia_lightning_probe.wording import counted

_OF_THE_OUTPUT = ("flip_rate", "accuracy_drop")
_NAMES = {"content_hash": "images", "embedding": "embedding", "bank": "augmentations", "layers": "layers"}


@dataclass(frozen=True)
class Origin:
    """The probe that later ones are compared with, and what must be the same for that.

    Args:
        epoch: of the probe.
        content_hash: of its images.
        embedding: its name.
        bank: a number that stands for the augmentations.
        layers: the chosen ones.
        spread: the typical distance between images at the embedding; NaN where that is dead, or not measured.
    """

    epoch: int
    content_hash: str
    embedding: str
    bank: int
    layers: tuple[str, ...]
    spread: float

    @classmethod
    def of(cls, result: ProbeResult) -> Origin:
        """That of a result."""
        metadata = result.metadata
        return cls(
            epoch=result.epoch,
            content_hash=str(metadata.get("content_hash")),
            embedding=str(metadata.get("embedding")),
            bank=_bank_of(metadata.bank or {}),
            layers=result.layers,
            spread=_spread(result),
        )

    def differences(self, other: Origin) -> list[str]:
        """In what two probes differ so that their numbers are not comparable; empty where they are."""
        differing = [field for field in _NAMES if getattr(self, field) != getattr(other, field)]
        return [_NAMES[field] for field in differing]

    @property
    def has_spread(self) -> bool:
        """Whether a spread can be relative to this one."""
        return math.isfinite(self.spread) and self.spread > 0

    def state(self) -> dict[str, Any]:
        """Plain data, which a checkpoint loads as weights only."""
        return {**asdict(self), "layers": list(self.layers)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Origin:
        """What :meth:`state` has written."""
        return cls(**{**state, "layers": tuple(state["layers"])})


def _bank_of(bank: Mapping[str, Any]) -> int:
    """A number for what a bank does, the same for descriptions of any version."""
    views = [(view["augmentation"], view["severity"], view["transform"]) for view in bank.get("views", ())]
    return stable_seed(bank.get("seed"), bank.get("mean"), bank.get("std"), bank.get("value_range"), views)


def summarise(result: ProbeResult, origin: Origin) -> dict[str, float]:
    """Sum up a result of a sensitivity probe.

    Args:
        result: the result.
        origin: what its spread is relative to.

    Returns:
        ``embedding_sensitivity``, ``spread`` (NaN where there is none, here or at the origin), ``flip_rate`` and
        ``accuracy_drop``, each where it was measured, and ``seconds``.
    """
    values: dict[str, float] = {}
    if "sensitivity" in result.metrics:
        values["embedding_sensitivity"] = result.value("sensitivity", layer=result.metadata["embedding"])
    if "spread" in result.metrics:
        values["spread"] = math.nan
        if origin.has_spread:
            values["spread"] = _spread(result) / origin.spread
    values |= {metric: result.value(metric) for metric in _OF_THE_OUTPUT if metric in result.metrics}
    values["seconds"] = result.metadata["seconds"]
    return values


def size_of(result: ProbeResult) -> str:
    """How much was measured, such as "256 images x 19 views x 16 layers, embedding fc1"."""
    counts = [counted(result.metadata["num_images"], "image")]
    if not is_of_clean_images(result):
        counts.append(counted(len(result.views), "view"))
    size = " x ".join([*counts, counted(len(result.layers), "layer")])
    embedding = result.metadata.get("embedding")
    if embedding is None:
        # A probe of one's own may have none.
        return size
    return f"{size}, embedding {embedding}"


def work_ahead(deal: Sequence[Sequence[int]], views: int, batch_size: int, *, twins: int = 0) -> str:
    """How much is about to be done, such as "256 images x 19 views, about 160 forward passes of up to 32 images".

    Args:
        deal: the images of each block.
        views: how many there are; 0 where images are looked at as they are.
        batch_size: of a pass.
        twins: how many views have noise as long as their movement beside them.
    """
    sizes = [len(block) for block in deal]
    passes = sum(
        len(slices(size, batch_size)) * (1 + len(view_groups(views + twins, size, batch_size))) for size in sizes
    )
    work = counted(sum(sizes), "image")
    if views:
        work = f"{work} x {counted(views, 'view')}"
    if twins:
        work = f"{work} and their noise"
    return f"{work}, about {counted(passes, 'forward pass', 'forward passes')} of up to {counted(batch_size, 'image')}"


def compared(results: Sequence[ProbeResult]) -> dict[str, ProbeResult]:
    """The results that one picture shows: the first, the previous and the latest that are comparable, each once."""
    latest = results[-1]
    first = next(result for result in results if _alike(result, latest))
    if first is latest:
        return {"now": latest}
    shown = {"start": first}
    previous = results[-2]
    if previous is not first and _alike(previous, latest):
        shown["previous"] = previous
    shown["now"] = latest
    return shown


def _alike(result: ProbeResult, other: ProbeResult) -> bool:
    return not Origin.of(result).differences(Origin.of(other))


def _spread(result: ProbeResult) -> float:
    """The spread of the embedding; of its class token, where it has one; NaN without one."""
    if "spread" not in result.metrics:
        return math.nan
    layers = result.table("spread").layers
    embedding = str(result.metadata["embedding"])
    for layer in (embedding, f"{embedding}:cls"):
        if layer in layers:
            return result.value("spread", layer=layer)
    return math.nan
