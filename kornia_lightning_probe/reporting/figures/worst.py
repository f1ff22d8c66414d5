"""The worst images: those that a view moves furthest, clean beside augmented."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from kornia_lightning_probe.reporting.figures import drawing
from kornia_lightning_probe.reporting.text.table import elided
from kornia_lightning_probe.results.image_scores import Shown, shown_images
from kornia_lightning_probe.results.lookup import ProbeNumbers
from kornia_lightning_probe.results.tables import WorstImages

_SIDE = 1.35
_ON_CARD, _LONGEST_ON_CARD = 3, 32
_LONGEST = 48
# Inches for what stands above and below the images.
_AROUND, _AROUND_CARD = 0.5, 0.9
_SHAPES = (0.5, 2.0)


def plot_worst(result: ProbeNumbers, *, card: bool = False) -> Figure:
    """Draw the images that moved furthest at the embedding, under the view that moves it most.

    Args:
        result: The result.
        card: Whether it is to be read at a width of 350 pixels: then three images beside each other.

    Returns:
        The figure: each image above what the view made of it, with its score (1 is as far as swapping it for another
        image), its number in the dataset and its label.

    Raises:
        ValueError: If the pictures aren't kept, with the reason.
    """
    worst, images = shown_images(result)
    columns = _ON_CARD if card else len(images)
    bands = [images[start : start + columns] for start in range(0, len(images), columns)]
    height, width = images[0].clean.shape[:2]
    shape = min(max(height / width, _SHAPES[0]), _SHAPES[1])
    wide = drawing.CARD_WIDTH if card else max(_SIDE * columns, 4.0) + 0.4
    side = (wide - 0.4) / columns
    around = _AROUND_CARD if card else _AROUND
    tall = len(bands) * (2 * side * shape + 0.42) + around
    with drawing.house_look():
        figure = drawing.NotebookFigure(figsize=(wide, tall), layout="constrained")
        if card:
            figure.set_dpi(drawing.CARD_DPI)
        panels = figure.subplots(2 * len(bands), columns, squeeze=False)
        for panel in panels.flatten():
            panel.set_axis_off()
        for place, band in enumerate(bands):
            _draw_band(panels[2 * place], panels[2 * place + 1], band)
        _name(figure, result, worst, card=card)
        return figure


def _draw_band(above: Sequence[Axes], below: Sequence[Axes], band: Sequence[Shown]) -> None:
    for clean, augmented, shown in zip(above, below, band, strict=False):
        _draw_image(clean, shown.clean)
        _draw_image(augmented, shown.augmented)
        clean.set_title(_caption(shown), fontsize=8.5, loc="center", pad=3)


def _draw_image(ax: Axes, picture: Tensor) -> None:
    height, width = picture.shape[:2]
    shape = height / width
    # A strip of few pixels is shown wider than it is.
    is_strip = not _SHAPES[0] <= shape <= _SHAPES[1]
    ax.imshow(picture.numpy(), interpolation="nearest", aspect="auto" if is_strip else "equal")


def _caption(shown: Shown) -> str:
    row = shown.row
    named = f"#{row.image}"
    if row.label is not None:
        named = f"{named}, label {row.label}"
    return f"{row.score:.2f}\n{named}"


def _name(figure: Figure, result: ProbeNumbers, worst: WorstImages, *, card: bool) -> None:
    """Say what is shown: the view, the layer, and what the numbers are."""
    longest, between = (_LONGEST_ON_CARD, "\n") if card else (_LONGEST, " ")
    view = elided(result.views[worst.view].named, longest)
    layer = elided(worst.layer, longest)
    drawing.title(figure, f"moved furthest by {view}{between}at {layer}")
    parts = ["below augmented", "score 1: as far as swapping the image", "#: number in the dataset", result.when]
    size = 8 if card else drawing.SMALL
    drawing.small_print(figure, *parts, size=size)
