"""Made-up activations, and metrics that have measured them, for the tests of metrics."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from kornia_lightning_probe.functional.estimates import mean_with_error
from kornia_lightning_probe.images.blocks import deal_blocks
from kornia_lightning_probe.metrics import About, FunctionMetric, Ledger, ProbeMetric, RelativeChange, resolve_metrics

LAYER = "layer"


class MeanShift(ProbeMetric):
    """How far the mean of an activation moves; nothing says what each image adds to it."""

    name = "mean_shift"
    statistics = ("shift",)

    def measure(self, clean, augmented, about):
        return {"shift": (augmented - clean).flatten(1).mean(1)}

    def reduce(self, table):
        estimate = mean_with_error(table["shift"])
        return estimate.value, estimate.std_error


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def pair(count, *shape, moved=0.3, seed=0, dtype=torch.float64):
    """Clean activations of standard deviation 1, and the same with noise of standard deviation `moved`."""
    clean = normal(count, *(shape or (6,)), seed=seed)
    return clean.to(dtype), (clean + moved * normal(*clean.shape, seed=seed + 1)).to(dtype)


def prepared(metric, num_images, *, views=("view",), layers=(LAYER,)):
    return metric.prepare(views, layers, num_images)


def about(clean, augmented, ids=None, *, layer=LAYER, view_index=0):
    """The record of one block; an image's label is its number modulo the number of features."""
    ids = range(len(clean)) if ids is None else ids
    labels = torch.tensor(list(ids)) % clean.shape[1]
    return About.of(clean, augmented, layer=layer, ids=ids, view_index=view_index, labels=labels)


def update(metric, clean, augmented, ids: Sequence[int] | range | None = None, *, layer=LAYER, view_index=0):
    """Update with one block: the images `ids` of clean and augmented, all of them by default."""
    ids = range(len(clean)) if ids is None else ids
    clean, augmented = clean[list(ids)], augmented[list(ids)]
    metric.update(clean, augmented, about(clean, augmented, ids, layer=layer, view_index=view_index))


def measured(metric, clean, augmented, blocks=None):
    """A copy of the metric that has measured all images, in blocks of about 32 by default."""
    ready = prepared(metric, len(clean))
    for ids in deal_blocks(len(clean)) if blocks is None else blocks:
        update(ready, clean, augmented, ids)
    return ready


def estimate(metric, clean, augmented, blocks=None):
    return measured(metric, clean, augmented, blocks).compute()


def mean_shift(clean, augmented):
    return (augmented - clean).flatten(1).mean(1)


# Every metric of the package, and a function of a user's own.
METRICS = [*resolve_metrics(), RelativeChange(), Ledger(), FunctionMetric(mean_shift)]


def assert_same(left, right, **tolerances):
    """Two estimates agree: in every bit by default."""
    torch.testing.assert_close(tuple(left), tuple(right), equal_nan=True, **({"rtol": 0, "atol": 0} | tolerances))
