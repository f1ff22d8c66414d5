import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.made_results import SENSITIVITY, made_result, table_of
from support.reports import Page, objects_of

from kornia_lightning_probe.reporting.html import Probed, Thumbnails, report, report_text, write_report

HOSTILE = (
    '<script>alert("x")</script>',
    "a\"b'c",
    "two\nlines",
    "</script><img src=x onerror=alert(1)>",
    "${1}{{ 1 }}",
)


def history(layers=("conv1", "conv2", "fc"), *, epochs=(-1, 0, 1), **options):
    return [made_result(layers, epoch=epoch, **options) for epoch in epochs]


def page_of(*probes):
    return Page(report_text(probes))


def test_the_page_is_one_file_that_nothing_leaves():
    page = page_of(Probed("probe", history()))
    sources = [attributes for _, attributes in page.elements if attributes.keys() & {"src", "srcset", "action"}]
    links = [attributes["href"] for _, attributes in page.elements if "href" in attributes]
    assert sources == []
    assert links == ["data:,"]
    policy = next(attributes["content"] for tag, attributes in page.elements if "http-equiv" in attributes)
    # Whatever is not named there may not be loaded from anywhere.
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy


def test_hostile_names_are_inert():
    # Of a layer, an augmentation, a probe, a note, what is left out, a model.
    ladders = {HOSTILE[3]: (1.0, 2.0), HOSTILE[4]: (1.0,)}
    metadata = {"notes": [HOSTILE[0]], "left_out": {HOSTILE[1]: HOSTILE[3]}, "device": HOSTILE[0]}
    results = history(HOSTILE[:3], ladders=ladders, metadata=metadata)
    tame = page_of(Probed("probe", history(("a", "b", "c"), ladders={"d": (1.0, 2.0), "e": (1.0,)})))
    page = page_of(Probed(HOSTILE[0], results, model=HOSTILE[3]))
    scripts = [tag for tag, _ in page.elements if tag in ("script", "img")]
    assert scripts == [tag for tag, _ in tame.elements if tag in ("script", "img")]
    assert not [attributes for _, attributes in page.elements if "onerror" in attributes]
    # Our own scripts are the same, whatever the names.
    assert page.scripts[1:] == tame.scripts[1:]
    assert page.data[0]["choices"]["layer"] == ["input", *HOSTILE[:3], "output"]
    assert page.data[0]["choices"]["augmentation"] == list(HOSTILE[3:])
    # An expression is code: no name stands in one.
    charts = json.dumps([named(chart) for chart in page.data[0]["charts"].values()])
    assert not [name for name in HOSTILE if json.dumps(name)[1:-1] in charts]


def named(chart):
    """A chart without the values of its parameters, which are data."""
    return {**chart, "params": [param["name"] for param in chart["params"]]}


def test_the_page_says_what_was_measured_and_the_verdict_and_what_to_know():
    metadata = {
        "num_images": 32,
        "notes": ["a note"],
        "warnings": ["a warning"],
        "left_out": {"conv9": "it did not run"},
        "noise_floor": 0.125,
        "seconds": 2.0,
    }
    results = history(metadata=metadata)
    text = page_of(Probed("probe", results, model="Net")).text
    # Views: 1 flip, 3 rotations, 2 blurs.
    assert "Net: 32 images, 6 views, 3 layers, 2 probed epochs" in text
    for sentence in results[-1].verdict(before=results[0], first=results[1]).splitlines():
        assert sentence in text
    for words in ("a note", "a warning", "conv9: it did not run", "two equal passes lie 0.12 apart", "6 s in 3 probes"):
        assert words in text
    assert "against before training" in text


def test_the_table_holds_before_now_and_the_change_with_their_errors():
    first, last = (made_result(epoch=epoch) for epoch in (-1, 1))
    table = first.table("sensitivity")
    last.tables["sensitivity"] = table_of(table.layers, table.value + 0.5, quantity=SENSITIVITY)
    html = report_text([Probed("probe", [first, last])])
    # View 0 at conv1 is .01 and goes to .51; the error of a difference of two results of other images is the root of
    # two times .01.
    row = html[html.index('<th scope="row">conv1</th><td>hflip</td>') :].split("</tr>")[0]
    assert "<td>0.010 ± 0.010</td><td>0.510 ± 0.010</td><td>+0.500 ± 0.014</td><td>decided</td>" in row


def test_json_has_no_nan_and_a_missing_number_is_null():
    result = made_result()
    table = result.table("sensitivity")
    value = table.value.clone()
    value[0, 1] = math.nan
    value[1, 2] = math.inf
    result.tables["sensitivity"] = table_of(table.layers, value, quantity=SENSITIVITY)
    page = page_of(Probed("probe", [result]))
    (cells,), views = page.data[0]["cells"], page.data[0]["views"]
    rows = objects_of(cells, views)["levels"]
    assert len(rows) == 6 * 5
    assert sum(row["y"] is None for row in rows) == 2


def test_several_probes_stand_in_one_page_those_of_drift_last():
    drift = drift_history()
    page = page_of(Probed("drift", drift), Probed("probe", history()), Probed("probe", history(epochs=(1,)), "test"))
    headings = [attributes["id"] for tag, attributes in page.elements if tag == "article"]
    assert headings == ["probe-1", "probe-2", "probe-3"]
    assert page.text.index("probe, test") < page.text.index("drift")
    assert [sorted(data["charts"]) for data in page.data] == [
        ["change", "curves", "now", "severity"],
        ["now", "severity"],
        ["cka_first"],
    ]


def drift_history():
    from kornia_lightning_probe.result import ProbeResult
    from kornia_lightning_probe.results.tables import CLEAN

    values = ((-1, math.nan), (0, 0.75), (1, 0.5))
    tables = [(epoch, table_of(("conv",), torch.tensor([[value]]))) for epoch, value in values]
    return [
        ProbeResult(layers=("conv",), views=(CLEAN,), tables={"cka_first": table}, epoch=epoch)
        for epoch, table in tables
    ]


def test_drift_is_a_line_that_a_missing_value_breaks():
    (data,) = page_of(Probed("drift", drift_history())).data
    assert data["charts"]["cka_first"]["datasets"]["drift"] == [
        {"x": -1, "j": 0, "y": None},
        {"x": 0, "j": 0, "y": 0.75},
        {"x": 1, "j": 0, "y": 0.5},
    ]


def test_pictures_of_the_worst_images_have_their_place():
    picture = Thumbnails("data:image/png;base64,AA==", "data:image/png;base64,BB==", 'score <1> of "3"')
    page = page_of(Probed("probe", history(), worst=[picture]))
    assert [attributes["src"] for tag, attributes in page.elements if tag == "img"] == [
        picture.clean,
        picture.augmented,
    ]
    assert picture.caption in page.text


def test_the_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "report.html"
    write_report(path, [Probed("probe", history())])
    first = path.read_text(encoding="utf-8")
    assert first.rstrip().endswith("</html>")

    def full(self, *args, **options):
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        write_report(path, [Probed("other", history())])
    assert path.read_text(encoding="utf-8") == first
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]


def test_a_small_report_is_about_as_large_as_what_draws_it():
    # Vega, Vega-Lite and their embedding are .9 MB.
    text = report_text([Probed("probe", history())])
    assert 0.8e6 < len(text.encode()) < 1.05e6


def test_without_its_packages_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(report, "find_spec", lambda name: None if name == "vl_convert" else object())
    with pytest.raises(ImportError, match=r"vl-convert-python is not installed: pip install vl-convert-python"):
        report_text([Probed("probe", history())])


def test_nothing_to_show_is_an_error():
    with pytest.raises(ValueError, match="needs the results of at least one probe, got none"):
        report_text([])
    with pytest.raises(ValueError, match=r"'probe' has no results in the stage 'test'; leave it out"):
        Probed("probe", [], "test")


def test_what_draws_is_imported_on_first_use_only():
    code = (
        "import sys, kornia_lightning_probe.callbacks;"
        "print([name for name in ('altair', 'jinja2', 'vl_convert') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)  # noqa: S603
    # torch brings jinja2 for itself.
    assert "altair" not in done.stdout
    assert "vl_convert" not in done.stdout
