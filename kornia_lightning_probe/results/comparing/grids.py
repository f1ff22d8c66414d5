"""Where the cells of the layers of two results lie, and what can't be compared where these are two grids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from kornia_lightning_probe.results.lookup import ProbeNumbers
from kornia_lightning_probe.results.tables import ViewInfo
from kornia_lightning_probe.wording import listed

# What a result says of a layer's grid: size, stride, offset and spread.
_Facts = Mapping[str, Sequence[float]]


class OtherGrids:
    """The layers whose cells lie elsewhere in the image in one of two results, and what can't be compared there.

    Maps that were carried along on two grids have other cells, masks and interpolations; what was compared in place
    has not.

    Args:
        first: a result.
        second: another one.
    """

    def __init__(self, first: ProbeNumbers, second: ProbeNumbers) -> None:
        self._results = (first, second)
        here, there = (numbers.metadata.grids or {} for numbers in self._results)
        self._pairs = {
            layer: (facts, there[layer])
            for layer, facts in here.items()
            if layer in there and _plain(facts) != _plain(there[layer])
        }

    def refuse(self, metric: str, layer: str) -> bool:
        """Whether nothing of a metric can be compared at a layer, since every view that it has moves pixels."""
        if not self._concern(metric, layer):
            return False
        first, _ = self._results
        table = first.table(metric)
        attempted = table.attempted[:, table.layers.index(layer)].tolist()
        return all(view.moves_pixels for view, known in zip(first.views, attempted, strict=True) if known)

    def carried(self, metric: str, layers: Sequence[str], views: Sequence[ViewInfo]) -> Tensor | None:
        """The cells of a metric that can't be compared, (view, layer) bool; None where there are none."""
        there = torch.tensor([self._concern(metric, layer) for layer in layers])
        if not there.any():
            return None
        moved = torch.tensor([view.moves_pixels for view in views])
        return moved.unsqueeze(1) & there

    def sentences(self) -> Iterator[str]:
        """A sentence for each layer: what is not compared there, and where the cells lie."""
        first, _ = self._results
        for layer, (here, there) in self._pairs.items():
            names = [metric for metric in first.metrics if self._concern(metric, layer)]
            if names:
                yield f"{listed(names)} at layer {layer}: its cells lie on two grids, {_told(here)} and {_told(there)}"

    def notes(self, metrics: Sequence[str]) -> Iterator[str]:
        """A sentence where a result does not say where cells lie, though some of these metrics depend on it."""
        on_grid = [metric for metric in metrics if self._is_on_grid(metric)]
        named = zip(("first", "second"), self._results, strict=True)
        silent = [which for which, numbers in named if numbers.metadata.grids is None]
        if on_grid and silent:
            which = f"the {silent[0]} result does not say" if len(silent) == 1 else "neither result says"
            yield f"{which} where cells lie: {listed(on_grid)} may be of two grids"

    def _concern(self, metric: str, layer: str) -> bool:
        """Whether both have a metric at a layer, it depends on where cells lie, and these are two places."""
        if layer not in self._pairs or not self._is_on_grid(metric):
            return False
        tables = [numbers.tables.get(metric) for numbers in self._results]
        return all(table is not None and layer in table.layers for table in tables)

    def _is_on_grid(self, metric: str) -> bool:
        tables = [numbers.tables[metric] for numbers in self._results if metric in numbers.tables]
        return any(table.quantity.on_grid for table in tables)


def _told(facts: _Facts) -> str:
    size = " x ".join(f"{cells:g}" for cells in facts["size"])
    stride, offset = (", ".join(f"{pixels:g}" for pixels in facts[name]) for name in ("stride", "offset"))
    return f"{size} cells with stride ({stride}) and offset ({offset})"


def _plain(facts: _Facts) -> dict[str, list[float]]:
    return {name: [float(number) for number in numbers] for name, numbers in facts.items()}
