"""How much a single image, cell or token holds of what a sensitivity is made of, and who it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kornia_lightning_probe.activations.about import About, Distances
from kornia_lightning_probe.activations.clean import CleanBlock
from kornia_lightning_probe.activations.positions import by_position, positions_of
from kornia_lightning_probe.activations.site import Site
from kornia_lightning_probe.functional.estimates import Estimate, ratio_of_roots, sensitivity
from kornia_lightning_probe.functional.robust import loud_parts, median, shares_of
from kornia_lightning_probe.metrics.base import DistanceMetric
from kornia_lightning_probe.metrics.block_sums import BlockSums, Sums
from kornia_lightning_probe.metrics.layers.sensitivity import OneRepresentation
from kornia_lightning_probe.quantity import sensitivity_quantity, share_quantity
from kornia_lightning_probe.wording import listed

# Where a sensitivity is below this, all movement is rounding, which may well be that of one image.
_ROUNDING = 1e-5


_FEWEST_POSITIONS = 4


class ImageDominance(OneRepresentation):
    r"""The largest share that one image has in the sum of :math:`d_i`, or in that of :math:`e_i`, in [1/N, 1].

    Where it is large, ``sensitivity`` is that of one image or of a few; ``sensitivity_median`` is the typical one's.
    The probe names images that each hold more than ten times an equal share where these hold more than half together,
    and one that alone holds more than half of four or more. Movement that is rounding alone does not count. Of the
    representation that ``sensitivity`` compares; it has no standard error.

    Example:
        >>> import torch
        >>> from kornia_lightning_probe.metrics import About
        >>> clean = torch.tensor([[0.0], [2.0], [4.0], [6.0]])
        >>> moved = clean + torch.tensor([[1.0], [1.0], [1.0], [3.0]])
        >>> metric = ImageDominance().prepare(views=["shift"], layers=["fc"], num_images=4)
        >>> metric.update(clean, moved, About.of(clean, moved, layer="fc"))
        >>> float(metric.compute().value)  # squared movements 1, 1, 1 and 9
        0.75
    """

    name = "image_dominance"
    quantity = share_quantity("largest share that one image has in the movement, or in the distance between images")

    def reduce(self, table: Mapping[str, Tensor]) -> Estimate:
        """The larger of the two largest shares."""
        shares = _shares(table)
        known = shares.isfinite()
        value = torch.where(known.any(-1), shares.nan_to_num(0.0).amax(-1), torch.nan)
        return Estimate(value.fmax(value.flip(0))[0], table["distance"].isfinite().sum(-1))

    def remarks(self, estimate: Estimate, layers: Sequence[str]) -> list[str]:
        """Name the images that speak for all, and where."""
        loud = loud_parts(_shares(self.named_tables()))
        if not bool(loud.any()):
            return []
        rows = loud.flatten(0, 2).any(0).nonzero().flatten().tolist()
        images = [self.image_ids[row] if self.image_ids else row for row in rows]
        where = _where(loud.any(-1).any(0), estimate.value, layers)
        whose = "image {} of the source holds"
        if len(images) > 1:
            whose = "images {} of the source hold"
        sentence = (
            f"{whose.format(listed(images))} more than half of the movement or of the distance between images at "
            f"{where}: sensitivity there is mostly theirs; sensitivity_median is of the typical image"
        )
        return [sentence]


class PositionDominance(BlockSums, DistanceMetric):
    """The largest share that one cell or token has in the variance between clean images, in [1/P, 1].

    Of the P cells of a feature map, or tokens of a sequence, whose variances are means over all blocks. One token that
    all images fill alike, or in which a global property of the image is kept, hides what the others do; the probe names
    those that each hold more than ten times an equal share where these hold more than half together, and one that alone
    holds more than half of four or more. The same under every view; it has no standard error.

    Example:
        >>> import torch
        >>> from kornia_lightning_probe.metrics import About
        >>> clean = torch.tensor([[[[0.0, 0.0], [5.0, 5.0]]], [[[3.0, 1.0], [5.0, 5.0]]]])  # one channel, 2 x 2 cells
        >>> metric = PositionDominance().prepare(views=["identity"], layers=["conv"], num_images=2)
        >>> metric.update(clean, clean, About.of(clean, clean, layer="conv"))
        >>> float(metric.compute().value)  # variances 9, 1, 0 and 0
        0.9
    """

    name = "position_dominance"
    clean_statistics = ("apart",)
    quantity = share_quantity("largest share that one cell or token has in the variance between images")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._grids: dict[str, tuple[int, ...]] = {}

    def applies_to(self, site: Site) -> bool:
        """Feature maps and sequences of at least four positions: of fewer one may well hold most."""
        return super().applies_to(site) and site.has_cells and positions_of(site).numel() >= _FEWEST_POSITIONS

    def width(self, site: Site) -> int:
        """The number of cells or tokens."""
        return positions_of(site).numel()

    def fit(self, site: Site) -> None:
        """Take the width of a site, and the axes along which its positions lie."""
        super().fit(site)
        self._grids = {**self._grids, site.name: tuple(positions_of(site))}

    def measure_distances(self, distances: Distances) -> Mapping[str, Any]:
        """The variance at each position."""
        if distances.site is None:
            raise ValueError(f"the metric {self.name!r} needs the site that distances are of, which is None")
        block, site = distances.block, distances.site
        return {"apart": block.remember(("apart by position",), lambda: _variance(block, site))}

    def reduce_means(self, means: Mapping[str, Tensor]) -> Tensor:
        """The largest of the variances over their sum."""
        return shares_of(means["apart"]).amax(-1)

    def remarks(self, estimate: Estimate, layers: Sequence[str]) -> list[str]:
        """Name the positions that speak for all."""
        found: list[str] = []
        for column, layer in enumerate(layers):
            if not bool(estimate.value[:, column].isfinite().any()):
                continue
            shares = shares_of(self.means(layer)["apart"])
            places = loud_parts(shares).nonzero().flatten().tolist()
            if places:
                named = listed([self._named(layer, place) for place in places], most=3)
                found.append(f"{layer} ({named}: {float(shares[places].sum()):.0%})")
        if not found:
            return []
        sentence = (
            f"single positions hold more than half of the variance between images at {listed(found)}: sensitivity_flat "
            "there is mostly theirs; sensitivity_positions, asked for by name, is of the typical position"
        )
        return [sentence]

    def _named(self, layer: str, place: int) -> str:
        grid = self._grids.get(layer, ())
        if len(grid) < 2:
            return f"token {place}"
        cell: list[str] = []
        for size in reversed(grid):
            place, rest = divmod(place, size)
            cell.insert(0, str(rest))
        return f"cell {' '.join(cell)}"


class SensitivityPositions(BlockSums):
    r"""The median over positions of each position's own sensitivity, in [0, inf): of the typical cell or token.

    Of the cells of a feature map, or tokens of a sequence, compared place by place. That of a position is the root
    of a ratio of means over the images of all blocks, :math:`\sqrt{\bar d_p / (2 \bar e_p)}`; positions that are the
    same for all images have none and are left out. Asked for by name; it has no standard error.

    Example:
        >>> import torch
        >>> from kornia_lightning_probe.metrics import About
        >>> clean = torch.tensor([[[[0.0, 0.0], [0.0, 7.0]]], [[[2.0, 2.0], [200.0, 7.0]]]])
        >>> moved = clean + torch.tensor([[1.0, 1.0], [0.0, 1.0]])
        >>> metric = SensitivityPositions().prepare(views=["shift"], layers=["conv"], num_images=2)
        >>> metric.update(clean, moved, About.of(clean, moved, layer="conv"))
        >>> float(metric.compute().value)  # cells move by 1, 1, 0 and 1 where images are 2, 2, 200 and 0 apart
        0.5
    """

    name = "sensitivity_positions"
    statistics = ("moved",)
    clean_statistics = ("apart",)
    quantity = sensitivity_quantity("sensitivity of the typical cell or token, the median over them")

    def applies_to(self, site: Site) -> bool:
        """Feature maps and sequences."""
        return super().applies_to(site) and site.has_cells

    def width(self, site: Site) -> int:
        """The number of cells or tokens."""
        return positions_of(site).numel()

    def measure(self, clean: Tensor, augmented: Tensor, about: About) -> Mapping[str, Any]:
        """Each position's squared movement, and the variance there."""
        rows = about.shown.rows
        squares = by_position((augmented - clean).square(), about.site).to(about.block.squared_deviation)
        known = about.valid & squares.isfinite().all(1)
        moved = torch.where(known.unsqueeze(1), squares, 0.0).sum(0)
        apart = about.block.remember(
            ("apart by position", rows.start, rows.stop),
            lambda: _variance(about.block, about.site, rows),
        )
        count = known.sum()
        return {"moved": Sums(moved.unsqueeze(0), count.unsqueeze(0)), "apart": apart}

    def reduce_means(self, means: Mapping[str, Tensor]) -> Tensor:
        """The median of the positions' sensitivities."""
        return median(ratio_of_roots(means["moved"], 2 * means["apart"]))


def _variance(block: CleanBlock, site: Site, rows: slice = slice(None)) -> Sums:
    """What some images of a block add to the variance at each position; nothing of a single image."""
    valid = block.valid[rows]
    squares = block.deviations(lambda squares: by_position(squares, site), rows).to(block.squared_deviation)
    total = torch.where(valid.unsqueeze(1), squares, 0.0).sum(0)
    if block.has_reference or block.num_valid < 2:
        # The reference keeps no variance of single positions.
        return Sums(total, valid.new_zeros((), dtype=torch.int64))
    return Sums(total * (block.num_valid / (block.num_valid - 1)), valid.sum())


def _shares(table: Mapping[str, Tensor]) -> Tensor:
    """Of each image in the movement and in the distance between images, (2, view, layer, image)."""
    distance, deviation = table["distance"], table["deviation"]
    moves = ~(sensitivity(distance, deviation).value < _ROUNDING)
    moved = torch.where(moves.unsqueeze(-1), shares_of(distance), torch.nan)
    return torch.stack([moved, shares_of(deviation)])


def _where(loud: Tensor, values: Tensor, layers: Sequence[str]) -> str:
    """The layers at which some view has a loud image, each with the largest share there."""
    largest = torch.where(loud, values, 0.0).amax(0).tolist()
    return listed([f"{layer} ({share:.0%})" for layer, share in zip(layers, largest, strict=True) if share > 0])
