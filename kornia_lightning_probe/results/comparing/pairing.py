"""Which images of two results are known to be the same ones, and what a reader is told of errors paired by them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kornia_lightning_probe.results.lookup import ProbeNumbers
from kornia_lightning_probe.wording import listed


class Pairing(NamedTuple):
    """Whether two results hold the same images, and which is which.

    Attributes:
        same: whether both are known to hold the same images.
        orders: for each result, the positions of its images in an order that is the same for both; None where the
            order of its tables already is.
        why_not: where `same` is False, why, as a text.
    """

    same: bool
    orders: tuple[list[int] | None, list[int] | None]
    why_not: str = ""


def pair_images(first: ProbeNumbers, second: ProbeNumbers) -> Pairing:
    """Find out whether two results hold the same images.

    Equal hashes of what the images hold, in the order of the tables, prove that position i is one image in both. Equal
    hashes in the order of the images' numbers prove that the image of the i-th smallest number is one in both, whatever
    their order in the tables. Equal numbers alone prove nothing: they may be of two sources.
    """
    hashes = [numbers.metadata.content_hash for numbers in (first, second)]
    by_number = [numbers.metadata.content_hash_by_number for numbers in (first, second)]
    if None in hashes:
        return Pairing(False, (None, None), "nothing is known of the images of one result")
    if hashes[0] == hashes[1]:
        return Pairing(True, (None, None))
    if None in by_number:
        return Pairing(False, (None, None), "other images, or the same ones in another order")
    if by_number[0] != by_number[1]:
        return Pairing(False, (None, None), "other images, or the same ones under other numbers")
    return Pairing(True, (_by_number(first), _by_number(second)))


def pairing_notes(
    pairing: Pairing, *, results: Sequence[ProbeNumbers], paired: Sequence[str], apart: Sequence[str]
) -> Iterator[str]:
    """Sentences on how the errors of changes came about.

    Args:
        pairing: of the images.
        results: the first and the second.
        paired: the metrics whose errors are those of differences image by image.
        apart: the other metrics that have errors.
    """
    if not pairing.same:
        yield f"not paired ({pairing.why_not}): errors are those of two independent sets of images"
        return
    if paired:
        but_for = f", but for {listed(apart)}" if apart else ""
        is_in_order = pairing.orders == (None, None)
        order = "" if is_in_order else " in another order, so what is drawn for an image can differ"
        yield f"paired image by image{but_for}: both results hold the same images{order}"
    without = {metric for numbers in results for metric in numbers.metadata.metrics_without_influence or ()}
    silent = [metric for metric in apart if metric in without]
    lost = [metric for metric in apart if metric not in without]
    if silent:
        yield (
            f"not paired, though the images are the same: {listed(silent)}; its reduce() doesn't say what each image "
            "adds to the value, so these errors are too large as a rule; let it return an Estimate with the influence, "
            "which for a mean over images is mean_influence (in kornia_lightning_probe.influence) of the statistic"
        )
    if lost:
        yield (
            f"not paired, though the images are the same: {listed(lost)}; what each image adds to the values "
            "is not kept (results from files don't), so these errors are too large as a rule"
        )


def _by_number(numbers: ProbeNumbers) -> list[int]:
    """The places of the images in the order of their numbers."""
    ids = numbers.metadata["image_ids"]
    return sorted(range(len(ids)), key=ids.__getitem__)
