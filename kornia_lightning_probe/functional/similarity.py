"""Pure kernels that relate all images at once: Gram matrices, linear CKA, RankMe."""

from __future__ import annotations

import torch
from torch import Tensor

FEWEST_IMAGES = 4
"""HSIC_1 divides by n - 3."""

# A feature that differs between images by less than this share of its size holds rounding, no information: float32
# forwards of one constant differ by some 1e-7 with the shape of the batch.
_CONSTANT = 1e-6
# Of a Gram matrix whose parts cancel, less than this share of its squared size is rounding.
_NOTHING_LEFT = 1e-12


def centred_gram(features: Tensor) -> Tensor:
    r"""Inner products of all pairs of images around their mean, :math:`K_{ij} = \langle x_i - m, x_j - m \rangle`.

    Features are centred before they are multiplied, in float64: of features whose mean is a thousand times their
    spread, the products of uncentred float32 numbers hold nothing but rounding.

    Args:
        features: (n, d), any float dtype; an image with a feature that is not finite is left out of the mean.

    Returns:
        (n, n) float64, symmetric, in the unit of the features squared; NaN in the rows and columns of images that were
        left out. A feature that all images share to within a millionth of its size counts as constant, so the Gram
        matrix of a dead layer is exactly 0.

    Raises:
        ValueError: for features that are no (n, d) matrix.

    Example:
        >>> centred_gram(torch.tensor([[1000.0], [1002.0]]))
        tensor([[ 1., -1.],
                [-1.,  1.]], dtype=torch.float64)
    """
    _check_matrix(features)
    wide = features.double()
    known = wide.isfinite().all(1)
    centred = wide.masked_fill(~known.unsqueeze(1), 0.0)
    count = known.sum().clamp(min=1)
    mean = centred.sum(0) / count
    centred = torch.where(known.unsqueeze(1), centred - mean, 0.0)
    spread = (centred.square().sum(0) / count).sqrt()
    centred[:, spread <= _CONSTANT * mean.abs()] = 0.0
    gram = centred @ centred.T
    gram[~known], gram[:, ~known] = torch.nan, torch.nan
    return gram


def debiased_cka(first: Tensor, second: Tensor) -> Tensor:
    r"""Debiased linear centred kernel alignment of two representations of the same images.

    .. math:: \mathrm{CKA} = \frac{\mathrm{HSIC}_1(K, L)}{\sqrt{\mathrm{HSIC}_1(K, K)\, \mathrm{HSIC}_1(L, L)}}

    1 where the representations are equal up to rotation, scale and shift of features; 0 in expectation where they have
    nothing in common, whatever their widths, while the biased estimate is then about d/(n + d + 1). It is not clamped:
    with few images it may fall below 0, and that is information.

    Args:
        first: (n, n) Gram matrix of :func:`centred_gram`.
        second: the other one, of the same images in the same order. Images that are NaN in either are left out.

    Returns:
        A float64 scalar, at most 1; NaN where a representation is the same for all images (a dead layer) or keeps all
        of them equally far apart, and where fewer than 4 images are left.

    Raises:
        ValueError: with fewer than 4 images, or for matrices of other shapes.

    Source:
        Kornblith, Norouzi, Lee and Hinton, "Similarity of neural network representations revisited", ICML 2019 (CKA);
        Nguyen, Raghu and Kornblith, "Do wide and deep networks learn the same things?", ICLR 2021 (with HSIC_1); Song,
        Smola, Gretton, Bedo and Borgwardt, "Feature selection via dependence maximization", JMLR 13, 2012 (HSIC_1); its
        equal, a product of U-centred matrices in which nothing large cancels: Szekely and Rizzo, "Partial distance
        correlation with methods for dissimilarities", Annals of Statistics 42(6), 2014.

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 1.0], [5.0, 3.0], [4.0, 0.0]])
        >>> round(float(debiased_cka(centred_gram(x), centred_gram(7 * x + 100))), 6)
        1.0
    """
    _check_pair(first, second)
    first, second = _shared(first, second)
    if first.shape[0] < FEWEST_IMAGES:
        return torch.tensor(torch.nan, dtype=torch.float64)
    one, other = _u_centred(first), _u_centred(second)
    lengths = [_length(centred, gram) for centred, gram in ((one, first), (other, second))]
    return (one * other).sum() / (lengths[0] * lengths[1])


def rankme(features: Tensor) -> Tensor:
    r"""RankMe, the number of directions that a representation uses: the exponential of the singular values' entropy.

    .. math:: \exp\Big( -\sum_k p_k \log p_k \Big), \qquad p_k = \sigma_k / \sum_j \sigma_j

    As in the paper the features are not centred, so one large common mean counts as one direction; its 1e-7 beside
    :math:`p_k` is left out.

    Args:
        features: (n, d), any float dtype; images with a feature that is not finite are left out.

    Returns:
        A float64 scalar in [1, min(n, d)]: k equal singular values give k. It is bounded by the number of images, so
        compare it at one n only. NaN where all features are 0, or no image is left.

    Raises:
        ValueError: for features that are no (n, d) matrix.

    Source:
        Garrido, Balestriero, Najman and LeCun, "RankMe: assessing the downstream performance of pretrained
        self-supervised representations by their rank", ICML 2023, equation 1; the effective rank of Roy and Vetterli,
        EUSIPCO 2007.

    Example:
        >>> round(float(rankme(torch.eye(5)[:, :3])), 6)
        3.0
    """
    _check_matrix(features)
    wide = features.double()
    values = torch.linalg.svdvals(wide[wide.isfinite().all(1)])
    shares = values / values.sum()
    return torch.special.entr(shares).sum().exp() if values.sum() > 0 else torch.tensor(torch.nan, dtype=torch.float64)


def _u_centred(gram: Tensor) -> Tensor:
    count = gram.shape[0]
    hollow = gram.double().clone()
    hollow.fill_diagonal_(0.0)
    rows = hollow.sum(1) / (count - 2)
    centred = hollow - rows - rows.unsqueeze(1) + hollow.sum() / ((count - 1) * (count - 2))
    return centred.fill_diagonal_(0.0)


def _length(centred: Tensor, gram: Tensor) -> Tensor:
    """The Frobenius norm, NaN where it is rounding beside that of the Gram matrix it was made from."""
    squared, whole = centred.square().sum(), gram.double().square().sum()
    return torch.where(squared > _NOTHING_LEFT * whole, squared.sqrt(), torch.nan)


def _shared(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    known = first.diagonal().isfinite() & second.diagonal().isfinite()
    return first[known][:, known], second[known][:, known]


def _check_matrix(features: Tensor) -> None:
    if features.ndim != 2:
        raise ValueError(f"features must be (n, d), one row for each image, got {tuple(features.shape)}")


def _check_pair(first: Tensor, second: Tensor) -> None:
    count = first.shape[0]
    if first.ndim != 2 or first.shape != (count, count) or second.shape != first.shape:
        raise ValueError(
            f"two Gram matrices (n, n) of the same n images are needed, got {tuple(first.shape)} and "
            f"{tuple(second.shape)}; centred_gram makes them of features"
        )
    if count < FEWEST_IMAGES:
        raise ValueError(f"CKA needs at least {FEWEST_IMAGES} images, since HSIC_1 divides by n - 3; got {count}")
