"""What outliers do not move: medians with errors by a bootstrap, distances to near images; and who is an outlier."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from kornia_lightning_probe.functional.estimates import Estimate, error_of_influence

#: How often images are drawn anew for a bootstrap: its error is then known to 5 %.
RESAMPLES = 200
# Of fewer blocks nobody knows how they differ.
_FEWEST_BLOCKS = 3
#: The part of the other images that is farthest and does not count, see :func:`near_distance`.
FARTHEST = 0.1
_MANY = 2**14
# Numbers of one part of a bootstrap, 2 MB of them: what fits into a cache takes half as long.
_AT_ONCE = 2**20
# A part is loud with more than ten times an equal share; alone it must hold half, where there are four or more.
_LOUD, _HALF, _SEVERAL = 10, 0.5, 4


def median(values: Tensor) -> Tensor:
    """The median along the last axis, without NaN: of an even number the mean of the two in the middle.

    Args:
        values: (..., N).

    Returns:
        (...), NaN where all are.

    Example:
        >>> median(torch.tensor([3.0, 1.0, torch.nan, 2.0, 10.0])).item()
        2.5
    """
    # Torch's is the lower one of the two.
    return (values.nanmedian(-1).values - (-values).nanmedian(-1).values) / 2


def near_distance(pairs: Tensor, valid: Tensor) -> Tensor:
    r"""How far each image lies from the others of its block but the farthest tenth of them, :math:`u_i`.

    The mean of its squared distances. Two outliers spoil a block's mean, and with it all deviations from it, but not
    these; a median of them would sit in the gap where there are two classes.

    Args:
        pairs: squared distances, (n, n), see :func:`~kornia_lightning_probe.functional.distances.pair_distances`.
        valid: which images there are, (n,) bool.

    Returns:
        (n,), in [0, inf); a tenth is rounded up, and one other image is always left. NaN where there is no other.

    Example:
        >>> pairs = torch.tensor([[0.0, 1.0, 100.0], [1.0, 0.0, 121.0], [100.0, 121.0, 0.0]])
        >>> near_distance(pairs, torch.ones(3, dtype=torch.bool)).tolist()
        [1.0, 1.0, 100.0]
    """
    others = int(valid.sum()) - 1
    if others < 1:
        return torch.full_like(pairs[0], torch.nan)
    if others + 1 < len(pairs):
        found = torch.full_like(pairs[0], torch.nan)
        found[valid] = near_distance(pairs[valid][:, valid], valid[valid])
        return found
    kept = max(1, others - math.ceil(FARTHEST * others))
    # Each image is itself the first of its row.
    return pairs.sort(1).values[:, 1 : kept + 1].mean(1)


def deviation_within(pairs: Tensor, valid: Tensor, labels: Tensor) -> Tensor:
    r"""What each image adds to the variance within its class, :math:`\frac{n_c}{n_c - 1} |a_i - m_c|^2`.

    From distances of pairs: :math:`|a_i - m_c|^2` is the mean of the squared distances to the images of its class,
    itself among them, less half the mean over all of their pairs.

    Args:
        pairs: squared distances of a block's images, (n, n).
        valid: which of them there are, (n,) bool.
        labels: their classes, integers (n,); below 0 is none.

    Returns:
        (n,), in [0, inf); NaN for an image without another one of its class.

    Example:
        >>> pairs = torch.tensor([[0.0, 4.0, 9.0], [4.0, 0.0, 1.0], [9.0, 1.0, 0.0]])
        >>> deviation_within(pairs, torch.ones(3, dtype=torch.bool), torch.tensor([0, 0, 1])).tolist()
        [2.0, 2.0, nan]
    """
    known = valid & (labels >= 0)
    together = (labels.unsqueeze(0) == labels.unsqueeze(1)) & known & known.unsqueeze(1)
    share = together.to(pairs) / together.sum(1, keepdim=True).clamp(min=1)
    to_class = (share * pairs).sum(1)
    of_class = (share * to_class).sum(1)
    count = together.sum(1)
    factor = count / (count - 1).clamp(min=1)
    deviation = factor * (to_class - of_class / 2).clamp(min=0.0)
    return torch.where(count > 1, deviation, torch.nan)


def root_of_ratio_of_medians(
    numerator: Tensor, denominator: Tensor, *, blocks: Sequence[tuple[int, int]] = ()
) -> Estimate:
    r"""The root of a ratio of medians, :math:`\sqrt{\mathrm{med}\,x / \mathrm{med}\,y}`, over images that have both.

    Its standard error is that of a bootstrap of the images under a fixed seed, or of whole blocks where there are three
    or more and that is larger, since what relates images of a block errs for all of them together. What each image adds
    is on which side of the two medians it lies, in the size that the bootstrap gives.

    Args:
        numerator: x, (..., N), at least 0; NaN where it is not known.
        denominator: y, likewise.
        blocks: the images of each block, (start, stop); empty: not known.

    Returns:
        An :class:`Estimate` of shape (...), in [0, inf); NaN where no image is known or the median of y is 0.

    Source:
        Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7 (1979).

    Example:
        >>> float(root_of_ratio_of_medians(torch.tensor([1.0, 4.0, 900.0]), torch.tensor([1.0, 1.0, 70.0])).value)
        2.0
    """
    known = numerator.isfinite() & denominator.isfinite()
    above, below = (torch.where(known, part, torch.nan) for part in (numerator, denominator))
    middle, base = median(above), median(below)
    value = torch.where(base > 0, (middle / base).sqrt(), torch.nan)
    counts = _resampled(known.shape[-1]).to(known.device)
    moved, apart = (resampled_medians(part, counts) for part in (above, below))
    std_error = _deviation((moved / apart).sqrt())
    if len(blocks) >= _FEWEST_BLOCKS:
        counts = _resampled_blocks(blocks, known.shape[-1]).to(known.device)
        of_blocks = [resampled_medians(part, counts) for part in (above, below)]
        unbiased = (len(blocks) / (len(blocks) - 1)) ** 0.5
        std_error = std_error.fmax(unbiased * _deviation((of_blocks[0] / of_blocks[1]).sqrt()))
    std_error = std_error.masked_fill(value.isnan() | (known.sum(-1) < 2), torch.nan)
    sides = _side(above, middle, _deviation(moved)) - _side(below, base, _deviation(apart))
    influence = value.unsqueeze(-1) / 2 * (sides - sides.nanmean(-1, keepdim=True))
    size = error_of_influence(influence)
    scale = torch.where(size > 0, std_error / size, 1.0)
    return Estimate(value, known.sum(-1), scale.unsqueeze(-1) * influence, std_error)


def resampled_medians(values: Tensor, counts: Tensor) -> Tensor:
    """The medians of samples in which each image is so many times.

    Args:
        values: (..., N), of a table (view, layer, N); NaN where it is not known.
        counts: how often each image is in each sample, (N, R).

    Returns:
        (..., R); NaN where a sample holds no known image.

    Example:
        >>> resampled_medians(torch.tensor([5.0, 1.0, 3.0]), torch.tensor([[2, 0], [0, 1], [1, 2]])).tolist()
        [5.0, 3.0]
    """
    # What is the same under several views in a row is drawn once.
    by_layer = values.transpose(0, -2) if values.ndim > 1 else values
    rows, places = torch.unique_consecutive(
        by_layer.reshape(-1, values.shape[-1]).nan_to_num(-1.0, posinf=-1.0), dim=0, return_inverse=True
    )
    step = max(1, _AT_ONCE // counts.numel())
    all_known = bool((rows >= 0).all())
    found = torch.cat([_medians(part, counts, all_known=all_known) for part in torch.split(rows, step)])
    medians = found[places].reshape(*by_layer.shape[:-1], counts.shape[1])
    return medians.transpose(0, -2) if values.ndim > 1 else medians


def loud_parts(shares: Tensor) -> Tensor:
    """Which of some parts hold so much that they speak for all.

    Those with more than ten times an equal share where these hold more than half together, and one that alone holds
    more than half of four or more.

    Args:
        shares: (..., P), of sum 1; NaN where there is no such part.

    Returns:
        (..., P) bool.

    Example:
        >>> loud_parts(torch.tensor([0.7, 0.1, 0.1, 0.1])).tolist()
        [True, False, False, False]
    """
    count = shares.isfinite().sum(-1, keepdim=True)
    held = shares.nan_to_num(0.0)
    loud = held * count > _LOUD
    together = torch.where(loud, held, 0.0).sum(-1, keepdim=True)
    alone = (held > _HALF) & (count >= _SEVERAL)
    return (loud & (together > _HALF)) | alone


def shares_of(values: Tensor) -> Tensor:
    """What part of the sum along the last axis each value is; NaN where it is not known, or the sum is 0.

    Example:
        >>> shares_of(torch.tensor([3.0, 1.0, torch.nan])).tolist()
        [0.75, 0.25, nan]
    """
    total = values.nansum(-1, keepdim=True)
    return values / torch.where(total > 0, total, torch.nan)


def _resampled(num_images: int) -> Tensor:
    """How often each image is drawn in each of some samples of as many, (N, R)."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(num_images, (RESAMPLES, num_images), generator=generator)
    # Narrow where that holds twice as many.
    narrow = torch.int16 if num_images < _MANY else torch.int32
    counts = torch.zeros(num_images, RESAMPLES, dtype=narrow)
    ones = torch.ones(RESAMPLES, num_images, dtype=narrow)
    return counts.scatter_add_(0, drawn.T, ones.T)


def _resampled_blocks(blocks: Sequence[tuple[int, int]], num_images: int) -> Tensor:
    """The same of samples in which a block comes with all of its images."""
    drawn = _resampled(len(blocks))
    counts = torch.zeros(num_images, drawn.shape[1], dtype=drawn.dtype)
    for (start, stop), times in zip(blocks, drawn, strict=True):
        counts[start:stop] = times
    return counts


def _medians(rows: Tensor, counts: Tensor, *, all_known: bool) -> Tensor:
    """Medians (M, R) of rows (M, N) that are negative where nothing is known."""
    ordered, order = rows.sort(1)
    drawn = counts[order]
    if not all_known:
        drawn = drawn.masked_fill_((ordered < 0).unsqueeze(2), 0)
    passed = drawn.cumsum(1, dtype=counts.dtype)
    total = passed[:, -1:]
    # In an even sample the middle lies between two images, which may be one that was drawn twice.
    ends = [ordered.gather(1, place.clamp_(max=rows.shape[1] - 1)) for place in _middle(passed, total)]
    return ((ends[0] + ends[1]) / 2).masked_fill(total.squeeze(1) == 0, torch.nan)


def _middle(passed: Tensor, total: Tensor) -> Iterator[Tensor]:
    twice = 2 * passed
    # Into the default type they are added up ten times more slowly.
    yield (twice < total).sum(1, dtype=total.dtype).long()
    yield (twice <= total).sum(1, dtype=total.dtype).long()


def _deviation(replicas: Tensor) -> Tensor:
    """The standard deviation over the last axis, of what is finite."""
    known = torch.where(replicas.isfinite(), replicas, torch.nan)
    apart = known - known.nanmean(-1, keepdim=True)
    count = known.isfinite().sum(-1)
    spread = (apart.square().nansum(-1) / (count - 1).clamp(min=1)).sqrt()
    return torch.where(count > 1, spread, torch.nan)


def _side(values: Tensor, middle: Tensor, error: Tensor) -> Tensor:
    """The influence of each image on a median of this error, relative to the median."""
    count = values.isfinite().sum(-1)
    size = error * count.sqrt() / torch.where(middle > 0, middle, 1.0)
    side = torch.sign(values - middle.unsqueeze(-1))
    return side * size.unsqueeze(-1)
