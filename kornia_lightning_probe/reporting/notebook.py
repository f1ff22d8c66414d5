"""What a notebook shows of a result or a comparison: the verdict above one small table in colours."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from kornia_lightning_probe.reporting.text.table import number
from kornia_lightning_probe.reporting.text.verdict import comparison_verdict, is_decided, verdict_text
from kornia_lightning_probe.results.comparing.comparison import ComparisonNumbers, ComparisonRow
from kornia_lightning_probe.results.lookup import ProbeNumbers, shown_metric
from kornia_lightning_probe.results.tables import pick_layers

_MOST_LAYERS = 40
# Translucent, so that they are legible on a light and on a dark page.
_VALUE, _LESS, _MORE = "0, 114, 178", "0, 114, 178", "213, 94, 0"
_DEEPEST = 0.6


def result_html(numbers: ProbeNumbers, title: str) -> str:
    """The verdict of a result and its sensitivity, or else its first metric, of layers x augmentations.

    Args:
        numbers: the result.
        title: the line above.

    Returns:
        HTML without a script and without a style sheet; names in it are inert.
    """
    if not numbers.metrics:
        return _page(title, [], "")
    metric = shown_metric(numbers.metrics)
    table = numbers.table(metric)
    low, high = table.scale
    lines: list[Sequence[str]] = []
    for layer in pick_layers(table.layers, _MOST_LAYERS):
        values = [numbers.value(metric, layer, name) for name in numbers.augmentations]
        lines.append([_head_cell(layer), *(_value_cell(value, low, high) for value in values)])
    columns = numbers.augmentations
    caption = f"{metric}: {table.quantity.meaning}" if table.quantity.meaning else metric
    caption += _shown_of(len(lines), len(table.layers))
    return _page(title, verdict_text(numbers).splitlines(), _table(caption, columns, lines))


def comparison_html(comparison: ComparisonNumbers, title: str) -> str:
    """The verdict of a comparison and the changes of sensitivity, or else of its first metric.

    Args:
        comparison: the comparison.
        title: the line above.

    Returns:
        HTML as :func:`result_html` gives it; a change has a number only where it is decided.
    """
    if not comparison.metrics:
        return _page(title, [], "")
    metric = shown_metric(comparison.metrics)
    rows = comparison.rows_of(metric)
    cells = {(row.layer, row.augmentation): row for row in rows}
    columns = list(dict.fromkeys(row.augmentation for row in rows))
    largest = max((abs(row.change) for row in rows if math.isfinite(row.change)), default=0.0)
    lines: list[Sequence[str]] = []
    layers = list(dict.fromkeys(row.layer for row in rows))
    for layer in pick_layers(layers, _MOST_LAYERS):
        changes = [_change_cell(cells.get((layer, name)), largest) for name in columns]
        lines.append([_head_cell(layer), *changes])
    caption = f"change of {metric}, where it is decided: beyond three standard errors and .02"
    caption += _shown_of(len(lines), len(layers))
    return _page(title, comparison_verdict(comparison).splitlines(), _table(caption, columns, lines))


def _shown_of(shown: int, layers: int) -> str:
    return "" if shown == layers else f"; {shown} of {layers} layers, evenly by depth"


def _page(title: str, sentences: Iterable[str], table: str) -> str:
    said = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    verdict = f"<ul>{said}</ul>" if said else ""
    return f"<div><p><b>{escape(title)}</b></p>{verdict}{table}</div>"


def _table(caption: str, columns: Iterable[str], lines: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in lines)
    return (
        f"<table><caption style='caption-side: bottom; text-align: left'>{escape(caption)}</caption>"
        f"<thead><tr><th style='text-align: left'>layer</th>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _head_cell(layer: str) -> str:
    return f"<th scope='row' style='text-align: left'>{escape(layer)}</th>"


def _value_cell(value: float, low: float, high: float) -> str:
    share = 0.0
    if math.isfinite(value) and high > low:
        share = min(max((value - low) / (high - low), 0.0), 1.0)
    return _cell(number(value), _VALUE, share)


def _change_cell(row: ComparisonRow | None, largest: float) -> str:
    if row is None or not is_decided(row):
        return _cell("", _VALUE, 0.0)
    colour = _LESS if row.change < 0 else _MORE
    return _cell(f"{row.change:+.2f}", colour, abs(row.change) / largest)


def _cell(text: str, colour: str, share: float) -> str:
    shade = f"rgba({colour}, {_DEEPEST * share:.2f})"
    return f"<td style='text-align: right; background: {shade}'>{text}</td>"
