"""The site: every page in its nav, every public name in its API, built strictly, and nothing loaded from elsewhere."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from support.notebook import TUTORIAL, executed

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
API = sorted((DOCS / "api").glob("*.md"))
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
PUBLIC = ["", ".callbacks", ".functional", ".influence", ".metrics", ".plotting", ".presets", ".reporting.html"]
PUBLIC += [".result", ".similarity"]
PACKAGE = "kornia_lightning_probe"
MOST_BYTES = 400_000
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Whatever would leave the machine is refused by nobody listening there.
ALONE = ("--headless", "--disable-gpu", "--no-sandbox", "--disable-dev-shm-usage", "--proxy-server=127.0.0.1:9")


def found_at(path):
    """What a dotted path leads to."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def pages_of(nav):
    """The pages that a nav names, at any depth."""
    if isinstance(nav, str):
        return [nav]
    entries = nav.values() if isinstance(nav, dict) else nav
    return [page for entry in entries for page in pages_of(entry)]


def test_every_page_of_the_docs_is_in_the_nav():
    # Case studies are put there by docs/building/pages.py.
    cases = set((DOCS / "case_studies").glob("*.md")) - {DOCS / "case_studies/index.md"}
    written = {path.relative_to(DOCS).as_posix() for path in set(DOCS.rglob("*.md")) - cases}
    assert sorted(written - set(pages_of(SITE["nav"]))) == []


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_in_the_api(module):
    pages = "\n".join(page.read_text(encoding="utf-8") for page in API)
    shown = {id(found_at(path)) for path in re.findall(r"^::: (\S+)", pages, re.MULTILINE)}
    public = importlib.import_module(PACKAGE + module)
    names = [name for name in public.__all__ if name != "__version__"]
    assert len(names) > 2
    assert [name for name in names if id(getattr(public, name)) not in shown] == []


def test_every_block_of_code_is_of_a_kind_that_is_run_or_is_no_code_to_run():
    # Python and console blocks are run by test_documents.py; a diagram or what was printed is text.
    for page in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        opened = re.findall(r"^```(\w*)\n.*?^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        assert set(opened) <= {"python", "console", "yaml", "sh", "text"}, page.name


def test_the_script_of_the_first_training_is_that_of_its_page():
    page = (DOCS / "first_training.md").read_text(encoding="utf-8")
    script = (ROOT / "examples/first_training.py").read_text(encoding="utf-8")
    assert f"```python\n{script}```" in page


def test_every_picture_of_a_page_is_made_by_an_example_that_its_caption_names():
    for page in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        text = page.read_text(encoding="utf-8")
        if page.parent.name == "case_studies":
            # Each is of one script, of its own name.
            assert page.stem == "index" or f"`examples/{page.stem}.py`" in text
            continue
        shown = re.findall(r"^!\[[^\]]*\]\(([^)]+)\)\n\n\*(.*?)\*\n\n", text, re.MULTILINE | re.DOTALL)
        assert len(shown) == len(re.findall(r"^!\[", text, re.MULTILINE)), page.name
        for picture, caption in shown:
            scripts = re.findall(r"Made by\s`python ((?:examples|benchmarks)/\w+\.py)[^`]*`", caption)
            assert [(ROOT / script).is_file() for script in scripts] == [True], picture
            assert (page.parent / picture).stat().st_size < MOST_BYTES / 2


def test_no_private_name_is_in_the_api():
    for page in API:
        assert re.findall(r"^::: .*\._", page.read_text(encoding="utf-8"), re.MULTILINE) == []


class Outside(HTMLParser):
    """What a page loads from elsewhere: what is followed by hand only, is none of it.

    Attributes:
        found: the addresses.
    """

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        """Keep what the tag loads by itself."""
        told = dict(attrs)
        loaded = told.get("src")
        if tag == "link" and told.get("rel") in ("stylesheet", "icon", "preload", "modulepreload", "manifest"):
            loaded = told.get("href")
        if loaded and re.match(r"(https?:)?//", loaded):
            self.found.append(loaded)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocstrings", reason="the site is built by `tox run -e docs`")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - our own site
    assert done.returncode == 0, done.stderr
    return folder


def test_no_page_loads_anything_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        looked = Outside()
        looked.feed(page.read_text(encoding="utf-8"))
        assert looked.found == [], page.name
    for sheet in site.rglob("*.css"):
        assert re.findall(r"url\([\"']?https?:", sheet.read_text(encoding="utf-8")) == [], sheet.name


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_a_browser_without_a_network_finds_words_in_the_site_on_disk(site, tmp_path):
    command = [BROWSER, *ALONE, f"--user-data-dir={tmp_path}", "--enable-logging=stderr", "--dump-dom"]
    page = f"{(site / 'index.html').as_uri()}?q=noise_ratio"
    waiting = "--virtual-time-budget=20000"
    done = subprocess.run([*command, waiting, page], capture_output=True, text=True, timeout=120, check=True)  # noqa: S603
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    found = re.findall(r'<a href="[^"]*/(\w+)\.html\?[^"]*" class="md-search-result__link"', done.stdout)
    assert "reading_the_numbers" in found


def test_formulae_tables_and_roles_of_docstrings_are_no_longer_in_sphinx_dialect(site):
    for page in (site / "api").glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert re.findall(r":(?:func|class|meth|mod|math|attr):|\.\. math|={8}", text) == [], page.name
    assert "<math" in (site / "api/functional.html").read_text(encoding="utf-8")


def test_the_readme_is_the_front_page_and_examples_are_pages(site):
    assert "Without a Trainer" in (site / "index.html").read_text(encoding="utf-8")
    listed = (site / "examples/index.html").read_text(encoding="utf-8")
    for script in (ROOT / "examples").glob("*.py"):
        assert f'href="{script.name}.html"' in listed


@pytest.fixture
def building(monkeypatch):
    pytest.importorskip("mkdocstrings", reason="the site is built by `tox run -e docs`")
    pytest.importorskip("latex2mathml")
    monkeypatch.syspath_prepend(DOCS / "building")
    return importlib.import_module


@pytest.mark.parametrize(
    ("source", "link", "there"),
    [
        ("README.md", "docs/limits.md#the-numbers", "limits.md#the-numbers"),
        ("README.md", "examples/cli.yaml", "examples/cli.yaml.md"),
        ("README.md", "LICENSE", "license.md"),
        ("docs/limits.md", "../README.md", "index.md"),
        ("docs/limits.md", "tutorial.ipynb", "tutorial.md"),
        ("docs/case_studies/index.md", "../../examples/digits.py", "../examples/digits.py.md"),
        ("docs/case_studies/index.md", "../pictures/bank.png", "../pictures/bank.png"),
        ("docs/limits.md", "https://example.org/a.md", "https://example.org/a.md"),
        ("docs/limits.md", "#models-and-training", "#models-and-training"),
    ],
)
def test_a_link_that_github_follows_leads_to_the_same_page_of_the_site(building, source, link, there):
    moved = building("pages").moved
    assert moved(f"see [it]({link}).", source) == f"see [it]({there})."
    code = f"```text\n[it]({link})\n```"
    assert moved(code, source) == code


def test_a_table_between_rules_is_one_of_markdown(building):
    rule = "    ===  ======="
    lines = [rule, "    a    one", "         more", "    b    another", rule]
    written = building("docstrings").markdown("\n".join(lines), of=None).split("\n")
    assert [line.strip() for line in written] == ["", "| | |", "|---|---|", "| a | one more |", "| b | another |", ""]


def test_a_formula_is_drawn_without_a_script(building):
    (written,) = building("docstrings").markdown("the root :math:`\\sqrt{x}`", of=None).splitlines()
    assert written.startswith('the root <span><math xmlns="http://www.w3.org/1998/Math/MathML" display="inline">')
    assert "<msqrt>" in written


def test_the_tutorial_was_executed_from_top_to_bottom_and_is_small():
    assert TUTORIAL.stat().st_size < MOST_BYTES
    cells = json.loads(TUTORIAL.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    kinds = {kind for cell in code for output in cell["outputs"] for kind in output.get("data", {})}
    assert {"image/png", "text/html"} <= kinds
    assert [output for cell in code for output in cell["outputs"] if output["output_type"] == "error"] == []
    # A path of the machine that executed it, as warnings have.
    assert "site-packages" not in TUTORIAL.read_text(encoding="utf-8")


def test_the_tutorial_runs_anew_and_shows_what_it_shows(tmp_path):
    pytest.importorskip("nbclient", reason="the tutorial is executed by `tox run -e docs`")
    pytest.importorskip("ipykernel")
    before = json.loads(TUTORIAL.read_text(encoding="utf-8"))["cells"]
    after = executed(TUTORIAL, tmp_path).cells
    assert [kinds_of(cell) for cell in after] == [kinds_of(cell) for cell in before]
    assert (tmp_path / "tutorial_output/report.html").is_file()


def kinds_of(cell):
    """The kinds of what a cell shows, each once: what it prints comes in pieces of any size."""
    outputs = cell.get("outputs", [])
    return {kind for output in outputs for kind in [output["output_type"], *output.get("data", {})]}
