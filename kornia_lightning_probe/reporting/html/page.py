"""The page: what stands in it, laid out by `page.html`; whatever comes from results is escaped there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup

from kornia_lightning_probe.reporting.html.charts import charts_of, datasets_of, drift_charts
from kornia_lightning_probe.reporting.html.gathered import Probed
from kornia_lightning_probe.reporting.html.numbers import PageNumbers, page_numbers
from kornia_lightning_probe.reporting.text.table import number
from kornia_lightning_probe.reporting.text.verdict import is_decided, verdict_text
from kornia_lightning_probe.results.comparing.comparison import compare_numbers
from kornia_lightning_probe.results.lookup import ProbeNumbers
from kornia_lightning_probe.wording import listed

_FOLDER = Path(__file__).parent
_MOST_ENTRIES = 12
_LONGEST = 400
# These have a place of their own.
_TOLD = ("left_out", "warnings", "warning_kinds", "notes", "noise_floor", "image_ids", "metrics_left_out", "grids")
_MEANING_OF_CKA = "Similarity (debiased CKA) of each layer to itself on the same clean images; 1: the same."


@dataclass(frozen=True)
class _Section:
    """What `page.html` shows of one probe."""

    title: str
    facts: str
    verdict: Sequence[str] = ()
    charts: Sequence[str] = ()
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    chosen: Mapping[str, int] = field(default_factory=dict)
    baseline: str = ""
    table: Sequence[Sequence[str]] = ()
    table_of: str = ""
    pictures: Sequence[Any] = ()
    drift: Sequence[str] = ()
    remarks: Sequence[tuple[str, str]] = ()
    metadata: Sequence[tuple[str, str]] = ()
    data: Mapping[str, Any] = field(default_factory=dict)


def page_text(probes: Sequence[Probed]) -> str:
    """The page of some probes, those with augmentations first."""
    ordered = sorted(probes, key=lambda probed: probed.is_drift)
    sections = [_drift_section(probed) if probed.is_drift else _section(probed) for probed in ordered]
    page = _environment().get_template("page.html")
    return page.render(
        title=sections[0].facts,
        sections=sections,
        style=_verbatim("page.css"),
        script=_verbatim("page.js"),
        vega=_vega(),
    )


def _section(probed: Probed) -> _Section:
    numbers = page_numbers(probed)
    latest = probed.latest
    verdict = verdict_text(latest, before=probed.before, first=probed.first_trained)
    charts = charts_of(numbers)
    chosen = {
        "metric": 0,
        "augmentation": 0,
        "layer": numbers.shown_layer,
        "when": len(numbers.results) - 1,
    }
    choices = {
        "metric": numbers.metrics,
        "augmentation": numbers.augmentations,
        "layer": numbers.layers,
        "when": numbers.whens,
    }
    return _Section(
        title=probed.title,
        facts=_facts(probed),
        verdict=verdict.splitlines(),
        charts=list(charts),
        choices=choices,
        chosen=chosen,
        baseline="" if probed.baseline is None else probed.baseline.when,
        table=list(_before_and_after(probed, numbers)),
        table_of=numbers.metrics[0],
        pictures=probed.worst,
        remarks=[*_remarks(latest), *(("not shown", sentence) for sentence in numbers.not_shown)],
        metadata=list(_metadata(probed.results)),
        data={
            "charts": charts,
            "datasets": datasets_of(numbers),
            "meanings": numbers.meanings,
            "chosen": chosen,
            "choices": choices,
        },
    )


def _drift_section(probed: Probed) -> _Section:
    charts = drift_charts(probed.results)
    return _Section(
        title=probed.title,
        facts=_facts(probed),
        verdict=[_MEANING_OF_CKA],
        drift=list(charts),
        table=list(_drift_table(probed.latest)),
        remarks=list(_remarks(probed.latest)),
        metadata=list(_metadata(probed.results)),
        data={"charts": charts, "datasets": {}},
    )


def _facts(probed: Probed) -> str:
    """The title line: what was measured, how often and on how much."""
    latest = probed.latest
    trained = len({numbers.epoch for numbers in probed.results if numbers.epoch >= 0})
    counts = [
        (latest.metadata.num_images, "images"),
        (0 if probed.is_drift else len(latest.views), "views"),
        (len(latest.layers), "layers"),
        (trained, "epochs"),
    ]
    words = [f"{count} {name if count != 1 else name[:-1]}" for count, name in counts if count]
    return ": ".join(filter(None, [probed.model, ", ".join(words)]))


def _before_and_after(probed: Probed, numbers: PageNumbers) -> Iterator[list[str]]:
    """A row for each layer and augmentation of the first metric: before, now and the change, with errors."""
    metric = numbers.metrics[0]
    latest = probed.latest
    changes = {}
    if probed.baseline is not None:
        changes = _rows_of(probed.baseline, latest, metric)
    table = latest.table(metric)
    for layer in table.layers:
        for augmentation in latest.augmentations:
            now = _with_error(latest.value(metric, layer, augmentation), latest.std_error(metric, layer, augmentation))
            row = changes.get((layer, augmentation))
            before, change, word = "", "", ""
            if row is not None:
                before = number(row.first)
                change = _with_error(row.change, row.std_error, sign="+")
                word = "decided" if is_decided(row) else "undecided"
            yield [layer, augmentation, before, now, change, word]


def _rows_of(first: ProbeNumbers, second: ProbeNumbers, metric: str) -> dict[tuple[str, str], Any]:
    try:
        comparison = compare_numbers(first, second)
    except ValueError:
        return {}
    return {(row.layer, row.augmentation): row for row in comparison.rows if row.metric == metric}


def _drift_table(latest: ProbeNumbers) -> Iterator[list[str]]:
    for metric in latest.metrics:
        for layer in latest.table(metric).layers:
            yield [layer, metric, "", number(latest.value(metric, layer)), "", ""]


def _with_error(value: float, error: float, *, sign: str = "") -> str:
    if math.isnan(value):
        return "-"
    shown = f"{value:{sign}.3f}"
    return shown if math.isnan(error) else f"{shown} ± {error:.3f}"


def _remarks(latest: ProbeNumbers) -> Iterator[tuple[str, str]]:
    """What a reader should know: warnings, what was left out and why, the noise floor, notes."""
    metadata = latest.metadata
    yield from (("warning", sentence) for sentence in metadata.warnings)
    yield from (("left out", f"{name}: {why}") for name, why in metadata.left_out.items())
    yield from (("left out", f"{name}: {why}") for name, why in (metadata.metrics_left_out or {}).items())
    if metadata.noise_floor is not None:
        yield ("noise floor", f"two equal passes lie {number(metadata.noise_floor)} apart, as a sensitivity")
    yield from (("note", sentence) for sentence in metadata.notes)


def _metadata(results: Sequence[ProbeNumbers]) -> Iterator[tuple[str, str]]:
    latest = results[-1].metadata
    seconds = [numbers.metadata.seconds for numbers in results if numbers.metadata.seconds is not None]
    if seconds:
        each = f", {seconds[-1]:.2g} s the last" if len(seconds) > 1 else ""
        yield ("cost", f"{sum(seconds):.3g} s in {len(seconds)} probes{each}")
    for name in latest:
        if name not in _TOLD:
            yield (name, _short(latest[name]))


def _short(value: Any) -> str:
    """A fact as a line."""
    text = str(value)
    if isinstance(value, Mapping):
        text = listed([f"{name}: {entry}" for name, entry in value.items()], most=_MOST_ENTRIES)
    elif isinstance(value, list | tuple):
        text = listed(value, most=_MOST_ENTRIES)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FileSystemLoader(_FOLDER),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return environment


def _verbatim(name: str) -> Markup:
    """A file of this folder, which is ours and goes into the page as it is."""
    return Markup((_FOLDER / name).read_text(encoding="utf-8"))  # noqa: S704 - our own file


@cache
def _vega() -> Markup:
    """Vega, Vega-Lite and its embedding, which take a second to put together."""
    bundle = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub asks for what it does not need
    return Markup(bundle)  # noqa: S704 - vl-convert's own
