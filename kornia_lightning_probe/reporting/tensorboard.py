"""Tag names and values of the logged curves; TensorBoard's custom charts and pictures. It never imports TensorBoard."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from kornia_lightning_probe.results.lookup import SENSITIVITY, ProbeNumbers
from kornia_lightning_probe.results.tables import CLEAN, INPUT, pick_layers
from kornia_lightning_probe.wording import unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_TAGS = 200
MOST_LINES = 10
KINDS = ("layers", "all", "summary")

Layout = dict[str, dict[str, list[Any]]]
_layouts: WeakKeyDictionary[Any, Layout] = WeakKeyDictionary()


class Curves(NamedTuple):
    """What goes to the loggers: a value for each tag, and a sentence on what was left out ("" if nothing was)."""

    values: dict[str, float]
    left_out: str


def curve_tag(name: str, metric: str, layer: str, augmentation: str | None = None) -> str:
    """The tag of one curve: the text before the slash is a section of TensorBoard, the layer a chart in it.

    Example:
        >>> curve_tag("probe", "sensitivity", "layer1")
        'probe_sensitivity/layer1'
        >>> curve_tag("probe", "sensitivity", "layer1", "rotation")
        'probe_sensitivity_rotation/layer1'
    """
    section = f"{name}_{metric}" if augmentation is None else f"{name}_{metric}_{augmentation}"
    return f"{section}/{layer}"


def curves(result: ProbeNumbers, *, name: str, log_curves: str = "layers", most_tags: int = MOST_TAGS) -> Curves:
    """The curves of a result: for each layer the mean over the views, and the mean over each augmentation's levels.

    The tags depend on metrics, layers and views, never on a value, so that they are the same in every epoch; a layer
    without a value has NaN. The input pixels, which no training moves, have no curve.

    Args:
        result: The result.
        name: The probe's name.
        log_curves: "layers" (the metrics that say so of themselves: sensitivity), "all" or "summary" (none).
        most_tags: With more tags than this, only the means over the views are kept.

    Returns:
        The values by tag, each in its metric's unit, and what was left out.

    Raises:
        ValueError: If `log_curves` is none of the three.
    """
    if log_curves not in KINDS:
        raise ValueError(unknown("value of log_curves", log_curves, KINDS))
    wanted: list[_Place] = []
    for metric in _metrics(result, log_curves):
        wanted += _places(result, metric)
    left_out = ""
    if len(wanted) > most_tags:
        means = [place for place in wanted if place.augmentation is None]
        left_out = (
            f"{name}: {len(wanted)} curves are more than {most_tags}, so only the {len(means)} means over the views "
            "are logged; every number is in the result and its JSON file"
        )
        wanted = means
    return Curves({curve_tag(name, *place): result.value(*place) for place in wanted}, left_out)


class _Place(NamedTuple):
    """Whose mean a curve shows; an augmentation of None is all views."""

    metric: str
    layer: str
    augmentation: str | None


def _metrics(result: ProbeNumbers, log_curves: str) -> list[str]:
    if log_curves == "all":
        return list(result.metrics)
    if log_curves == "summary":
        return []
    logged = [metric for metric, table in result.tables.items() if table.quantity.logged]
    # An older metric says nothing of itself.
    return logged or [metric for metric in result.metrics if metric == SENSITIVITY]


def _places(result: ProbeNumbers, metric: str) -> list[_Place]:
    table = result.table(metric)
    places: list[_Place] = []
    for layer, applies in zip(table.layers, table.attempted.T.tolist(), strict=True):
        if layer == INPUT:
            continue
        tried = [view.augmentation for view, does in zip(result.views, applies, strict=True) if does]
        places.append(_Place(metric, layer, None))
        places += [_Place(metric, layer, augmentation) for augmentation in dict.fromkeys(tried)]
    return places


def writer_of(logger: object) -> Any | None:
    """The SummaryWriter behind a logger, told by what it can do; None for any other logger."""
    experiment = getattr(logger, "experiment", None)
    can_do = all(callable(getattr(experiment, name, None)) for name in ("add_custom_scalars", "add_image"))
    return experiment if can_do else None


def chart_layout(result: ProbeNumbers, logged: Curves, *, name: str, prefix: str = "") -> Layout:
    """TensorBoard's custom charts: per metric one for all views and one for each augmentation, a line for each layer.

    Args:
        result: The result.
        logged: The curves that are logged; a chart without a curve is left out.
        name: The probe's name.
        prefix: What the logger puts before every tag (`TensorBoardLogger(prefix=...)`, joined by "-").

    Returns:
        The argument of `SummaryWriter.add_custom_scalars`; at most ten layers in a chart, evenly by depth. Tags are
        regular expressions that match one tag each.
    """
    layout: Layout = {}
    # A drift has no views.
    whole = "clean images" if result.augmentations == (CLEAN.augmentation,) else "all views"
    for metric in result.metrics:
        measured = [layer for layer in result.table(metric).layers if layer != INPUT]
        layers = pick_layers(measured, MOST_LINES)
        charts: dict[str, list[Any]] = {}
        for augmentation in (None, *result.augmentations):
            tags = [curve_tag(name, metric, layer, augmentation) for layer in layers]
            before = f"{prefix}-" if prefix else ""
            lines = [f"^{re.escape(before + tag)}$" for tag in tags if tag in logged.values]
            if lines:
                charts[augmentation or whole] = ["Multiline", lines]
        if charts:
            layout[f"{name} {metric}"] = charts
    return layout


def add_charts(writer: Any, layout: Layout) -> None:
    """Add custom charts to a SummaryWriter, beside those that other probes have added to it.

    TensorBoard shows a run's last layout only, so that of the earlier probes is written again with it. A layout that
    somebody else has written to the same writer is replaced.
    """
    if not layout:
        return
    merged = {**_layouts.get(writer, {}), **layout}
    _layouts[writer] = merged
    writer.add_custom_scalars(merged)


def add_picture(writer: Any, tag: str, figure: Figure, *, step: int) -> None:
    """Write a figure as an image of a SummaryWriter; no window is opened and nothing is left to be closed."""
    from kornia_lightning_probe.reporting.figures.drawing import figure_pixels

    writer.add_image(
        tag,
        figure_pixels(figure),
        global_step=step,
        dataformats="HWC",
    )
