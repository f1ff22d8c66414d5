"""Each image's part in the one sensitivity, and its label: what the result keeps beside the means over images."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from kornia_lightning_probe.bank.views import View
from kornia_lightning_probe.images.blocks import Block
from kornia_lightning_probe.metrics.layers.sensitivity import Ledger
from kornia_lightning_probe.results.tables import ImageScores


class Labels:
    """The integer labels of all images, of which each process knows its own.

    Args:
        num_images: N.

    Attributes:
        table: (N,) float64, the label plus 1, 0 for none; the sum over all processes is the whole.
    """

    def __init__(self, num_images: int) -> None:
        # The caller may be in inference mode, and what is made there can't be added to elsewhere.
        with torch.inference_mode(False):
            self.table = torch.zeros(num_images, dtype=torch.float64)

    def see(self, block: Block) -> None:
        """Note a block's labels, unless they are masks."""
        if block.labels is not None and block.labels.ndim == 1:
            self.table[block.ids.start : block.ids.stop] = block.labels.clamp(min=-1).cpu().double() + 1

    def whole(self) -> Tensor | None:
        """(N,) int64, -1 for none; None where no image has any."""
        if not bool(self.table.any()):
            return None
        return self.table.long() - 1


def image_scores(ledger: Ledger, views: Sequence[View], labels: Labels, *, without: Collection[str]) -> ImageScores:
    """Each image's part in the sensitivities of a ledger that holds all images.

    Args:
        ledger: with the tables (view, layer, image) of d_i and e_i.
        views: the bank's.
        labels: of all images.
        without: layers that are left out after all.
    """
    columns = [column for column, layer in enumerate(ledger.layers) if layer not in without]
    tables = ledger.named_tables()
    distance, deviation = (tables[name][:, columns].cpu() for name in ("distance", "deviation"))
    known = distance.isfinite() & deviation.isfinite()
    mean = torch.where(known, deviation, torch.nan).nanmean(2, keepdim=True)
    mean = torch.where(mean > 0, mean, torch.nan)
    moved = (distance / (2 * mean)).float()
    apart = torch.full((2, *moved.shape[1:]), torch.nan)
    for kind in (False, True):
        places = [place for place, view in enumerate(views) if view.moves_pixels == kind]
        if places:
            # What is clean is the same under all of them.
            apart[int(kind)] = (deviation / mean)[places[0]].float()
    return ImageScores(tuple(ledger.layers[column] for column in columns), moved, apart, labels.whole())
