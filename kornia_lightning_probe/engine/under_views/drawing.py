"""The views of a block as they are drawn for the model, and what is noted of them on the way."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from kornia_lightning_probe.activations.about import Shown
from kornia_lightning_probe.bank.bank import AugmentationBank, Augmented
from kornia_lightning_probe.bank.doubts.looking import Look
from kornia_lightning_probe.bank.doubts.ranges import range_behind
from kornia_lightning_probe.bank.twins import twin_seed, twins_of, with_noise_as_long
from kornia_lightning_probe.bank.views import View
from kornia_lightning_probe.engine.notes import Findings
from kornia_lightning_probe.engine.under_views.keeping import KeptViews
from kornia_lightning_probe.images.blocks import Block
from kornia_lightning_probe.images.nested import join_rows
from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.results.tables import ViewInfo
from kornia_lightning_probe.wording import listed

# Columns of what is seen of each view: first what is counted in blocks, then what the owner of block 0 has looked at.
_CHANGED, _WITHOUT_MATRIX, _LOOK = 0, 1, 2
_COLUMNS = _LOOK + len(Look._fields)

# A bank does the same to the same images in every epoch, so that one look is enough.
_LOOKS: WeakKeyDictionary[AugmentationBank, WeakKeyDictionary[ProbeImages, dict[int, Look]]] = WeakKeyDictionary()


class Views:
    """Draws the views of blocks, and notes what it sees of them.

    Args:
        bank: the views.
        images: the images that the blocks are of.
        twins: whether each view has a twin, noise as long as its movement.
        kept: what has been drawn of these images before.

    Attributes:
        all: the views, and behind them their twins.
        seen: float64 (views, notes): of each process what it has seen; the sum over all processes is the whole.
    """

    def __init__(
        self, bank: AugmentationBank, images: ProbeImages, *, twins: bool = False, kept: KeptViews | None = None
    ) -> None:
        self._bank = bank
        self._kept = kept or KeptViews()
        self._units: tuple[int, list[Tensor]] | None = None
        self.all: tuple[View, ...] = bank.views
        if twins:
            self.all += twins_of(bank.views)
        self._looks = _LOOKS.setdefault(bank, WeakKeyDictionary()).setdefault(images, {})
        # The caller may be in it for a while, and what is made there can't be added to elsewhere.
        with torch.inference_mode(False):
            self.seen = torch.zeros(len(bank), _COLUMNS, dtype=torch.float64)

    def draw(self, block: Block, shown: Shown, group: range) -> tuple[list[Shown], Any]:
        """A block under some views: what is known of each, and the inputs, behind each other.

        Args:
            block: the block, on the model's device.
            shown: what is known of it without any view.
            group: the views.

        Raises:
            ValueError: for a view that changes the size of images.
        """
        views: list[Shown] = []
        inputs = []
        for index in group:
            view = self.all[index]
            augmented = self._drawn(index, block)
            if not view.is_twin:
                self._see(index, block, augmented)
            views.append(
                replace(
                    shown,
                    views=range(index, index + 1),
                    view=view,
                    matrix=augmented.matrix,
                    through=augmented.through,
                    frames=augmented.frames,
                )
            )
            inputs.append(block.with_images(augmented.images))
        return views, join_rows(inputs)

    def let_go(self) -> None:
        """Free what was kept of the last block."""
        self._units = None

    def _drawn(self, index: int, block: Block) -> Augmented:
        """A block under a view or its twin, as it was drawn before or now."""
        kept = self._kept.get(block.index, index, device=block.images[0].device)
        if kept is not None:
            return kept
        # Made for all views, and no part of what the first of them takes.
        self._units_of(block)
        started = time.perf_counter()
        view = self.all[index]
        augmented = self._twin(view, block) if view.is_twin else self._view(index, block)
        self._kept.offer(block.index, index, augmented, seconds=time.perf_counter() - started)
        return augmented

    def _view(self, index: int, block: Block) -> Augmented:
        view = self._bank.views[index]
        changes = bool(self.seen[index, _CHANGED])
        augmented = self._bank.draw(view, block.images, self._units_of(block), block=block.index, changes=changes)
        _require_size(view, block, augmented)
        return augmented

    def _twin(self, twin: View, block: Block) -> Augmented:
        """A block with noise as long as a view's movement, which is drawn once more."""
        moved = self._bank.draw(twin, block.images, self._units_of(block), block=block.index, changes=True).images
        noisy: list[Tensor] = []
        for entry, (images, under_view) in enumerate(zip(block.images, moved, strict=True)):
            # Entries of one shape must not get the same noise: it would cancel where a model compares them.
            seed = twin_seed(self._bank.seed, twin, block.index, entry)
            noisy.append(with_noise_as_long(images, under_view, seed=seed))
        return Augmented(images=tuple(noisy), changed=True, matrix=None, through=None)

    def _units_of(self, block: Block) -> list[Tensor]:
        """The block's images as augmentations see them, entry by entry; made once, where any view is drawn."""
        if self._units is None or self._units[0] != block.index:
            self._units = block.index, [self._bank.to_unit(entry) for entry in block.images]
        return self._units[1]

    def doubt(self, block: Block, findings: Findings) -> None:
        """Note images and magnitudes that are implausible, before anything is drawn; the same on every process."""
        doubts = [self._bank.why_implausible(entry) for entry in block.images]
        said = [sentence for sentence in doubts if sentence]
        if said:
            findings.facts["implausible_images"] = said[0]
            findings.warn(said[0], kind="implausible images")
        _note_magnitudes(self._bank, findings)

    def note(self, findings: Findings) -> None:
        """Note what all processes together have seen."""
        labels = [view.label for view in self._bank]
        changed = self.seen[:, _CHANGED].tolist()
        without_matrix = self.seen[:, _WITHOUT_MATRIX].tolist()
        looks = [Look(*row) for row in self.seen[:, _LOOK:].tolist()]
        seen = list(zip(labels, looks, strict=True))
        findings.unchanged([label for label, blocks in zip(labels, changed, strict=True) if not blocks])
        findings.facts["views_without_matrix"] = [
            label for label, blocks in zip(labels, without_matrix, strict=True) if blocks
        ]
        _note_range(seen, findings)
        as_drawn = [view.label for view in self._bank if getattr(view.transform, "as_drawn", False)]
        _note_parts(seen, findings, as_drawn=as_drawn)
        _note_randomness(seen, findings)

    def _see(self, index: int, block: Block, augmented: Augmented) -> None:
        self.seen[index, _CHANGED] += augmented.changed
        self.seen[index, _WITHOUT_MATRIX] += augmented.matrix is None
        if block.index > 0:
            return
        if index not in self._looks:
            self._looks[index] = self._bank.look_at(self._bank.views[index], self._units_of(block), augmented)
        self.seen[index, _LOOK:] = torch.tensor(self._looks[index], dtype=torch.float64)


def view_info(view: View) -> ViewInfo:
    """What a result says of a view."""
    return ViewInfo(
        view.augmentation,
        view.level,
        view.severity,
        from_identity=view.from_identity,
        moves_pixels=view.moves_pixels,
        on_curve=view.on_curve,
        unit=view.unit,
    )


def _require_size(view: View, block: Block, augmented: Augmented) -> None:
    for before, after in zip(block.images, augmented.images, strict=True):
        if before.shape != after.shape:
            raise ValueError(
                f"view {view.label!r} changes images of {tuple(before.shape)} to {tuple(after.shape)}; "
                "activations can only be compared at one size: put a Resize back behind it"
            )


def _note_magnitudes(bank: AugmentationBank, findings: Findings) -> None:
    ranges: dict[str, str] = {}
    for view in bank:
        found = range_behind(view)
        if found is not None:
            ranges[view.label] = f"{found.name} from {found.low:g} to {found.high:g}"
    if not ranges:
        return
    findings.facts["views_with_ranges"] = ranges
    told = [f"{label} ({what})" for label, what in ranges.items()]
    findings.warn(
        f"these views draw their magnitude from a range, where the bank names a number: {listed(told)}; Kornia takes "
        "a pair of equal numbers as the magnitude itself, for example K.RandomRotation((15.0, 15.0))"
    )


def _note_range(seen: Sequence[tuple[str, Look]], findings: Findings) -> None:
    outside = {label: [look.lowest, look.highest] for label, look in seen if look.leaves_range}
    if not outside:
        return
    findings.facts["views_outside_range"] = outside
    told = [f"{label} (from {lowest:.4g} to {highest:.4g})" for label, (lowest, highest) in outside.items()]
    findings.warn(
        f"these views put out values far outside of [0, 1], where images lie: {listed(told)}; take Normalize or a "
        "factor out of them: what a loader's mean and std do is the bank's to undo and redo (mean=, std=)",
        kind=f"outside of the range: {listed(outside)}",
    )


def _note_parts(seen: Sequence[tuple[str, Look]], findings: Findings, *, as_drawn: Sequence[str]) -> None:
    """Of what is to be as it is drawn in training it is noted and no news."""
    parts = {label: look.moved for label, look in seen if look.by_chance}
    if parts:
        findings.facts["partly_changed_views"] = dict(parts)
    parts = {label: share for label, share in parts.items() if label not in as_drawn}
    if not parts:
        return
    told = [f"{label} ({share:.0%})" for label, share in parts.items()]
    findings.warn(
        f"these views change only part of the images, by chance: {listed(told)} of the first block, and values are "
        "those of a mixture of changed and unchanged images; pass p=1.0 where p is lower (Kornia's default is 0.5), or "
        "larger images or severities where single pixels are drawn",
        kind=f"changed in part: {listed(parts)}",
    )


def _note_randomness(seen: Sequence[tuple[str, Look]], findings: Findings) -> None:
    straying = [label for label, look in seen if look.strays]
    if straying:
        findings.facts["unrepeatable_views"] = straying
        findings.warn(
            f"these views do not repeat themselves under one seed: {listed(straying)}; values differ from epoch to "
            "epoch by chance. Draw from torch's, NumPy's or Python's global stream, which is seeded, and not from a "
            "generator outside of the augmentation"
        )
    blind = [label for label, look in seen if look.is_blind]
    if blind:
        findings.facts["self_seeded_views"] = blind
        findings.warn(
            f"these views draw the same whatever the seed: {listed(blind)}; every block of images gets the same draw, "
            "and another seed of the bank changes nothing. Draw from torch's, NumPy's or Python's global stream, "
            "without a seed of one's own"
        )
