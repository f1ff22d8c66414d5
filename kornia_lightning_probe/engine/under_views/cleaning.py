"""The clean side of a block: its activations read in every way and centred, on itself or on reference images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from kornia_lightning_probe.activations.clean import Centre, CleanBlock, MeanOfBlocks, mask_non_finite
from kornia_lightning_probe.activations.site import Site
from kornia_lightning_probe.engine.under_views.preparing import Reader
from kornia_lightning_probe.functional.memory import Temporaries

#: By layer, the clean block of each reader.
Clean = dict[str, list[CleanBlock]]


class Cleaning:
    """Reads clean activations as the readers of each layer do.

    Args:
        readers: by layer.
        temporaries: memory that all blocks and layers use.
    """

    def __init__(self, readers: Mapping[str, Sequence[Reader]], temporaries: Temporaries) -> None:
        self._readers = readers
        self._temporaries = temporaries
        self._centres: dict[str, list[Centre]] = {}

    def read(self, activations: Mapping[str, Tensor]) -> Clean:
        """The clean activations of a whole block; they may be written to."""
        clean: Clean = {}
        for name, readers in self._readers.items():
            if name in activations:
                clean[name] = self._read_layer(name, readers, activations[name])
        mask_non_finite(entry for entries in clean.values() for entry in entries)
        return clean

    def centre_on(self, blocks: Iterable[Mapping[str, Tensor]]) -> None:
        """Take mean and between-image distance from these blocks for all that follow; one is held at a time."""
        means = {name: [MeanOfBlocks() for _ in readers] for name, readers in self._readers.items()}
        for activations in blocks:
            for name, entries in self.read(activations).items():
                for mean, entry in zip(means[name], entries, strict=True):
                    mean.add(entry)
        self._centres = {name: [mean.value() for mean in found] for name, found in means.items()}

    def _read_layer(self, name: str, readers: Sequence[Reader], activation: Tensor) -> list[CleanBlock]:
        # Readers of one site differ in who wants them only.
        entries: dict[Site, CleanBlock] = {}
        for number, reader in enumerate(readers):
            site = reader.readout.site
            if site not in entries:
                centre = self._centres[name][number] if self._centres else None
                taken = reader.readout.take(reader.upcast(activation))
                entries[site] = CleanBlock(taken, centre=centre, owned=True, temporaries=self._temporaries)
        return [entries[reader.readout.site] for reader in readers]
