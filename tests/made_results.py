"""Results made by hand, for the tests of everything that reads results."""

import torch

from kornia_lightning_probe.result import MetricTable, ProbeResult, ViewInfo

LADDERS = {"hflip": (1.0,), "rotation": (5.0, 15.0, 30.0), "blur": (0.005, 0.01)}


def views_of(ladders):
    return [ViewInfo(name, i, severity) for name, steps in ladders.items() for i, severity in enumerate(steps, start=1)]


def table_of(layers, value, error=0.01, images=32, attempted=None):
    value = torch.as_tensor(value, dtype=torch.float64)
    options = {} if attempted is None else {"attempted": attempted}
    return MetricTable(layers, value, torch.full_like(value, error), torch.full(value.shape, images), **options)


def made_result(layers=("conv1", "conv2", "fc"), *, ladders=LADDERS, epoch=3, tables=None, metadata=None):
    """Sensitivity of view v at layer l is v/10 + l/100, the input and an output included."""
    views = views_of(ladders)
    columns = ("input", *layers, "output")
    value = torch.arange(len(views))[:, None] / 10 + torch.arange(len(columns)) / 100
    tables = {"sensitivity": table_of(columns, value), **(tables or {})}
    known = {"num_images": 32, "device": "cpu"} if metadata is None else metadata
    return ProbeResult(layers=layers, views=views, tables=tables, epoch=epoch, step=40 * epoch, metadata=known)
