"""The pictures of a SensitivityProbe: matplotlib is imported where one is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kornia_lightning_probe.bank.bank import AugmentationBank
from kornia_lightning_probe.callbacks.logbook import Picture
from kornia_lightning_probe.callbacks.summaries import compared
from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.result import ProbeResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HISTORY = "history"


def pictures_of(
    results: Sequence[ProbeResult], bank: AugmentationBank, images: ProbeImages, *, name: str, stage: str
) -> list[Picture]:
    """The pictures of a probe, in the order in which they are written.

    Args:
        results: those of the stage, oldest first.
        bank: the views.
        images: the probe images.
        name: the front of every tag.
        stage: "fit", "validate" or "test"; only a training has a history.
    """
    pictures = [
        Picture(
            f"{name}/bank",
            lambda: _of_bank(bank, images),
            card=lambda: _of_bank(bank, images, card=True),
            once=True,
        ),
        Picture(f"{name}/layers", lambda: _of_layers(results), card=lambda: _of_layers(results, card=True)),
    ]
    latest = results[-1]
    if latest.images is not None and latest.images.worst is not None:
        pictures.append(_of_worst(latest, name=name))
    if stage == "fit":
        pictures.append(_of_history(results, name=name))
    return pictures


def plot_of(
    history: Sequence[ProbeResult],
    latest: ProbeResult | None,
    kind: str,
    *,
    metric: str | None,
    layers: Sequence[str] | None,
) -> Figure:
    """Draw a history, or another kind of picture of the latest result, see `SensitivityProbe.plot`."""
    if kind == HISTORY:
        from kornia_lightning_probe.reporting.figures.over_epochs.history import plot_history

        return plot_history(history, metric=metric, layers=layers)
    if latest is None:
        raise ValueError("there is no result to draw; a SensitivityProbe has one after its first probe")
    return latest.plot(kind, metric=metric, layers=layers)


def _of_history(results: Sequence[ProbeResult], *, name: str) -> Picture:
    # The list grows with the training, and a picture is of its own time.
    history = list(results)

    def draw(*, card: bool = False) -> Figure:
        from kornia_lightning_probe.reporting.figures.over_epochs.history import plot_history

        return plot_history(history, card=card)

    return Picture(f"{name}/{HISTORY}", draw, card=lambda: draw(card=True), file=f"{HISTORY}.png")


def _of_worst(result: ProbeResult, *, name: str) -> Picture:
    def draw(*, card: bool = False) -> Figure:
        from kornia_lightning_probe.reporting.figures.worst import plot_worst

        return plot_worst(result, card=card)

    return Picture(f"{name}/worst", draw, card=lambda: draw(card=True))


def _of_bank(bank: AugmentationBank, images: ProbeImages, *, card: bool = False) -> Figure:
    from kornia_lightning_probe.reporting.figures.bank import plot_bank

    return plot_bank(bank, images.scout.images[0], card=card)


def _of_layers(results: Sequence[ProbeResult], *, card: bool = False) -> Figure:
    from kornia_lightning_probe.reporting.figures.epoch import plot_epoch

    return plot_epoch(compared(results), card=card)
