"""What is said under a table or figure about views that move pixels."""

from __future__ import annotations

from kornia_lightning_probe.results.lookup import SENSITIVITY, ProbeNumbers
from kornia_lightning_probe.wording import listed

_MOST_NAMED = 4


def moving_text(numbers: ProbeNumbers, metric: str, *, augmentation: str | None = None, most: int = _MOST_NAMED) -> str:
    """Under which augmentations sensitivity is that of the spatial mean, since they move pixels; "" for none.

    Args:
        numbers: The result.
        metric: The metric that is shown; only sensitivity depends on what a view does.
        augmentation: The augmentation that is shown; None is all.
        most: How many are named.
    """
    if metric != SENSITIVITY:
        return ""
    moving = [view.augmentation for view in numbers.views if view.moves_pixels]
    shown = [name for name in dict.fromkeys(moving) if augmentation in (None, name)]
    if not shown:
        return ""
    return f"maps and tokens: spatial mean under {listed(shown, most=most)}"
