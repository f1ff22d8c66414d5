"""`report`: a page of every probe under some folders, several runs side by side."""

import pytest
from support.made_results import made_result
from support.reports import Page

from kornia_lightning_probe.cli.main import main

pytest.importorskip("jsonargparse")
pytest.importorskip("altair")


def run_of(folder, *epochs):
    for epoch in epochs:
        result = made_result(epoch=epoch)
        result.step = max(epoch, 0)
        result.to_json(folder / "probe" / f"fit-epoch={epoch}-step={max(epoch, 0)}.json")


def written(folder, *words):
    page = folder / "deep" / "page.html"
    assert main(["report", *map(str, words), "-o", str(page)]) == 0
    return Page(page.read_text(encoding="utf-8"))


def headings(page):
    text = " ".join(page.text.split())
    return [name for name in ("version_9/probe", "version_10/probe") if name in text]


def test_one_run_is_a_page_of_its_probes(tmp_path, capsys):
    run_of(tmp_path / "run", -1, 0, 1)
    page = written(tmp_path, tmp_path / "run")
    assert page.data[0]["choices"]["when"] == ["before training", "epoch 0", "epoch 1"]
    assert "side by side" not in page.text
    said = capsys.readouterr().out
    assert "page.html (" in said
    assert "1 probe with 3 results" in said


def test_several_runs_stand_side_by_side_whether_their_folder_is_given_or_each(tmp_path):
    for version in (9, 10):
        run_of(tmp_path / "logs" / f"version_{version}", -1, version)
    whole = written(tmp_path, tmp_path / "logs")
    each = written(tmp_path, *(tmp_path / "logs" / f"version_{version}" for version in (9, 10)))
    for page in (whole, each):
        assert "2 runs side by side" in page.text
        assert headings(page) == ["version_9/probe", "version_10/probe"]
        # The charts of both, and then those of each.
        assert sorted(page.data[0]["charts"]) == ["run_curves", "runs"]
        assert len(page.data) == 3


def test_a_torn_file_is_skipped_by_name(tmp_path, capsys):
    run_of(tmp_path, -1, 0)
    (tmp_path / "probe" / "fit-epoch=1-step=1.json").write_text('{"format": 2, "tab')
    (tmp_path / "config.json").write_text('{"lr": 1}')
    assert len(written(tmp_path, tmp_path).data[0]["choices"]["when"]) == 2
    said = capsys.readouterr().err
    assert "skipped" in said
    assert "fit-epoch=1-step=1.json is no JSON" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["none"], "none: there is no such file or folder"),
        (["."], "there are no results of a probe under '.'"),
        ([".", "-o", "."], "--output . is a folder; name a file in it, such as report.html"),
        ([], "the following arguments are required: dirs"),
    ],
)
def test_what_can_not_be_reported_is_said_in_a_sentence(tmp_path, monkeypatch, capsys, words, text):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *words]) == 2
    said = capsys.readouterr().err
    assert text in said
    assert len(said.splitlines()) == 1


def test_a_page_that_can_not_be_written_is_said_in_a_sentence(tmp_path, capsys):
    run_of(tmp_path, 0)
    (tmp_path / "file").write_text("")
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "file" / "page.html")]) == 2
    assert "page.html can't be written: " in capsys.readouterr().err


def test_without_the_packages_of_the_page_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    from kornia_lightning_probe.reporting.html import report

    monkeypatch.setattr(report, "find_spec", lambda _: None)
    assert main(["report", str(tmp_path)]) == 2
    assert "pip install altair vl-convert-python jinja2" in capsys.readouterr().err
