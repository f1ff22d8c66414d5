"""Which images of two results are known to be the same ones, and what a reader is told of errors paired by them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kornia_lightning_probe.result import ProbeResult


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


def pair_images(first: ProbeResult, second: ProbeResult) -> Pairing:
    """Find out whether two results hold the same images.

    Equal hashes of what the images hold, in the order of the tables, prove that position i is one image in both. Equal
    hashes in the order of the images' numbers prove that the image of the i-th smallest number is one in both, whatever
    their order in the tables. Equal numbers alone prove nothing: they may be of two sources.
    """
    hashes, by_number = (
        [result.metadata.get(key) for result in (first, second)] for key in ("content_hash", "content_hash_by_number")
    )
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
    results: Sequence[ProbeResult], pairing: Pairing, *, paired: Sequence[str], apart: Sequence[str]
) -> Iterator[str]:
    """Sentences on how the errors of changes came about.

    Args:
        results: the first and the second.
        pairing: of their images.
        paired: the metrics whose errors are those of differences image by image.
        apart: the other metrics that have errors.
    """
    if not pairing.same:
        yield f"not paired ({pairing.why_not}): errors are those of two independent sets of images"
        return
    if paired:
        but_for = f", but for {', '.join(apart)}" if apart else ""
        order = "" if pairing.orders == (None, None) else " in another order, so what is drawn for an image can differ"
        yield f"paired image by image{but_for}: both results hold the same images{order}"
    silent = [metric for metric in apart if any(metric in _without_influence(result) for result in results)]
    if silent:
        yield (
            f"not paired, though the images are the same: {', '.join(silent)}; a metric without influence() doesn't "
            "say what each image adds to the value, so these errors are too large as a rule; give its class one, which "
            "for a mean over images returns mean_influence (in kornia_lightning_probe.influence) of the statistic"
        )
    lost = [metric for metric in apart if metric not in silent]
    if lost:
        yield (
            f"not paired, though the images are the same: {', '.join(lost)}; what each image adds to the values "
            "is not kept (results from files don't), so these errors are too large as a rule"
        )


def _by_number(result: ProbeResult) -> list[int]:
    numbers = result.metadata["image_ids"]
    return sorted(range(len(numbers)), key=numbers.__getitem__)


def _without_influence(result: ProbeResult) -> Sequence[str]:
    return result.metadata.get("metrics_without_influence") or ()
