"""Which images of two results are known to be the same ones, and what a reader is told of errors paired by them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kornia_lightning_probe.functional.influence import root_of_ratio_influence, shares
from kornia_lightning_probe.results.lookup import SENSITIVITY, ProbeNumbers
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


class Shares:
    """What each image adds to the errors of two results' values.

    Of sensitivity it is in the images' own rows, too, which files hold that nothing else is kept in.

    Args:
        results: the first and the second.
    """

    def __init__(self, results: Sequence[ProbeNumbers]) -> None:
        self._results = results
        # Each is read from its file once.
        self._read: dict[int, Tensor | None] = {}

    def of(self, metric: str, views: Sequence[int], *, side: int) -> Tensor | None:
        """Those of some views of the first (0) or the second (1) result, (views, L, N); None where they aren't kept."""
        table = self._results[side].table(metric)
        if table.influence is not None or metric != SENSITIVITY:
            return table.shares(views)
        if side not in self._read:
            self._read[side] = _of_images(self._results[side], table.layers)
        known = self._read[side]
        return None if known is None else shares(known[list(views)])

    @property
    def not_found(self) -> list[str]:
        """The files that images were looked for in, and that did not have them."""
        tried = [self._results[side].images_elsewhere for side, found in self._read.items() if found is None]
        return [str(source) for source in tried if source is not None]


def _of_images(numbers: ProbeNumbers, layers: Sequence[str]) -> Tensor | None:
    """Each image's influence on sensitivity from how far it moved, (V, L, N); None where that isn't known."""
    images = numbers.images
    if images is None or not set(layers) <= set(images.layers):
        return None
    columns = [images.layers.index(layer) for layer in layers]
    kinds = [int(view.moves_pixels) for view in numbers.views]
    moved = images.moved[:, columns].double()
    apart = images.apart[kinds][:, columns].double()
    # Of an image that is missing under one view the mean distance there knows nothing.
    apart = torch.where(moved.isfinite(), apart, torch.nan)
    return root_of_ratio_influence(moved, apart / apart.nanmean(-1, keepdim=True))


def pairing_notes(
    pairing: Pairing,
    *,
    results: Sequence[ProbeNumbers],
    paired: Sequence[str],
    apart: Sequence[str],
    not_found: Sequence[str] = (),
) -> Iterator[str]:
    """Sentences on how the errors of changes came about.

    Args:
        pairing: of the images.
        results: the first and the second.
        paired: the metrics whose errors are those of differences image by image.
        apart: the other metrics that have errors.
        not_found: the files in which the images' own rows were looked for in vain.
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
            f"not paired, though the images are the same: {listed(lost)}; what each image adds to the values is not "
            "kept (a training's latest result has it in memory; of sensitivity it is in the .images.npz beside a "
            "result's JSON), so these errors are too large as a rule"
        )
    if not_found:
        yield f"each image's own rows are not where they were written, or are of another result: {listed(not_found)}"


def _by_number(numbers: ProbeNumbers) -> list[int]:
    """The places of the images in the order of their numbers."""
    ids = numbers.metadata["image_ids"]
    return sorted(range(len(ids)), key=ids.__getitem__)
