"""Influence functions: what each image adds to the error of a value, and so the error of sums and differences.

All views show the same images, and two probes may, so their errors are not independent. The influence of image i on a
value is how far the value would move, times N, if the image were weighted a little more; its standard deviation over
sqrt(N) is the value's standard error, and influences add as the values do.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mean_influence(values: Tensor) -> Tensor:
    r"""Influence of each image on a mean, :math:`\mathrm{IF}_i = x_i - \overline{x}`.

    Args:
        values: (..., N), one value per image; NaN where it is not known.

    Returns:
        (..., N), in the unit of the values; its sum is 0; NaN where the image is not known.

    Example:
        >>> mean_influence(torch.tensor([1.0, 3.0, torch.nan]))
        tensor([-1.,  1., nan])
    """
    return values - _known_mean(values)


def root_of_mean_influence(values: Tensor) -> Tensor:
    r"""Influence of each image on the root of a mean, :math:`\frac{1}{2}\sqrt{\overline{x}}\,(x_i/\overline{x} - 1)`.

    Args:
        values: (..., N), at least 0; NaN where it is not known.

    Returns:
        (..., N), in the unit of the root; 0 where all values are 0.

    Example:
        >>> root_of_mean_influence(torch.tensor([2.0, 6.0]))  # the root is 2, the relative deviations 1/2
        tensor([-0.5000,  0.5000])
    """
    return _known_mean(values).sqrt() / 2 * _relative(values)


def root_of_ratio_influence(numerator: Tensor, denominator: Tensor) -> Tensor:
    r"""Influence of each image on the root of a ratio of means, :math:`R = \sqrt{\overline{x} / \overline{y}}`.

    :math:`\mathrm{IF}_i = \frac{R}{2} [(x_i/\overline{x} - 1) - (y_i/\overline{y} - 1)]`.

    Args:
        numerator: x, (..., N), at least 0; NaN where it is not known.
        denominator: y, likewise.

    Returns:
        (..., N), without a unit; NaN where an image is not known, or everywhere where the mean of y is 0.

    Example:
        >>> root_of_ratio_influence(torch.tensor([2.0, 6.0]), torch.tensor([1.0, 1.0]))
        tensor([-0.5000,  0.5000])
    """
    known = numerator.isfinite() & denominator.isfinite()
    above, below = (torch.where(known, part, torch.nan) for part in (numerator, denominator))
    below_mean = _known_mean(below)
    ratio = torch.where(below_mean > 0, _known_mean(above) / below_mean, torch.nan)
    return ratio.sqrt() / 2 * (_relative(above) - _relative(below))


def sensitivity_influence(distance: Tensor, deviation: Tensor) -> Tensor:
    r"""Influence of each image on :func:`kornia_lightning_probe.functional.sensitivity`.

    :math:`\mathrm{IF}_i = \frac{S}{2} [(d_i/\overline{d} - 1) - (e_i/\overline{e} - 1)]`; the standard deviation of it
    over :math:`\sqrt{N}` is the standard error that ``sensitivity`` gives.

    Args:
        distance: :math:`d_i`, (..., N); NaN where it is not known.
        deviation: :math:`e_i`, (..., N), in the same unit.

    Returns:
        (..., N); NaN where an image is not known, and for a dead layer.

    Example:
        >>> sensitivity_influence(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0]))  # S = 1
        tensor([-0.2500,  0.2500])
    """
    return root_of_ratio_influence(distance, 2 * deviation)


def shared_part_influence(shared: Tensor, total: Tensor) -> Tensor:
    r"""Influence of each image on :func:`kornia_lightning_probe.functional.shared_part`, the ratio R of two means.

    :math:`\mathrm{IF}_i = [p_i - \overline{p} - R\,(w_i - \overline{w})] / \overline{w}`.

    Args:
        shared: :math:`p_i`, (..., N), see :func:`kornia_lightning_probe.functional.pair_pseudo_values`; NaN where it is
            not known.
        total: :math:`w_i`, (..., N).

    Returns:
        (..., N), without a unit; NaN where an image is not known, and where nothing moves.

    Example:
        >>> shared_part_influence(torch.tensor([0.0, 2.0]), torch.tensor([4.0, 4.0]))
        tensor([-0.2500,  0.2500])
    """
    known = shared.isfinite() & total.isfinite()
    product, square = (torch.where(known, part, torch.nan) for part in (shared, total))
    mean = _known_mean(square)
    mean = torch.where(mean > 0, mean, torch.nan)
    ratio = _known_mean(product) / mean
    return (mean_influence(product) - ratio * mean_influence(square)) / mean


def shares(influence: Tensor) -> Tensor:
    r"""What each image adds to the error of a value, :math:`\mathrm{IF}_i / \sqrt{n (n - 1)}`.

    The root of the sum of squares of one value's shares is its standard error; the shares of a sum (a difference) of
    values are the sums (differences) of their shares.

    Args:
        influence: (..., N), NaN where an image is not known.

    Returns:
        (..., N) float64, 0 where the image is not known. n counts the known images.

    Example:
        >>> shares(torch.tensor([-1.0, 0.0, 1.0])).square().sum().item()  # variance 1, over 3 images
        0.3333333333333334
    """
    known = influence.isfinite()
    count = known.sum(-1, keepdim=True).double()
    return torch.where(known, influence, 0.0).double() / (count * (count - 1)).clamp(min=1).sqrt()


def combined_error(weights: Tensor, std_error: Tensor, image_shares: Tensor | None = None) -> Tensor:
    r"""Standard error of weighted sums of values over views.

    With the images' shares it is exact to first order: :math:`\sqrt{\sum_i (\sum_v w_v s_{vi})^2}`. Without them it is
    :math:`\sum_v |w_v| \mathrm{SE}_v`, the largest that it can be, as if the views erred all in the same way.

    Args:
        weights: (G, V, L), G sums of V values at each of L layers; 0 leaves a value out.
        std_error: (V, L), each value's own standard error.
        image_shares: (V, L, N), see :func:`shares`.

    Returns:
        (G, L), in the values' unit; NaN where a value that takes part has no standard error.

    Example:
        >>> errors, half = torch.tensor([[3.0], [3.0]]), torch.full((1, 2, 1), 0.5)
        >>> float(combined_error(half, errors))
        3.0
        >>> opposite = torch.tensor([[[3.0, 0.0]], [[0.0, 3.0]]])  # errors that come from different images
        >>> round(float(combined_error(half, errors, opposite)), 3)  # 3 / sqrt(2)
        2.121
    """
    if image_shares is None:
        error = torch.einsum("gvl,vl->gl", weights.abs(), std_error.nan_to_num(0.0))
    else:
        error = torch.einsum("gvl,vln->gln", weights.to(image_shares), image_shares).square().sum(-1).sqrt()
    unknown = ((weights != 0) & std_error.isnan()).any(1)
    return torch.where(unknown, torch.nan, error)


def _known_mean(values: Tensor) -> Tensor:
    return torch.where(values.isfinite(), values, torch.nan).nanmean(-1, keepdim=True)


def _relative(values: Tensor) -> Tensor:
    """``values / mean - 1``; 0 where the mean is zero, as all values are then."""
    mean = _known_mean(values)
    return (values - mean) / torch.where(mean > 0, mean, 1.0)
