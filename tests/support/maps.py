"""Maps on a grid of a 32 x 32 image, moves of that image, and what the metrics of maps make of them."""

from dataclasses import replace

import torch
from torch import nn

from kornia_lightning_probe.metrics import About, EquivarianceError, InterpolationFloor, InvarianceError

SIDE = 32
KINDS = (EquivarianceError, InvarianceError, InterpolationFloor)


def uniform(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def smooth(count=8, side=SIDE, seed=0):
    coarse = uniform(count, 3, 6, 6, seed=seed)
    return nn.functional.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=True).clamp(0, 1)


def matrices(rows, count=8):
    return torch.tensor(rows).repeat(count, 1, 1)


HFLIP = [[-1.0, 0.0, SIDE - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
ROT90 = [[0.0, 1.0, 0.0], [-1.0, 0.0, SIDE - 1.0], [0.0, 0.0, 1.0]]
SHIFT = [[1.0, 0.0, 4.0], [0.0, 1.0, 8.0], [0.0, 0.0, 1.0]]
# What each does to a map, pixels or cells; a shift brings zeros in.
MOVES = {
    "hflip": (HFLIP, lambda x: x.flip(-1)),
    "rot90": (ROT90, lambda x: x.rot90(1, (2, 3))),
    "shift": (SHIFT, lambda x: nn.functional.pad(x, (4, -4, 8, -8))),
}


def about_of(clean, augmented, matrix, *, image_size=(SIDE, SIDE), layer="layer", **more):
    return About.of(clean, augmented, layer=layer, matrix=matrix, image_size=image_size, **more)


def some_rows(whole, rows, start=0):
    ids = (start + rows.start, start + rows.stop)
    shown = replace(whole.shown, ids=ids, rows=rows, matrix=whole.matrix[rows])
    return replace(whole, shown=shown, augmented=whole.augmented[rows])


def measured(metric, about):
    prepared = metric.prepare(["view"], [about.layer], about.ids[1])
    prepared.update(about.clean, about.augmented, about)
    return prepared


def value(metric, about):
    return float(measured(metric, about).estimates().value)


def all_values(about, **options):
    return [value(kind(max_images=None, **options), about) for kind in KINDS]
