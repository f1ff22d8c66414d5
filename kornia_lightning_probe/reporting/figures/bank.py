"""The picture of a bank: what every view does to a few images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from kornia_lightning_probe.bank.bank import AugmentationBank
from kornia_lightning_probe.bank.views import View
from kornia_lightning_probe.reporting.figures import drawing

_SIDE = 0.95
_MOST_COLUMNS, _ON_CARD = 10, 3


def plot_bank(bank: AugmentationBank, images: Tensor, *, max_images: int = 4, card: bool = False) -> Figure:
    """Show what every view does to a few images: one row for each image, the clean one first.

    Args:
        bank: The bank.
        images: (B, C, H, W), as the loader gives them; of volumes (B, C, D, H, W) and video (B, T, C, H, W) the middle
            slice or frame is shown. Given the probe's first block, the pictures are those that the
            probe uses: an augmentation is drawn for a block as a whole.
        max_images: How many of the images to show.
        card: Draw it to be read at a width of 350 pixels: one image, under the strongest view of each augmentation.

    Returns:
        The figure. Where the views don't fit beside each other they go on below, each time with the clean images.
    """
    bands = list(bands_of(list(bank)))
    few, side = min(max_images, len(images)), _SIDE
    if card:
        bands = list(bands_of(_strongest(bank), most=_ON_CARD))
        few, side = 1, (drawing.CARD_WIDTH - 0.2) / (_ON_CARD + 1)
    columns = 1 + max(len(band) for band in bands)
    shape = images.shape[-2] / images.shape[-1]
    tall = side * min(max(shape, 0.5), 2.0) + 0.1
    levels = Counter(view.augmentation for view in bank)
    clean = bank.layout.flat(bank.pixels.to_unit(images[:few]))
    with drawing.house_look():
        size = (side * columns + 0.2, len(bands) * (tall * few + 0.45) + 0.1)
        figure = drawing.NotebookFigure(figsize=size, layout="constrained")
        if card:
            figure.set_dpi(drawing.CARD_DPI)
        rows = figure.subfigures(len(bands), 1, squeeze=False)[:, 0]
        for row, band in zip(rows, bands, strict=True):
            panels = row.subplots(few, columns, squeeze=False)
            for panel in panels.flatten():
                panel.set_axis_off()
            _draw_images(panels[:, 0], clean, "clean")
            for column, view in enumerate(band, start=1):
                severity = _severity_of(view) if levels[view.augmentation] > 1 else ""
                augmented = bank.augment(view, images, block=0).images[0][:few]
                shown = bank.layout.flat(bank.pixels.to_unit(augmented))
                _draw_images(panels[:, column], shown, f"{view.augmentation}{severity}")
        return figure


def _severity_of(view: View) -> str:
    """A second line with the severity and its unit."""
    return f"\n{view.severity:g} {view.unit}".rstrip()


def _strongest(views: Iterable[View]) -> list[View]:
    """The last level of each augmentation."""
    return list({view.augmentation: view for view in views}.values())


def bands_of(views: Sequence[View], *, most: int = _MOST_COLUMNS) -> Iterator[list[View]]:
    """The views in rows of at most ten; an augmentation's levels stay together where they fit into one."""
    band: list[View] = []
    for _, group in groupby(views, key=lambda view: view.augmentation):
        levels = list(group)
        if band and len(band) + len(levels) > most:
            yield band
            band = []
        band += levels
        while len(band) > most:
            yield band[:most]
            band = band[most:]
    yield band


def _draw_images(panels: Iterable[Axes], images: Tensor, title: str) -> None:
    """Draw (B, C, H, W) images in [0, 1] into B axes; of other than three channels the first is shown."""
    for i, (panel, image) in enumerate(zip(panels, images.cpu(), strict=True)):
        picture = image.permute(1, 2, 0) if len(image) == 3 else image[0]
        panel.imshow(
            picture.numpy(),
            cmap="gray",
            vmin=0,
            vmax=1,
            interpolation="nearest",
        )
        if i == 0:
            panel.set_title(
                title,
                fontsize=7.5,
                loc="center",
                pad=3,
            )
