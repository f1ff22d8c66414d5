"""The probe images themselves: copies, one class among few others, images nearly alike. Knows no model and no view."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from kornia_lightning_probe.engine.notes import Findings
from kornia_lightning_probe.functional.distances import all_finite, squared_norm, upcast
from kornia_lightning_probe.functional.estimates import between_image_deviation
from kornia_lightning_probe.images.blocks import Block
from kornia_lightning_probe.images.labels import IGNORED
from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.wording import listed

# One class may hold so much of the images, of so many at least.
_MOST_OF_ONE_CLASS, _FEWEST = 0.8, 4
# Images are nearly alike where two of them differ by less than this part of what the pixels of one differ by.
_ALIKE = 0.1
# Of copies of one image so many are named.
_SHOWN = 4
# Rows of the table: an image's content, its class plus one, how far it lies from others, how far its pixels differ.
_CONTENT, _CLASS, _APART, _CONTRAST = range(4)


class ProbeSet:
    """What a process notes of its own images, to be judged once those of all others are there.

    Args:
        images: the probe images, with the blocks of this process.

    Attributes:
        seen: (notes, image): zeros where an image is another process's; the sum over all processes is the whole.
    """

    def __init__(self, images: ProbeImages) -> None:
        self._images = images
        # The caller may be in it for a while, and what is made there can't be added to elsewhere.
        with torch.inference_mode(False), torch.no_grad():
            self.seen = torch.zeros(4, images.num_images, dtype=torch.float64)
            self.seen[_CONTENT] = images.fingerprints
            for block in images.blocks:
                rows = slice(block.ids.start, block.ids.stop)
                self.seen[_CLASS, rows] = _classes(block)
                self.seen[_APART, rows] = _apart(block)
                self.seen[_CONTRAST, rows] = _contrast(block)

    def labels(self) -> Tensor | None:
        """Each image's class, (N,) int64, -1 for none; None where no image has any."""
        classes = self.seen[_CLASS]
        return classes.long() - 1 if bool(classes.any()) else None

    def note(self, findings: Findings) -> None:
        """Say what makes numbers of these images less than they seem."""
        counts = self._counts()
        if counts:
            findings.facts["largest_class_share"] = max(counts.values()) / counts.total()
        for sentence, kind in (self._copies(), self._one_class(), self._alike()):
            if sentence:
                findings.warn(sentence, kind=kind)

    def _copies(self) -> tuple[str, str]:
        by_content: dict[float, list[int]] = {}
        for number, content in zip(self._images.image_ids, self.seen[_CONTENT].tolist(), strict=True):
            by_content.setdefault(content, []).append(number)
        groups = [_equal(sorted(numbers)) for numbers in by_content.values() if len(numbers) > 1]
        more = self._images.num_images - len(by_content)
        sentence = (
            f"{more} of {self._images.num_images} probe images are copies of others (images {listed(groups)} of the "
            "source): they tell nothing new, standard errors are too small, and the distance between images is, too"
        )
        return (sentence if groups else "", "copies among the images")

    def _counts(self) -> Counter[int]:
        """How many images there are of each class."""
        return Counter(int(label) - 1 for label in self.seen[_CLASS].tolist() if label > 0)

    def _one_class(self) -> tuple[str, str]:
        counts = self._counts()
        total = counts.total()
        if total < _FEWEST:
            return "", ""
        label, most = counts.most_common(1)[0]
        sentence = (
            f"{most} of the {total} probe images with a label are of class {label} ({most / total:.0%}): the distance "
            "between images is that within one class; take images of all classes (sensitivity_within compares with "
            "images of the same class in any case)"
        )
        return (sentence if most > _MOST_OF_ONE_CLASS * total else "", "one class among the images")

    def _alike(self) -> tuple[str, str]:
        apart, contrast = 2 * self.seen[_APART].nanmean(), 2 * self.seen[_CONTRAST].nanmean()
        is_alike = bool((apart > 0) & (apart < _ALIKE**2 * contrast))
        ratio = float((apart / contrast).sqrt())
        sentence = (
            f"the probe images are nearly alike: the pixels of two of them differ by {ratio:.1%} of what the pixels of "
            "one image differ by among each other, so that the distance between images, by which sensitivity divides, "
            "is small; take images that differ as those do which the model has to tell apart"
        )
        return (sentence if is_alike else "", "images nearly alike")


def _equal(numbers: Sequence[int]) -> str:
    shown = " = ".join(map(str, numbers[:_SHOWN]))
    more = len(numbers) - _SHOWN
    return f"{shown} = {more} more" if more > 0 else shown


def require_finite(images: ProbeImages) -> None:
    """Refuse images with pixels that are no numbers.

    Raises:
        ValueError: which names the images.
    """
    spoilt: set[int] = set()
    for block in (images.scout, *images.blocks):
        for entry in block.images:
            if not all_finite(entry):
                rows = (~entry.flatten(1).isfinite().all(1)).nonzero().flatten().tolist()
                spoilt.update(images.image_ids[block.ids[row]] for row in rows)
    if spoilt:
        raise ValueError(
            f"images: NaN or infinite pixels in {len(spoilt)} of {images.num_images} images (images "
            f"{listed(sorted(spoilt))} of the source). Repair or leave out these images"
        )


def _classes(block: Block) -> Tensor:
    """Each image's class plus one; 0 where it has none."""
    labels = block.labels
    if labels is None or labels.ndim != 1:
        return torch.zeros(len(block))
    return torch.where(labels == IGNORED, 0, labels + 1).clamp(min=0).cpu()


def _apart(block: Block) -> Tensor:
    """Each image's ``e_i`` in pixels."""
    if len(block) < 2:
        return torch.full((len(block),), torch.nan)
    return _total(between_image_deviation(upcast(entry)) for entry in block.images)


def _contrast(block: Block) -> Tensor:
    """How far each image's pixels lie from the mean of their channel, squared and added up."""
    centred: list[Tensor] = []
    for entry in block.images:
        axes = block.layout.grid_axes
        pixels = upcast(entry)
        centred.append(squared_norm(pixels - pixels.mean(axes, keepdim=True)))
    return _total(centred)


def _total(entries: Iterable[Tensor]) -> Tensor:
    found: Sequence[Tensor] = list(entries)
    return torch.stack(list(found)).sum(0).cpu()
