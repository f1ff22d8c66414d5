"""Severity curves made by hand."""

import torch

from kornia_lightning_probe.result import ProbeResult, ViewInfo
from support.made_results import COSINE, SENSITIVITY, table_of

LADDER = (5.0, 15.0, 30.0)
QUANTITIES = {"sensitivity": SENSITIVITY, "cosine": COSINE}


def curve(values, *, severities=LADDER, from_identity=True, metric="sensitivity", error=0.01):
    views = [ViewInfo("rotation", i, severity, from_identity) for i, severity in enumerate(severities, start=1)]
    table = table_of(("fc",), torch.tensor(values)[:, None], error=error, quantity=QUANTITIES.get(metric))
    return ProbeResult(layers=("fc",), views=views, tables={metric: table})


def summarised(values, *, threshold=0.25, **options):
    result = curve(values, **options)
    (row,) = result.severity(result.metrics[0], threshold=threshold)
    return row
