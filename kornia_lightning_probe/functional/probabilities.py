"""Predicted distributions: the divergence of two, and probabilities told from logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kornia_lightning_probe.functional.distances import accumulation_dtype, upcast

# How far the sum of probabilities may be from 1: of float32, and of what was rounded to half precision.
_SUM, _HALF_SUM = 1e-4, 4e-3


def jensen_shannon(logits: Tensor, others: Tensor) -> Tensor:
    r"""Jensen-Shannon divergence of two predicted distributions, in nats, from logits and without underflow.

    Args:
        logits: (B, classes).
        others: (B, classes).

    Returns:
        (B,) float64 (float32 on MPS), in [0, ln 2].

    Source:
        Lin, "Divergence measures based on the Shannon entropy", IEEE Transactions on Information Theory 37, 1991.

    Example:
        >>> jensen_shannon(torch.tensor([[0.0, 1.0]]), torch.tensor([[5.0, 6.0]])).item()  # a constant added
        0.0
    """
    wide = accumulation_dtype(logits.device)
    p = logits.to(wide).log_softmax(-1)
    q = others.to(wide).log_softmax(-1)
    mixture = torch.logaddexp(p, q) - math.log(2)
    from_p = (p.exp() * (p - mixture)).sum(-1)
    from_q = (q.exp() * (q - mixture)).sum(-1)
    return (0.5 * (from_p + from_q)).clamp_min(0.0)


def are_probabilities(scores: Tensor) -> bool:
    """Whether scores are probabilities, by all images of a block: none negative, and each image's sum 1.

    Args:
        scores: (B, classes); images that are not finite, or all zeros since they were masked, say nothing.

    Example:
        >>> are_probabilities(torch.tensor([[0.25, 0.75], [1.0, 0.0]])), are_probabilities(torch.tensor([[2.0, -1.0]]))
        (True, False)
    """
    told = scores[scores.isfinite().all(1) & (scores != 0).any(1)].double()
    rounded = any(torch.equal(told.to(dtype).double(), told) for dtype in (torch.bfloat16, torch.float16))
    tolerance = _HALF_SUM if rounded else _SUM
    return len(told) > 0 and bool((told >= 0).all()) and bool(((told.sum(1) - 1).abs() < tolerance).all())


def log_probabilities(probabilities: Tensor) -> Tensor:
    """The logits whose softmax these probabilities are, finite for a probability of 0; float32 where half came.

    Example:
        >>> log_probabilities(torch.tensor([[0.25, 0.75]])).softmax(1)
        tensor([[0.2500, 0.7500]])
    """
    wide = upcast(probabilities)
    return wide.clamp_min(torch.finfo(wide.dtype).tiny).log()
