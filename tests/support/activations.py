"""Made-up activations, and metrics that have measured them, for the tests of metrics."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from kornia_lightning_probe.activations.about import Shown
from kornia_lightning_probe.activations.site import HeadSpace
from kornia_lightning_probe.functional.distances import upcast
from kornia_lightning_probe.functional.estimates import mean_with_error
from kornia_lightning_probe.images.blocks import deal_blocks
from kornia_lightning_probe.metrics import (
    About,
    BlockSums,
    FunctionMetric,
    HeadShare,
    Ledger,
    NoiseRatio,
    ProbeMetric,
    RelativeChange,
    SensitivityPositions,
    Site,
    resolve_metrics,
)

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
    """Ready for these views; their twins stand behind them where the metric reads those."""
    twins = [f"twin of {view}" for view in views] if metric.reads_twins else []
    return metric.prepare([*views, *twins], layers, num_images)


def about(clean, augmented, ids=None, *, layer=LAYER, view_index=0):
    """The record of one block; an image's label is its number modulo the number of features."""
    ids = range(len(clean)) if ids is None else ids
    labels = torch.tensor(list(ids)) % clean.shape[1]
    return About.of(clean, augmented, layer=layer, ids=ids, view_index=view_index, labels=labels)


def record_of(block, augmented, *, rows=None, ids=None, site=None, view_index=0, num_views=1, **shown):
    """The record of some rows of a clean block, all of them by default, under one view or several in a row."""
    rows = rows or slice(0, len(block.activation))
    site = site or Site(LAYER, 1, tuple(block.activation.shape[1:]))
    views = range(view_index, view_index + num_views)
    return About(Shown(ids or (rows.start, rows.stop), rows, views, **shown), site, block, upcast(augmented))


def update(metric, clean, augmented, ids: Sequence[int] | range | None = None, *, layer=LAYER, view_index=0):
    """Update with one block: the images `ids` of clean and augmented, all of them by default."""
    ids = range(len(clean)) if ids is None else ids
    clean, augmented = clean[list(ids)], augmented[list(ids)]
    metric.update(clean, augmented, about(clean, augmented, ids, layer=layer, view_index=view_index))
    if metric.reads_twins:
        noisy = clean + 2 * (augmented - clean)
        twin_index = view_index + len(metric.filled) // 2
        metric.update(clean, noisy, about(clean, noisy, ids, layer=layer, view_index=twin_index))


def measured(metric, clean, augmented, blocks=None):
    """A copy of the metric that has measured all images, in blocks of about 32 by default."""
    ready = prepared(metric, len(clean))
    for ids in deal_blocks(len(clean)) if blocks is None else blocks:
        update(ready, clean, augmented, ids)
    return ready


def estimate(metric, clean, augmented, blocks=None):
    return measured(metric, clean, augmented, blocks).compute()


def numbers(found):
    """Value, standard error and number of images of an estimate, without what each image adds."""
    return found.value, found.std_error, found.num_images


def mean_shift(clean, augmented):
    return (augmented - clean).flatten(1).mean(1)


# Every metric of the package, and a function of a user's own.
_HEAD = HeadShare(HeadSpace(torch.eye(6, dtype=torch.float64)[:, :2]))
METRICS = [
    *(_HEAD if metric.name == _HEAD.name else metric for metric in resolve_metrics()),
    NoiseRatio(),
    RelativeChange(),
    SensitivityPositions(),
    Ledger(),
    FunctionMetric(mean_shift),
]


def rounding_of(metric):
    """How far results may lie apart that have been added up in another order; tables of images not in a single bit."""
    return {"rtol": 1e-12, "atol": 0} if isinstance(metric, BlockSums) else {}


def assert_same(left, right, **tolerances):
    """Two estimates, tensors or tuples of them agree: in every bit by default."""
    torch.testing.assert_close(*map(_plain, (left, right)), equal_nan=True, **({"rtol": 0, "atol": 0} | tolerances))


def _plain(found):
    return tuple(found) if isinstance(found, tuple | list) else found
