"""Each image's part in the one sensitivity, which the result keeps beside the means over images."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from kornia_lightning_probe.bank.views import View
from kornia_lightning_probe.metrics.layers.sensitivity import Ledger
from kornia_lightning_probe.results.tables import ImageScores


def image_scores(
    ledger: Ledger, views: Sequence[View], labels: Tensor | None, *, without: Collection[str]
) -> ImageScores:
    """Each image's part in the sensitivities of a ledger that holds all images.

    Args:
        ledger: with the tables (view, layer, image) of d_i and e_i.
        views: the bank's.
        labels: of all images, (N,) int64, -1 for none; None where there are none.
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
    return ImageScores(tuple(ledger.layers[column] for column in columns), moved, apart, labels)
