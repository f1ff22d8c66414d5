"""Pure kernels from tables of per-image scalars to estimates: a value, its error over images, what each image adds."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kornia_lightning_probe.functional.distances import block_mean, squared_distance, squared_norm
from kornia_lightning_probe.functional.influence import (
    mean_influence,
    root_of_mean_influence,
    root_of_ratio_influence,
    sensitivity_influence,
    shared_part_influence,
)


class _Estimate(NamedTuple):
    value: Tensor
    num_images: Tensor
    influence: Tensor | None
    std_error: Tensor


class Estimate(_Estimate):
    r"""A value, the number of images behind it, what each of them adds, and its standard error.

    Args:
        value: (...).
        num_images: (...), how many images are behind each value.
        influence: (..., N), how far each image moves the value, see :mod:`kornia_lightning_probe.influence`; NaN where
            an image has no value. None: nobody knows.
        std_error: (...); None takes that of the influence, :math:`\mathrm{sd}(\mathrm{IF}) / \sqrt{n}`, NaN where
            there is none or only one image.

    Example:
        >>> estimate = Estimate(torch.tensor(2.0), torch.tensor(2), influence=torch.tensor([-1.0, 1.0]))
        >>> float(estimate.std_error)  # the deviation of two numbers, the root of 2, over the root of 2
        1.0
    """

    __slots__ = ()

    def __new__(
        cls,
        value: Tensor,
        num_images: Tensor,
        influence: Tensor | None = None,
        std_error: Tensor | None = None,
    ) -> Estimate:
        """Compute the error where it is not given."""
        if std_error is None:
            unknown = torch.full_like(value, torch.nan)
            std_error = unknown if influence is None else error_of_influence(influence)
        return super().__new__(cls, value, num_images, influence, std_error)


def error_of_influence(influence: Tensor) -> Tensor:
    r"""Standard error of a value, :math:`\sqrt{\sum_i \mathrm{IF}_i^2 / (n (n - 1))}`.

    Args:
        influence: (..., N), of mean 0; NaN where an image is not known.

    Returns:
        (...), in the unit of the influence; NaN with fewer than two known images.

    Example:
        >>> round(float(error_of_influence(torch.tensor([-2.0, 0.0, 2.0, 0.0, torch.nan]))), 4)  # variance 8/3, of 4
        0.8165
    """
    known = influence.isfinite()
    count = known.sum(-1)
    squares = torch.where(known, influence.square(), 0.0).sum(-1)
    error = (squares / (count * (count - 1)).clamp(min=1)).sqrt()
    return torch.where(count > 1, error, torch.nan)


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
    if count == 1:
        return torch.full_like(spread, torch.nan)
    return spread * (count / (count - 1))


def mean_with_error(values: Tensor) -> Estimate:
    r"""Mean over images and its standard error :math:`\mathrm{sd}/\sqrt{N}`; NaN entries are left out.

    Args:
        values: (..., N), one value per image.

    Returns:
        An :class:`Estimate` of shape (...). The value is NaN without images, the error NaN with fewer than two.

    Example:
        >>> estimate = mean_with_error(torch.tensor([1.0, 3.0, torch.nan]))
        >>> float(estimate.value), round(float(estimate.std_error), 6), int(estimate.num_images)
        (2.0, 1.0, 2)
    """
    known = values.isfinite()
    return Estimate(_mean(values, known), known.sum(-1), mean_influence(values))


def root_of_mean(values: Tensor) -> Estimate:
    r"""The square root of a mean over images, with its error :math:`\mathrm{SE}/(2\sqrt{\bar{x}})`.

    Args:
        values: (..., N), at least 0; NaN entries are left out.

    Returns:
        An :class:`Estimate` of shape (...), in [0, inf); the error is 0 where all values are 0.

    Example:
        >>> root = root_of_mean(torch.tensor([2.0, 6.0]))  # of 4, whose standard error is 2
        >>> float(root.value), float(root.std_error)
        (2.0, 0.5)
    """
    known = values.isfinite()
    return Estimate(_mean(values, known).sqrt(), known.sum(-1), root_of_mean_influence(values))


def root_of_ratio(numerator: Tensor, denominator: Tensor) -> Estimate:
    r"""The root of a ratio of means, :math:`\sqrt{\overline{x} / \overline{y}}`, over the images that have both.

    Args:
        numerator: x, (..., N), at least 0; NaN where it is not known.
        denominator: y, likewise.

    Returns:
        An :class:`Estimate` of shape (...), in [0, inf); NaN where no image is known or the mean of y is 0.

    Example:
        >>> float(root_of_ratio(torch.tensor([2.0, 6.0]), torch.tensor([1.0, 1.0])).value)
        2.0
    """
    known = numerator.isfinite() & denominator.isfinite()
    above, below = _mean(numerator, known), _mean(denominator, known)
    value = torch.where(below > 0, (above / below).sqrt(), torch.nan)
    return Estimate(value, known.sum(-1), root_of_ratio_influence(numerator, denominator))


def sensitivity(distance: Tensor, deviation: Tensor) -> Estimate:
    r"""Layer sensitivity :math:`S = \sqrt{\overline{d} / (2\,\overline{e})}` and its standard error.

    S is 0 where the layer does not notice the augmentation, and 1 where the augmentation moves the representation as
    far as swapping the image for another one. It does not change when features are scaled, rotated, shifted or
    repeated, so it compares across layers, widths and epochs. The error is that of sampling images, from the influence
    function :math:`\mathrm{IF}_i = \frac{S}{2} [(d_i/\overline{d} - 1) - (e_i/\overline{e} - 1)]`; it covers
    what the augmentation draws for each image, too, but neither what one draw gives to a whole block nor the training
    seed.

    Args:
        distance: :math:`d_i = |b_i - a_i|^2` of each image, (..., N); NaN where it is not known.
        deviation: :math:`e_i` of :func:`between_image_deviation`, (..., N), in the same unit.

    Returns:
        An :class:`Estimate` of shape (...), in [0, inf). NaN where no image is known, or where all images have one
        representation (a dead layer), since nothing can be compared there.

    Source:
        :math:`S^2` is the stability :math:`D_f` to diffeomorphisms of Petrini et al., "Relative stability toward
        diffeomorphisms indicates performance in deep nets", NeurIPS 2021, here with a denominator that leaves out each
        image's distance to itself. Their relative stability :math:`R_f` divides it by that to noise of equal norm.

    Example:
        >>> distance = torch.tensor([2.0, 2.0]); deviation = torch.tensor([4.0, 4.0])
        >>> float(sensitivity(distance, deviation).value)  # sqrt(2 / (2 * 4))
        0.5
    """
    known = distance.isfinite() & deviation.isfinite()
    moved, apart = _mean(distance, known), _mean(deviation, known)
    value = torch.where(apart > 0, (moved / (2 * apart)).sqrt(), torch.nan)
    return Estimate(value, known.sum(-1), sensitivity_influence(distance, deviation))


def pair_pseudo_values(products: Tensor) -> Tensor:
    r"""What each image of a block adds to the mean over its pairs, by what leaving the image out takes away.

    With the mean U over all pairs and :math:`u_i` that over the pairs of image i, the pseudo-value is
    :math:`n U - (n - 1) U_{-i} = U + \frac{2 (n - 1)}{n - 2} (u_i - U)`. Their mean is U, and their variance over n
    estimates that of U. Two images have one pair, which is U for both.

    Args:
        products: :math:`u_i`, (..., n); NaN where an image is not known.

    Returns:
        (..., n), in the same unit; NaN where an image is not known.

    Source:
        Arvesen, "Jackknifing U-statistics", Annals of Mathematical Statistics 40 (1969).

    Example:
        >>> pair_pseudo_values(torch.tensor([3.0, 4.0, 5.0]))  # the pairs are 2, 4 and 6
        tensor([0., 4., 8.])
    """
    known = products.isfinite()
    count = known.sum(-1, keepdim=True)
    mean = _mean(products, known).unsqueeze(-1)
    factor = 2 * (count - 1) / (count - 2).clamp(min=1)
    return torch.where(known, mean + factor * (products - mean), torch.nan)


def shared_part(shared: Tensor, total: Tensor) -> Estimate:
    r"""The shared part of a movement, :math:`\overline{p} / \overline{w}`, and its standard error.

    Args:
        shared: :math:`p_i`, what image i adds to the mean product of two images' movements in its block, see
            :func:`pair_pseudo_values`, (..., N).
        total: :math:`w_i = |b_i - a_i|^2`, (..., N).

    Returns:
        An :class:`Estimate` of shape (...), up to 1; NaN where nothing moves. The influence is
        :math:`\mathrm{IF}_i = [p_i - \overline{p} - R\,(w_i - \overline{w})] / \overline{w}`.

    Example:
        >>> float(shared_part(torch.tensor([4.0, 4.0]), torch.tensor([4.0, 4.0])).value)
        1.0
    """
    known = shared.isfinite() & total.isfinite()
    product, square = _mean(shared, known), _mean(total, known)
    value = torch.where(square > 0, product / square, torch.nan)
    return Estimate(value, known.sum(-1), shared_part_influence(shared, total))


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


def _mean(values: Tensor, known: Tensor) -> Tensor:
    return torch.where(known, values, 0.0).sum(-1) / known.sum(-1)
