"""How far each layer has drifted: Gram matrices of one probe kept, and those of a later probe compared with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kornia_lightning_probe.engine.features import Features
from kornia_lightning_probe.functional.similarity import centred_gram, debiased_cka, rankme
from kornia_lightning_probe.result import MetricTable, ProbeResult
from kornia_lightning_probe.results.tables import CLEAN

REFERENCES = ("previous", "first")


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What a later probe needs of this one: per layer the images' centred Gram matrix, whatever the layer's width.

    Matrices are kept as float32 triangles, scaled to a largest entry of 1: at 256 images 132 kB a layer. Rounding
    after centring and scaling moves a CKA by some 1e-9, and comparing what is kept, never what it was made from, gives
    a resumed training bit for bit the curve of an uninterrupted one.

    Args:
        epoch: of the probe.
        content_hash: of the images.
        readout: "pooled" or "flattened" features.
        num_images: N.
        triangles: by name, (N (N + 1) / 2,) float32, NaN where an image has no finite features.
    """

    epoch: int
    content_hash: str
    readout: str
    num_images: int
    triangles: dict[str, Tensor]

    @classmethod
    def of(cls, features: Features, *, epoch: int) -> Snapshot:
        """The snapshot of a probe's features; nothing of them is kept."""
        facts = features.findings.facts
        return cls(
            epoch=epoch,
            content_hash=facts["content_hash"],
            readout=facts["readout"],
            num_images=facts["num_images"],
            triangles={name: _packed(centred_gram(table)) for name, table in features.tables.items()},
        )

    def gram(self, name: str) -> Tensor:
        """A layer's Gram matrix, (N, N) float64, scaled; a layer that wasn't there is NaN everywhere."""
        shape = (self.num_images, self.num_images)
        if name not in self.triangles:
            return torch.full(shape, torch.nan, dtype=torch.float64)
        rows, columns = torch.tril_indices(*shape)
        gram = torch.empty(shape, dtype=torch.float64)
        gram[rows, columns] = gram[columns, rows] = self.triangles[name].double()
        return gram

    def require_comparable(self, other: Snapshot) -> None:
        """Refuse to compare features of other images, or other features.

        Raises:
            ValueError: where images or readouts differ.
        """
        if (self.content_hash, self.num_images) != (other.content_hash, other.num_images):
            raise ValueError(
                f"drift can only be measured on the same images: those of epoch {self.epoch} have the content hash "
                f"{self.content_hash} (N={self.num_images}), those of epoch {other.epoch} {other.content_hash} "
                f"(N={other.num_images}); give the probe the images, seed and num_images it had, or begin a new one "
                "under another name="
            )
        if self.readout != other.readout:
            raise ValueError(
                f"drift can only be measured on the same features: those of epoch {self.epoch} are {self.readout}, "
                f"those of epoch {other.epoch} {other.readout}; set flatten= as it was"
            )

    def state(self) -> dict[str, Any]:
        """Plain containers and tensors, which a checkpoint loads as weights only."""
        return {**vars(self), "triangles": dict(self.triangles)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Snapshot:
        """What :meth:`state` has written."""
        return cls(**state)


@dataclass
class DriftRecord:
    """Compares each probe with the first and the previous one.

    Args:
        references: "previous", "first" or both.
        held: the snapshots to compare with; both names hold one object after the first probe.
    """

    references: Sequence[str] = REFERENCES
    held: dict[str, Snapshot] = field(default_factory=dict)

    def compare(self, features: Features, *, epoch: int, step: int) -> ProbeResult:
        """Compare a probe with those before, and hold it for those to come.

        Args:
            features: of this probe.
            epoch: when they were taken.
            step: likewise.

        Returns:
            A result with one view, the clean images, and the metrics ``cka_previous`` and ``cka_first`` of every layer
            and ``rankme`` of the embedding. Where there is nothing yet to compare with, a metric has NaN and no rows.

        Raises:
            ValueError: for other images, or other features of them, than before.
        """
        now = Snapshot.of(features, epoch=epoch)
        for snapshot in self.held.values():
            snapshot.require_comparable(now)
        self._note(features, now)
        tables = {f"cka_{name}": _alignment(now, self.held.get(name)) for name in self.references}
        result = ProbeResult(
            layers=features.layers,
            views=[CLEAN],
            tables={**tables, "rankme": _rank(features)},
            epoch=epoch,
            step=step,
            metadata=features.findings.metadata(),
        )
        self._hold(now)
        return result

    def _hold(self, now: Snapshot) -> None:
        for name in self.references:
            self.held[name] = self.held.get(name, now) if name == "first" else now

    def _note(self, features: Features, now: Snapshot) -> None:
        findings = features.findings
        missing = torch.stack([table.isnan().any(1) for table in features.tables.values()])
        findings.non_finite(missing.unsqueeze(0), list(features.tables), findings.facts["image_ids"])
        findings.dead([name for name, triangle in now.triangles.items() if not triangle.nan_to_num().any()])
        findings.facts["references"] = {
            name: self.held[name].epoch if name in self.held else None for name in self.references
        }

    def state(self) -> dict[str, Any]:
        """Plain containers and tensors."""
        return {name: snapshot.state() for name, snapshot in self.held.items()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up the references of :meth:`state`; those that are no longer asked for are let go."""
        self.held = {name: Snapshot.from_state(state[name]) for name in self.references if name in state}


def _packed(gram: Tensor) -> Tensor:
    rows, columns = torch.tril_indices(*gram.shape)
    triangle = gram[rows, columns]
    largest = triangle.nan_to_num().abs().max()
    return (triangle / largest if largest > 0 else triangle).float()


def _alignment(now: Snapshot, before: Snapshot | None) -> MetricTable:
    names = tuple(now.triangles)
    value, num_images = torch.full((1, len(names)), torch.nan), torch.zeros(1, len(names), dtype=torch.int64)
    if before is not None:
        value = value.double()
        for column, name in enumerate(names):
            grams = now.gram(name), before.gram(name)
            value[0, column] = debiased_cka(*grams)
            num_images[0, column] = int((grams[0] + grams[1]).diagonal().isfinite().sum())
    attempted = torch.tensor(before is not None)
    return MetricTable(names, value, torch.full_like(value, torch.nan), num_images, attempted)


def _rank(features: Features) -> MetricTable:
    table = features.tables[features.embedding]
    images = table.isfinite().all(1).sum().view(1, 1)
    return MetricTable(
        (features.embedding,), rankme(table).view(1, 1), torch.full((1, 1), torch.nan), images.to(torch.int64)
    )
