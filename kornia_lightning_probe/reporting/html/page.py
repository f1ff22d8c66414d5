"""The page: what stands in it, laid out by `page.html`; whatever comes from results is escaped there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup

from kornia_lightning_probe.reporting.html.charts import charts_of, drift_charts, run_charts
from kornia_lightning_probe.reporting.html.gathered import Probed
from kornia_lightning_probe.reporting.html.naming import short_names
from kornia_lightning_probe.reporting.html.numbers import PageNumbers, page_numbers
from kornia_lightning_probe.reporting.html.runs import RunNumbers, run_numbers
from kornia_lightning_probe.reporting.html.tables import before_and_after, drift_rows, facts, remarks
from kornia_lightning_probe.reporting.html.thumbnails import with_pictures
from kornia_lightning_probe.reporting.text.verdict import verdict_text
from kornia_lightning_probe.wording import counted

_FOLDER = Path(__file__).parent
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
    inside: str = ""
    table: Sequence[Sequence[str]] = ()
    table_of: str = ""
    pictures: Sequence[Any] = ()
    pictures_under: str = ""
    drift: Sequence[str] = ()
    remarks: Sequence[tuple[str, str]] = ()
    metadata: Sequence[tuple[str, str]] = ()
    data: Mapping[str, Any] = field(default_factory=dict)


def page_text(probes: Sequence[Probed]) -> str:
    """The page of some probes, those with augmentations first."""
    ordered = sorted(probes, key=lambda probed: probed.is_drift)
    sections = [_drift_section(probed) if probed.is_drift else _section(with_pictures(probed)) for probed in ordered]
    runs = run_numbers(ordered)
    page = _environment().get_template("page.html")
    title = sections[0].facts if runs is None else f"{counted(len(runs.names), 'run')} side by side"
    return page.render(
        title=title,
        sections=sections,
        runs=runs,
        runs_data=_data_of_runs(runs),
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
        "augmentation": numbers.shown_augmentation,
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
        # The baseline is the first result, which is always shown.
        baseline="" if probed.baseline is None else numbers.whens[0],
        inside=short_names(numbers.layers)[1],
        table=list(before_and_after(probed, numbers.metrics[0])),
        table_of=numbers.metrics[0],
        pictures=probed.worst,
        pictures_under=probed.worst_under,
        remarks=[*remarks(latest), *(("not shown", sentence) for sentence in numbers.not_shown)],
        metadata=list(facts(probed.results)),
        data={
            "charts": charts,
            "cells": [cells.packed() for cells in numbers.cells],
            "views": views_of(numbers),
            "meanings": numbers.meanings,
            "chosen": chosen,
            "choices": choices,
        },
    )


def views_of(numbers: PageNumbers) -> list[dict[str, Any]]:
    """By augmentation the severities, whether they are a curve, and whether it begins at the identity."""
    found: list[dict[str, Any]] = []
    for views in numbers.names.views:
        on_curve = all(view.on_curve for view in views)
        starts = on_curve and all(view.from_identity for view in views)
        severities = [float(f"{view.severity:.6g}") for view in views]
        found.append({"x": severities, "curve": int(on_curve), "starts": starts})
    return found


def _drift_section(probed: Probed) -> _Section:
    charts = drift_charts(probed.results)
    return _Section(
        title=probed.title,
        facts=_facts(probed),
        verdict=[_MEANING_OF_CKA],
        drift=list(charts),
        table=list(drift_rows(probed.latest)),
        remarks=list(remarks(probed.latest)),
        metadata=list(facts(probed.results)),
        data={"charts": charts},
    )


def _data_of_runs(runs: RunNumbers | None) -> dict[str, Any]:
    return {} if runs is None else {"charts": run_charts(runs)}


def _facts(probed: Probed) -> str:
    """The title line: what was measured, how often and on how much."""
    latest = probed.latest
    counts = [
        (latest.metadata.num_images, "image"),
        (0 if probed.is_drift else len(latest.views), "view"),
        (len(latest.layers), "layer"),
        _times(probed),
    ]
    words = [counted(count, name) for count, name in counts if count]
    return ": ".join(filter(None, [probed.model, ", ".join(words)]))


def _times(probed: Probed) -> tuple[int, str]:
    """How often a training was probed: after so many epochs, unless its results have no time."""
    if probed.stage != "fit":
        return 0, ""
    times = {(numbers.epoch, numbers.step) for numbers in probed.results}
    if len(times) < len(probed.results):
        return len(probed.results), "result"
    return probed.num_epochs, "probed epoch"


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
