"""Which loggers take pictures, told by what they can do; it knows no logger's package."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from kornia_lightning_probe.reporting.tensorboard import add_picture, writer_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What paths of artifacts may hold everywhere: MLflow refuses brackets, Windows colons.
_REFUSED = re.compile(r"[^\w\-. /=]")


class Taker(NamedTuple):
    """How a logger takes pictures.

    Attributes:
        take: called with the tag, the figure and the step.
        wants_cards: whether it shows pictures at a width of some 350 pixels.
    """

    take: Callable[[str, Figure, int], None]
    wants_cards: bool = False


def taker_of(logger: Any) -> Taker | None:
    """How a logger takes pictures; None for one that doesn't.

    TensorBoard's writer comes first, then a logger's own ``log_image(key, images, step)``, as W&B's has it, then
    ``experiment.log_figure``, as of MLflow's client and of Comet, told apart by the names of their arguments.

    Args:
        logger: any of a Trainer's.
    """
    writer = writer_of(logger)
    if writer is not None:
        return Taker(lambda tag, figure, step: add_picture(writer, tag, figure, step=step), wants_cards=True)
    if callable(getattr(logger, "log_image", None)):
        return Taker(lambda tag, figure, step: _log_image(logger, tag, figure, step))
    log_figure = getattr(getattr(logger, "experiment", None), "log_figure", None)
    if not callable(log_figure):
        return None
    arguments = inspect.signature(log_figure).parameters
    if "artifact_file" in arguments:
        run = {"run_id": logger.run_id} if "run_id" in arguments else {}
        return Taker(lambda tag, figure, step: log_figure(figure=figure, artifact_file=_artifact(tag, step), **run))
    if "figure_name" in arguments:
        return Taker(lambda tag, figure, step: log_figure(figure_name=tag, figure=figure, step=step))
    return None


def _log_image(logger: Any, tag: str, figure: Figure, step: int) -> None:
    from kornia_lightning_probe.reporting.figures.drawing import figure_pixels

    logger.log_image(key=tag, images=[figure_pixels(figure)], step=step)


def _artifact(tag: str, step: int) -> str:
    """The file of a picture, which has no step of its own.

    Example:
        >>> _artifact("probe/history [1]", 40)
        'probe/history 1/step=000040.png'
    """
    return f"{_REFUSED.sub('', tag)}/step={step:06d}.png"
