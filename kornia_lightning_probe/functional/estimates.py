"""Pure kernels: per-image scalars from (B, ...) activations, and estimates from tables of such scalars."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from kornia_lightning_probe.functional.distances import accumulation_dtype, block_mean, squared_distance, squared_norm

__all__ = [
    "Estimate",
    "between_image_deviation",
    "block_mean",
    "jensen_shannon",
    "mean_with_error",
    "ratio_of_roots",
    "relative_change",
    "root_of_mean",
    "sensitivity",
    "shared_part",
    "squared_distance",
    "squared_norm",
]


class Estimate(NamedTuple):
    """A value, its standard error over images, and the number of images behind both; tensors of one shape."""

    value: Tensor
    std_error: Tensor
    num_images: Tensor


def between_image_deviation(activation: Tensor, mean: Tensor | None = None) -> Tensor:
    r"""What each image adds to the variance between images, :math:`e_i = \frac{n}{n-1} |a_i - m|^2`.

    Its mean is unbiased for the trace of the covariance of the representation, so ``2 * e.mean()`` is the mean squared
    distance between two different images.

    Args:
        activation: a block's activations, (n, ...).
        mean: their mean, (1, ...); :func:`block_mean` when not given.

    Returns:
        (n,) float64; NaN when n is 1, since one image says nothing about other images.

    Example:
        >>> between_image_deviation(torch.tensor([[0.0], [2.0]]))  # two images at a squared distance of 4
        tensor([2., 2.], dtype=torch.float64)
    """
    count = activation.shape[0]
    centre = block_mean(activation) if mean is None else mean
    spread = squared_distance(activation, centre)
    return spread * (count / (count - 1)) if count > 1 else torch.full_like(spread, torch.nan)


def mean_with_error(values: Tensor) -> Estimate:
    r"""Mean over images and its standard error :math:`\mathrm{sd}/\sqrt{N}`; NaN entries are left out.

    Args:
        values: (..., N), one value per image.

    Returns:
        An :class:`Estimate` of shape (...). The value is NaN without images, the error NaN with fewer than two.

    Example:
        >>> estimate = mean_with_error(torch.tensor([1.0, 3.0, torch.nan]))
        >>> [round(float(x), 3) for x in estimate]
        [2.0, 1.0, 2.0]
    """
    valid = values.isfinite()
    count = valid.sum(-1)
    mean = _masked_sum(values, valid) / count
    residual = _masked_sum((values - mean.unsqueeze(-1)).square(), valid)
    return Estimate(mean, _error_of_mean(residual, count), count)


def root_of_mean(estimate: Estimate) -> Estimate:
    r"""The square root of an estimated mean, with its error carried along: :math:`\mathrm{SE}/(2\sqrt{\bar{x}})`.

    Args:
        estimate: of a mean that is at least 0.

    Returns:
        The estimate of its root; the error is 0 where the mean and its error are.

    Example:
        >>> root = root_of_mean(Estimate(torch.tensor(4.0), torch.tensor(1.0), torch.tensor(9)))
        >>> float(root.value), float(root.std_error)
        (2.0, 0.25)
    """
    value = estimate.value.sqrt()
    error = torch.where(value > 0, estimate.std_error / (2 * value), estimate.std_error)
    return Estimate(value, error, estimate.num_images)


def sensitivity(distance: Tensor, deviation: Tensor) -> Estimate:
    r"""Layer sensitivity :math:`S = \sqrt{\overline{d} / (2\,\overline{e})}` and its standard error.

    S is 0 where the layer does not notice the augmentation, and 1 where the augmentation moves the representation as
    far as swapping the image for another one. It does not change when features are scaled, rotated, shifted or
    repeated, so it compares across layers, widths and epochs. The error is that of sampling images, from the influence
    function :math:`\mathrm{IF}_i = \frac{S}{2} [(d_i/\overline{d} - 1) - (e_i/\overline{e} - 1)]`; it covers neither
    the draw of the augmentation nor the training seed.

    Args:
        distance: :math:`d_i = |b_i - a_i|^2` of each image, (..., N); NaN where it is not known.
        deviation: :math:`e_i` of :func:`between_image_deviation`, (..., N), in the same unit.

    Returns:
        An :class:`Estimate` of shape (...), in [0, inf). NaN where no image is known, or where all images have one
        representation (a dead layer), since nothing can be compared there.

    Source:
        The squared ratio is the "relative stability" to diffeomorphisms of Petrini et al., "Relative stability toward
        diffeomorphisms indicates performance in deep nets", NeurIPS 2021; here its square root, with a denominator
        that leaves out each image's distance to itself.

    Example:
        >>> distance = torch.tensor([2.0, 2.0]); deviation = torch.tensor([4.0, 4.0])
        >>> float(sensitivity(distance, deviation).value)  # sqrt(2 / (2 * 4))
        0.5
    """
    valid = distance.isfinite() & deviation.isfinite()
    count = valid.sum(-1)
    moved = _masked_sum(distance, valid) / count
    apart = _masked_sum(deviation, valid) / count
    value = torch.where(apart > 0, (moved / (2 * apart)).sqrt(), torch.nan)
    influence = _relative(distance, moved) - _relative(deviation, apart)
    residual = _masked_sum(influence.square(), valid)
    return Estimate(value, value / 2 * _error_of_mean(residual, count), count)


def shared_part(shared: Tensor, total: Tensor) -> Estimate:
    r"""The shared part of a movement, :math:`\overline{u} / \overline{w}`, and its standard error.

    Args:
        shared: :math:`u_i`, image i's mean product with the movement of the others in its block, (..., N).
        total: :math:`w_i = |b_i - a_i|^2`, (..., N).

    Returns:
        An :class:`Estimate` of shape (...), up to 1; NaN where nothing moves. Each product counts for two images, so
        :math:`\mathrm{IF}_i = [2(u_i - \overline{u}) - R\,(w_i - \overline{w})] / \overline{w}`.

    Example:
        >>> float(shared_part(torch.tensor([4.0, 4.0]), torch.tensor([4.0, 4.0])).value)
        1.0
    """
    valid = shared.isfinite() & total.isfinite()
    count = valid.sum(-1)
    product, square = _masked_sum(shared, valid) / count, _masked_sum(total, valid) / count
    value = torch.where(square > 0, product / square, torch.nan)
    influence = 2 * (shared - product.unsqueeze(-1)) - value.unsqueeze(-1) * (total - square.unsqueeze(-1))
    residual = _masked_sum(influence.square(), valid)
    return Estimate(value, _error_of_mean(residual, count) / square, count)


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
    p, q = logits.to(wide).log_softmax(1), others.to(wide).log_softmax(1)
    mixture = torch.logaddexp(p, q) - math.log(2)
    divergence = 0.5 * ((p.exp() * (p - mixture)).sum(1) + (q.exp() * (q - mixture)).sum(1))
    return divergence.clamp_min(0.0)


def relative_change(clean: Tensor, augmented: Tensor) -> Tensor:
    r"""How far each image's representation moves relative to its own length, :math:`|b_i - a_i| / |a_i|`.

    It needs no other image, and for that reason depends on where the layer's origin happens to be: it falls with depth
    in an untrained network. Use :func:`sensitivity` wherever there are images to compare with.

    Args:
        clean: (B, ...).
        augmented: (B, ...).

    Returns:
        (B,) float64, in [0, inf); NaN where the clean activation is zero.

    Example:
        >>> relative_change(torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 9.0]]))
        tensor([1.], dtype=torch.float64)
    """
    return ratio_of_roots(squared_distance(augmented, clean), squared_norm(clean))


def ratio_of_roots(numerator: Tensor, denominator: Tensor) -> Tensor:
    """``sqrt(numerator / denominator)`` elementwise, NaN where the denominator is zero."""
    return torch.where(denominator > 0, (numerator / denominator).sqrt(), torch.nan)


def _masked_sum(values: Tensor, valid: Tensor) -> Tensor:
    return torch.where(valid, values, 0.0).sum(-1)


def _relative(values: Tensor, mean: Tensor) -> Tensor:
    """``values / mean - 1``; 0 where the mean is zero, as all values are then."""
    safe = torch.where(mean > 0, mean, 1.0).unsqueeze(-1)
    return torch.where(mean.unsqueeze(-1) > 0, values / safe - 1, 0.0)


def _error_of_mean(residual: Tensor, count: Tensor) -> Tensor:
    return torch.where(count > 1, (residual / (count - 1).clamp(min=1) / count.clamp(min=1)).sqrt(), torch.nan)
