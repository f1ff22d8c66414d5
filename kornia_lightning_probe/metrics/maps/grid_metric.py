"""The base of measures that need to know where the cells of a layer's grid lie in the image."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from torch import Tensor
from typing_extensions import override

from kornia_lightning_probe.activations.about import About
from kornia_lightning_probe.activations.site import Site
from kornia_lightning_probe.functional.grid_warp import GridWarp
from kornia_lightning_probe.metrics.base import ProbeMetric

#: An eroded mask has nothing left of a smaller grid.
SMALLEST = 3

# Grids and views, so many of them, are kept for the next layer.
_KEPT = 8


def has_grid(site: Site) -> bool:
    """Whether it is known where a site's cells lie, and they are 3 x 3 or more.

    Example:
        >>> from kornia_lightning_probe.activations.cells import Cells
        >>> from kornia_lightning_probe.functional.grids import Grid
        >>> has_grid(Site("layer", 1, (64, 14, 7), cells=Cells(Grid.tiling((28, 28), (14, 7)))))
        True
        >>> has_grid(Site("layer", 1, (64, 14, 7), cells="roll was not undone"))
        False
    """
    return site.grid is not None and min(site.grid.size) >= SMALLEST


class GridMetric(ProbeMetric):
    """Measures on the grid of a layer or of the output, whose place in the image its site knows."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._warps: dict[Hashable, GridWarp] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_warps": {}}

    @override
    def let_go(self) -> None:
        super().let_go()
        self._warps.clear()

    def warp(self, about: About) -> GridWarp | None:
        """The view's transform on the layer's grid.

        Args:
            about: any.

        Returns:
            None where the view does not tell its matrix, or nobody knows where the cells lie.
        """
        matrix, image_size, grid = about.matrix, about.image_size, about.site.grid
        if matrix is None or image_size is None or grid is None:
            return None
        device = about.augmented.device
        key = (_bytes_of(matrix), _bytes_of(about.through), about.frames, image_size, grid, device)
        warp = self._warps.pop(key, None)
        if warp is None:
            warp = GridWarp(
                matrix.detach().cpu(), image_size, grid, device=device, through=about.through, frames=about.frames
            )
        self._warps[key] = warp
        if len(self._warps) > _KEPT:
            del self._warps[next(iter(self._warps))]
        return warp


def _bytes_of(matrix: Tensor | None) -> bytes:
    if matrix is None:
        return b""
    return matrix.detach().cpu().contiguous().numpy().tobytes()
