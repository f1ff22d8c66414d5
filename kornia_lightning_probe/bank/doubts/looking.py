"""What is worth telling of a view: does it repeat itself, follow its seed, move every image, stay in the range?

The images are always those of one block, since an augmentation is drawn for a block as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kornia_lightning_probe.bank.drawing import NOTICEABLE, differ
from kornia_lightning_probe.bank.views import View

#: Draws the view on other images in [0, 1], entry by entry, under the seed of a block.
Draw = Callable[[Sequence[Tensor], int], Sequence[Tensor]]

# All of these draw from torch's own stream, which is seeded, and from nothing else.
_SEEDED_CLASSES = ("kornia.", "kornia_lightning_probe.", "torch.nn.")
# Under so many seeds of other blocks a view must give the same before it counts as blind to them: two images may well
# be turned to the same sides twice.
_SEEDS = 8
# Of a lone image so many copies.
_COPIES = 4
# So far outside of [0, 1], a pixel or the mean over all, no noise and no interpolation takes an image.
_FAR_OUTSIDE = 1.0 - NOTICEABLE
_MEAN_OUTSIDE = 0.05


class Look(NamedTuple):
    """What was seen of a view on one block.

    Attributes:
        lowest: the lowest pixel that it puts out, where images lie in [0, 1].
        highest: the highest one.
        leaves_range: whether that is far outside.
        moved: the share of images that it changed.
        by_chance: whether it is the draw that left the others as they were, and not what they show.
        strays: whether it did not give the same again under the same seed.
        is_blind: whether it draws, and gives the same under the seed of another block.
    """

    lowest: float
    highest: float
    leaves_range: bool
    moved: float
    by_chance: bool
    strays: bool
    is_blind: bool


def look_at(view: View, units: Sequence[Tensor], drawn: Sequence[Tensor], draw: Draw) -> Look:
    """Look at what a view made of a block.

    Args:
        view: one of a bank's.
        units: the block's images in [0, 1], entry by entry.
        drawn: what the view made of them, not limited to [0, 1].
        draw: draws the view again.
    """
    lowest, highest, outside = _range_of(drawn)
    farthest = max(-lowest, highest - 1)
    moved = _moved(units, drawn)
    share = float(moved.double().mean())
    by_chance = False
    if 0 < share < 1:
        by_chance = _leaves_copies(units, moved, draw)
    strays = is_blind = False
    if not _is_seeded(view):
        strays = _strays(units, draw)
        is_blind = not strays and _is_blind(units, moved, draw)
    return Look(
        lowest=lowest,
        highest=highest,
        leaves_range=outside > _MEAN_OUTSIDE or farthest >= _FAR_OUTSIDE,
        moved=share,
        by_chance=by_chance,
        strays=strays,
        is_blind=is_blind,
    )


def _is_seeded(view: View) -> bool:
    """Whether an augmentation is made of classes that are known to draw from torch's own stream."""
    if not isinstance(view.transform, nn.Module):
        return False
    homes = [type(module).__module__ for module in view.transform.modules()]
    return all(home.startswith(_SEEDED_CLASSES) for home in homes)


def _range_of(drawn: Sequence[Tensor]) -> tuple[float, float, float]:
    """The lowest and the highest pixel, and how far outside of [0, 1] they lie on average; NaN counts as nothing."""
    every = [entry.detach().flatten() for entry in drawn]
    pixels = torch.cat(every).nan_to_num(nan=0.5)
    outside = pixels - pixels.clamp(0.0, 1.0)
    lowest, highest = torch.aminmax(pixels)
    return float(lowest), float(highest), float(outside.abs().mean())


def _moved(units: Sequence[Tensor], drawn: Sequence[Tensor]) -> Tensor:
    """Which images of a block were changed in any entry, (B,)."""
    changed = torch.zeros(len(units[0]), dtype=torch.bool, device=units[0].device)
    for unit, after in zip(units, drawn, strict=True):
        changed |= _changed_rows(unit, after)
    return changed


def _changed_rows(unit: Tensor, after: Tensor) -> Tensor:
    if unit.shape != after.shape:
        return torch.ones(len(unit), dtype=torch.bool, device=unit.device)
    change = (after - unit).abs()
    largest = change.flatten(1).amax(1)
    # NaN is a change.
    return ~(largest <= NOTICEABLE)


def _strays(units: Sequence[Tensor], draw: Draw) -> bool:
    """Whether a view does not repeat itself under its seed."""
    return _any_differ(draw(units, 0), draw(units, 0))


def _is_blind(units: Sequence[Tensor], moved: Tensor, draw: Draw) -> bool:
    """Whether a view draws, and gives the same under the seeds of other blocks."""
    first = draw(units, 0)
    if _any_differ(first, draw(units, 1)):
        return False
    if not _tells_copies_apart(units, moved, draw):
        return False
    return not any(_any_differ(first, draw(units, block)) for block in range(2, _SEEDS))


def _tells_copies_apart(units: Sequence[Tensor], moved: Tensor, draw: Draw) -> bool:
    """Whether a view does different things to copies of one image, so that it draws."""
    for entry in draw(_copies(units, moved), 0):
        first, others = entry[:1], entry[1:]
        if differ(others, first.expand_as(others)):
            return True
    return False


def _leaves_copies(units: Sequence[Tensor], moved: Tensor, draw: Draw) -> bool:
    """Whether a view leaves some copies of an image that it can change as they are."""
    copies = _copies(units, moved)
    changed = _moved(copies, draw(copies, 0))
    return not bool(changed.all())


def _copies(units: Sequence[Tensor], moved: Tensor) -> list[Tensor]:
    """As many copies of one image as a block has images: of those that were changed the one with the widest range."""
    pixels = units[0].flatten(1)
    span = pixels.amax(1) - pixels.amin(1)
    # A span is at most 1.
    row = int((span + 2 * moved).argmax())
    count = len(pixels)
    if count == 1:
        count = _COPIES
    rows = torch.full((count,), row, device=pixels.device)
    return [unit[rows] for unit in units]


def _any_differ(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    return any(differ(one, other) for one, other in zip(first, second, strict=True))
