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


def geometric_result(
    *, layers=("conv1", "conv2", "fc"), pooled=("input", "conv1", "conv2"), tables=None, influence=False
):
    """Flattened sensitivity is .5 everywhere, the pooled one .25; rotation moves pixels, blur doesn't."""
    views = [
        ViewInfo("rotation", 1, 15.0, from_identity=True, moves_pixels=True),
        ViewInfo("rotation", 2, 30.0, from_identity=True, moves_pixels=True),
        ViewInfo("blur", 1, 0.01, from_identity=True),
    ]
    columns = ("input", *layers)
    images = {"influence": torch.ones(3, len(columns), 4)} if influence else {}
    flat = MetricTable(
        columns,
        torch.full((3, len(columns)), 0.5),
        torch.full((3, len(columns)), 0.05),
        torch.full((3, len(columns)), 32),
        **images,
    )
    images = {"influence": torch.full((3, len(pooled), 4), 2.0)} if influence else {}
    mean = MetricTable(
        pooled,
        torch.full((3, len(pooled)), 0.25),
        torch.full((3, len(pooled)), 0.02),
        torch.full((3, len(pooled)), 30),
        **images,
    )
    tables = {"sensitivity": flat, "sensitivity_pooled": mean, **(tables or {})}
    return ProbeResult(layers=layers, views=views, tables=tables, metadata={"num_images": 32})
