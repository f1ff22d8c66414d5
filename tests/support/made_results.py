"""Results made by hand, for the tests of everything that reads results."""

import torch

from kornia_lightning_probe.quantity import Quantity, sensitivity_quantity
from kornia_lightning_probe.result import MetricTable, ProbeResult, ViewInfo

LADDERS = {"hflip": (1.0,), "rotation": (5.0, 15.0, 30.0), "blur": (0.005, 0.01)}
SENSITIVITY = sensitivity_quantity("0: the layer does not notice; 1: as far as swapping the image", logged=True)
COSINE = Quantity(
    meaning="1: the same direction",
    range=(-1.0, 1.0),
    at_identity=1.0,
    scale=(-1.0, 1.0),
    marks=((-1.0, "-1 (opposite)"), (1.0, "1 (one direction)")),
)


def views_of(ladders):
    return [ViewInfo(name, i, severity) for name, steps in ladders.items() for i, severity in enumerate(steps, start=1)]


def table_of(layers, value, error=0.01, images=32, attempted=None, quantity=None):
    value = torch.as_tensor(value, dtype=torch.float64)
    options = {"attempted": attempted, "quantity": quantity}
    given = {name: option for name, option in options.items() if option is not None}
    return MetricTable(layers, value, torch.full_like(value, error), torch.full(value.shape, images), **given)


def made_result(layers=("conv1", "conv2", "fc"), *, ladders=LADDERS, epoch=3, tables=None, metadata=None):
    """Sensitivity of view v at layer l is v/10 + l/100, the input and an output included."""
    views = views_of(ladders)
    columns = ("input", *layers, "output")
    value = torch.arange(len(views))[:, None] / 10 + torch.arange(len(columns)) / 100
    tables = {"sensitivity": table_of(columns, value, quantity=SENSITIVITY), **(tables or {})}
    known = {"num_images": 32, "device": "cpu"} if metadata is None else metadata
    return ProbeResult(layers=layers, views=views, tables=tables, epoch=epoch, step=40 * epoch, metadata=known)


def moving_result(*, layers=("conv1", "conv2", "fc"), tables=None):
    """Two views of rotation, which moves pixels, and one of blur, which doesn't; sensitivity is .5 but for .25 of maps
    under rotation, the flattened one .5 everywhere."""
    views = [
        ViewInfo("rotation", 1, 15.0, from_identity=True, moves_pixels=True),
        ViewInfo("rotation", 2, 30.0, from_identity=True, moves_pixels=True),
        ViewInfo("blur", 1, 0.01, from_identity=True),
    ]
    columns = ("input", *layers)
    flat = torch.full((3, len(columns)), 0.5)
    shown = flat.clone()
    shown[:2, 1:-1] = 0.25
    known = {
        "sensitivity": table_of(columns, shown, quantity=SENSITIVITY),
        "sensitivity_flat": table_of(columns, flat, quantity=SENSITIVITY),
        **(tables or {}),
    }
    return ProbeResult(layers=layers, views=views, tables=known, metadata={"num_images": 32})
