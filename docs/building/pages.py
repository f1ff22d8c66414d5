"""Makes pages of what is not in docs/, and turns links that GitHub follows into links of the site."""

from __future__ import annotations

import ast
import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

import notebook_page
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
TUTORIAL = "docs/tutorial.ipynb"
#: A file of the repository to the page that is made of it.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "LICENSE": "license.md",
    TUTORIAL: "tutorial.md",
}
#: The front page has no other of its kind beside it.
ALONE = "---\nhide:\n  - navigation\n---\n\n"
#: The section of the nav that holds whatever is in docs/case_studies.
CASES = "Case studies"
_LINK = re.compile(r"(\]\()([^)\s#]+)")
_FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put each case study behind the list of them."""
    for section in config.nav or []:
        if CASES in section:
            section[CASES] += [f"case_studies/{path.name}" for path in case_studies()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add README, CHANGELOG, CONTRIBUTING, LICENSE, the tutorial and the examples as pages."""
    for source in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md"):
        text = moved((ROOT / source).read_text(encoding="utf-8"), source)
        front = ALONE if source == "README.md" else ""
        files.append(_page(config, PAGES[source], front + text))
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    files.append(_page(config, PAGES["LICENSE"], f"# Licence\n\n```text\n{licence}\n```\n"))
    written = notebook_page.as_markdown(ROOT / TUTORIAL)
    files.append(_page(config, PAGES[TUTORIAL], moved(written.text, TUTORIAL)))
    for name, picture in written.pictures.items():
        files.append(File.generated(config, name, content=picture))
    for page, text in example_pages().items():
        files.append(_page(config, page, text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - mkdocs' call
    """Turn the links of a page of docs/; pages made of other files had theirs turned when they were made."""
    if page.file.generated_by is not None:
        return markdown
    if page.file.src_uri == "case_studies/index.md":
        titles = [f"- [{title_of(path)}]({path.name})" for path in case_studies()]
        markdown = "\n".join([markdown, *titles])
    return moved(markdown, f"docs/{page.file.src_uri}")


def case_studies() -> list[Path]:
    """The pages of docs/case_studies but for the list of them."""
    return [path for path in sorted((ROOT / "docs/case_studies").glob("*.md")) if path.name != "index.md"]


def title_of(path: Path) -> str:
    """The first heading of a page."""
    return path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")


def moved(text: str, source: str) -> str:
    """A text with its links as they are in the site.

    Args:
        text: Markdown whose relative links start from the folder of its source.
        source: the file that it is of, from the root of the repository.
    """
    folder = PurePosixPath(source).parent
    here = PurePosixPath(page_of(source)).parent

    def turned(link: re.Match[str]) -> str:
        target = link[2]
        if ":" in target:
            return link[0]
        page = page_of(normpath(folder / target))
        return link[1] + relpath(page, here)

    parts = _FENCED.split(text)
    return "".join(part if part.startswith("```") else _LINK.sub(turned, part) for part in parts)


def page_of(path: str) -> str:
    """Where a file of the repository is in the site."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith("examples/") and not path.endswith(".md"):
        return f"{path}.md"
    return path.removeprefix("docs/")


def example_pages() -> dict[str, str]:
    """A page for each script under examples/, and one that lists them with the first line that each says of itself."""
    pages = {}
    lines = ["# Examples", "", "Scripts of the folder `examples/`. None downloads anything.", ""]
    for path in sorted((ROOT / "examples").iterdir()):
        if path.suffix not in (".py", ".yaml"):
            continue
        text = path.read_text(encoding="utf-8")
        language = path.suffix.removeprefix(".")
        page = page_of(f"examples/{path.name}")
        pages[page] = f"# {path.name}\n\n```{language}\n{text}```\n"
        lines.append(f"- [{path.name}]({PurePosixPath(page).name}): {_said_of(text, path.suffix)}")
    return pages | {"examples/index.md": "\n".join(lines) + "\n"}


def _said_of(text: str, suffix: str) -> str:
    if suffix != ".py":
        return text.splitlines()[0].removeprefix("# ")
    said = ast.get_docstring(ast.parse(text)) or ""
    return said.split("\n\n")[0].replace("\n", " ")


def _page(config: MkDocsConfig, name: str, text: str) -> File:
    return File.generated(config, name, content=text)
