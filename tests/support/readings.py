"""Metrics that are prepared for made-up layers, and blocks as the engine reads them."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from kornia_lightning_probe.activations.clean import CleanBlock
from kornia_lightning_probe.activations.site import Site
from kornia_lightning_probe.engine.notes import Findings
from kornia_lightning_probe.engine.under_views.preparing import prepare
from kornia_lightning_probe.engine.under_views.readings import Reading
from kornia_lightning_probe.metrics import BlockMetric, ProbeMetric, resolve_metrics

STILL = SimpleNamespace(moves_pixels=False)
MOVING = SimpleNamespace(moves_pixels=True)


def site_of(name, shape, index=1):
    """The pixels, the output, or a layer, by its name."""
    kind = name if name in ("input", "output") else "layer"
    return Site(name, index, tuple(shape), kind)


def prepared_for(metrics, *sites, views=(STILL,) * 3, num_images=4, findings=None, default_set=False):
    """The metrics with their tables, at these sites."""
    return prepare(
        resolve_metrics(metrics),
        sites,
        views,
        num_images,
        device=torch.device("cpu"),
        findings=findings or Findings(),
        default_set=default_set,
    )


def readings_of(prepared, activations):
    """Each layer's block, in every way in which it is read."""
    readings = {}
    number = 0
    for name, readers in prepared.readers.items():
        readings[name] = []
        for reader in readers:
            clean = CleanBlock(reader.readout.take(activations[name]))
            readings[name].append(Reading(number, reader, clean, reader.wishes))
            number += 1
    return readings


class Sees(ProbeMetric):
    """Keeps what it is shown, view by view: a number for each image, the sum of what is augmented."""

    name = "sees"
    statistics = ("total",)

    def measure(self, clean, augmented, about):
        return {"total": augmented.flatten(1).sum(1)}


class SeesBlocks(BlockMetric):
    """The same of whole blocks under several views; it knows how many of them came at once."""

    name = "sees_blocks"
    statistics = ("total", "views")

    def measure_block(self, clean, augmented, about):
        total = augmented.flatten(2).sum(2)
        return {"total": total, "views": torch.full_like(total, len(augmented))}

    def reduce(self, table):
        return table["total"].mean(-1), table["views"].mean(-1)
