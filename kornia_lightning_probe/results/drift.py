"""How far each layer has drifted: Gram matrices of one probe kept, and those of a later probe compared with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from kornia_lightning_probe.functional.similarity import centred_gram, debiased_cka, rankme
from kornia_lightning_probe.quantity import Quantity
from kornia_lightning_probe.results.lookup import ProbeNumbers
from kornia_lightning_probe.results.plain import Part
from kornia_lightning_probe.results.tables import CLEAN, MetricTable

REFERENCES = ("previous", "first")


def _alignment_quantity(reference: str) -> Quantity:
    return Quantity(
        meaning=f"debiased CKA with the {reference} probe, 1: the same up to rotation and scale",
        range=(-1.0, 1.0),
        scale=(0.0, 1.0),
        marks=((0.0, "0"), (0.5, "0.5"), (1.0, "1 (the same up to rotation and scale)")),
        line=1.0,
        logged=True,
    )


CKA_PREVIOUS = _alignment_quantity("previous")
CKA_FIRST = _alignment_quantity("first")
RANK = Quantity(meaning="how many directions the images spread over", range=(1.0, float("inf")))
_ALIGNMENTS = {"previous": CKA_PREVIOUS, "first": CKA_FIRST}


@dataclass(frozen=True, eq=False)
class CleanFeatures:
    """One row of features for each clean image and layer, and whose they are.

    Args:
        tables: by name, in order of execution, (N, d) float64 on the CPU; NaN where an image's activation is missing.
            A layer with a class token has two, ``name:cls`` and ``name:patch``.
        layers: the layers, in order of execution.
        embedding: the name of the embedding's table.
        content_hash: of the images.
        readout: "pooled" or "flattened" features.
    """

    tables: Mapping[str, Tensor]
    layers: tuple[str, ...]
    embedding: str
    content_hash: str
    readout: str

    @property
    def num_images(self) -> int:
        """N."""
        return len(self.tables[self.embedding])

    @cached_property
    def triangles(self) -> dict[str, Tensor]:
        """By name the images' centred Gram matrix as a :class:`Snapshot` keeps it."""
        return {name: _packed(centred_gram(table)) for name, table in self.tables.items()}

    @property
    def dead(self) -> list[str]:
        """The names whose features are the same for all images."""
        return [name for name, triangle in self.triangles.items() if not _has_spread(triangle)]

    @property
    def missing(self) -> Tensor:
        """Which images have a feature that is not finite, (names, N) of bool."""
        return torch.stack([table.isnan().any(1) for table in self.tables.values()])


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
    def of(cls, features: CleanFeatures, *, epoch: int) -> Snapshot:
        """The snapshot of a probe's features; nothing of them is kept."""
        return cls(
            epoch=epoch,
            content_hash=features.content_hash,
            readout=features.readout,
            num_images=features.num_images,
            triangles=features.triangles,
        )

    def take_up(self, later: Snapshot) -> list[str]:
        """Take a later probe's matrices of those layers of which this one has none, or one without a spread.

        Returns:
            The layers that had no spread and have one now.
        """
        for name, triangle in later.triangles.items():
            self.triangles.setdefault(name, triangle)
        woken = [name for name, triangle in later.triangles.items() if _wakes(self.triangles[name], triangle)]
        for name in woken:
            self.triangles[name] = later.triangles[name]
        return woken

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
        """What :meth:`state` has written.

        Raises:
            ValueError: where something in it is missing or malformed, with its place.
        """
        return cls.read(Part(state))

    @classmethod
    def read(cls, whole: Part) -> Snapshot:
        """As :meth:`from_state`, from a part of a state."""
        snapshot: Snapshot = whole.record(cls)
        count = snapshot.num_images * (snapshot.num_images + 1) // 2
        for name, part in whole.entry("triangles").items():
            snapshot.triangles[name] = part.tensor((count,), torch.float32)
        return snapshot


@dataclass
class DriftRecord:
    """Compares each probe with the first and the previous one.

    Args:
        references: "previous", "first" or both.
        held: the snapshots to compare with; both names hold one object after the first probe.
    """

    references: Sequence[str] = REFERENCES
    held: dict[str, Snapshot] = field(default_factory=dict)

    def compare(
        self, features: CleanFeatures, *, epoch: int, step: int, metadata: Mapping[str, Any] | None = None
    ) -> ProbeNumbers:
        """Compare a probe with those before, and hold it for those to come.

        Args:
            features: of this probe.
            epoch: when they were taken.
            step: likewise.
            metadata: what else is known of it; the epochs of the references are added.

        Returns:
            Numbers of one view, the clean images, and the metrics ``cka_previous`` and ``cka_first`` of every layer
            and ``rankme`` of the embedding. Where there is nothing yet to compare with, a metric has NaN and no rows.

        Raises:
            ValueError: for other images, or other features of them, than before.
        """
        now = Snapshot.of(features, epoch=epoch)
        for snapshot in self.held.values():
            snapshot.require_comparable(now)
        tables: dict[str, MetricTable] = {}
        epochs: dict[str, int | None] = {}
        for name in self.references:
            before = self.held.get(name)
            tables[f"cka_{name}"] = _alignment(now, before, _ALIGNMENTS[name])
            epochs[name] = None if before is None else before.epoch
        tables["rankme"] = _rank(features)
        numbers = ProbeNumbers(
            layers=features.layers,
            views=[CLEAN],
            tables=tables,
            epoch=epoch,
            step=step,
            metadata={**(metadata or {}), "references": epochs},
        )
        self._hold(now)
        return numbers

    def new_layers(self, features: CleanFeatures) -> list[str]:
        """Layers that the previous probe did not have, so that nothing can be compared there yet."""
        if not self.held:
            return []
        last = max(self.held.values(), key=lambda snapshot: snapshot.epoch)
        return [name for name in features.tables if name not in last.triangles]

    def _hold(self, now: Snapshot) -> None:
        for name in self.references:
            if name == "first":
                self.held.setdefault(name, now)
            else:
                self.held[name] = now

    def state(self) -> dict[str, Any]:
        """Plain containers and tensors."""
        return {name: snapshot.state() for name, snapshot in self.held.items()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up the references of :meth:`state`; those that are no longer asked for are let go.

        Raises:
            ValueError: where the state is malformed, with the place in it.
        """
        held = {name: Snapshot.read(part) for name, part in Part(state, "references").items()}
        self.held = {name: held[name] for name in self.references if name in held}


def _has_spread(triangle: Tensor) -> bool:
    return bool(triangle.nan_to_num().any())


def _wakes(before: Tensor, now: Tensor) -> bool:
    return _has_spread(now) and not _has_spread(before)


def _packed(gram: Tensor) -> Tensor:
    rows, columns = torch.tril_indices(*gram.shape)
    triangle = gram[rows, columns]
    largest = triangle.nan_to_num().abs().max()
    if largest > 0:
        triangle = triangle / largest
    return triangle.float()


def _alignment(now: Snapshot, before: Snapshot | None, quantity: Quantity) -> MetricTable:
    names = tuple(now.triangles)
    unknown = torch.full((1, len(names)), torch.nan, dtype=torch.float64)
    nothing = torch.zeros(unknown.shape)
    if before is None:
        return MetricTable(names, unknown, unknown, nothing, torch.tensor(False), quantity=quantity)
    value, num_images = unknown.clone(), nothing
    for column, name in enumerate(names):
        first, second = now.gram(name), before.gram(name)
        value[0, column] = debiased_cka(first, second)
        num_images[0, column] = (first + second).diagonal().isfinite().sum()
    return MetricTable(names, value, unknown, num_images, quantity=quantity)


def _rank(features: CleanFeatures) -> MetricTable:
    table = features.tables[features.embedding]
    num_images = table.isfinite().all(1).sum().view(1, 1)
    no_error = torch.full((1, 1), torch.nan)
    return MetricTable((features.embedding,), rankme(table).view(1, 1), no_error, num_images, quantity=RANK)
