"""Where the cells of a grid lie in the image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

Size = tuple[int, int]
Place = tuple[float, ...]


@dataclass(frozen=True)
class Grid:
    r"""Where cells lie: cell :math:`i` along an axis at :math:`o + s\,i` pixels, integers at pixel centres.

    Args:
        size: cells along each axis, (rows, columns) of a map.
        stride: s, pixels from one cell to the next.
        offset: o, the pixel of the first cell's centre.
        spread: by how many pixels a cell may lie off that, where branches that are added up disagree, or cells are
            shares of uneven size.

    Example:
        >>> Grid((4, 4), (2.0, 2.0), (0.5, 0.5), (0.0, 0.0)) == Grid.tiling((8, 8), (4, 4))
        True
    """

    size: tuple[int, ...]
    stride: Place
    offset: Place
    spread: Place

    @classmethod
    def tiling(cls, image_size: Size, size: Size) -> Grid:
        """The grid whose cells tile an image, as those of pooled and patchified maps do: o = (s - 1) / 2.

        Args:
            image_size: height and width in pixels.
            size: height and width in cells.
        """
        strides = [pixels / cells for pixels, cells in zip(image_size, size, strict=True)]
        offsets = [(stride - 1) / 2 for stride in strides]
        return cls(size, tuple(strides), tuple(offsets), (0.0,) * len(size))

    def to_image(self) -> Tensor:
        """The matrix G that takes a cell (x, y, 1) of a map to the pixel at its centre.

        Returns:
            (3, 3) float64.

        Example:
            >>> centre = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
            >>> Grid.tiling((8, 16), (4, 4)).to_image() @ centre  # cells of 2 rows and 4 columns
            tensor([5.5000, 0.5000, 1.0000], dtype=torch.float64)
        """
        # Axes are (down, right), points (x, y).
        matrix = torch.diag(torch.tensor([*reversed(self.stride), 1.0], dtype=torch.float64))
        matrix[:-1, -1] = torch.tensor(self.offset[::-1], dtype=torch.float64)
        return matrix

    def facts(self) -> dict[str, list[float]]:
        """The same as plain data: size, stride, offset and spread, one number for each axis of the image."""
        return {
            "size": list(self.size),
            "stride": list(self.stride),
            "offset": list(self.offset),
            "spread": list(self.spread),
        }
