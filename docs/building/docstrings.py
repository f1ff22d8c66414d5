"""Docstrings as Markdown: roles become links, formulae become MathML, which needs no script, and tables are tables."""

from __future__ import annotations

import re
from typing import Any

from griffe import Class, Docstring, Extension, Module, Object
from latex2mathml.converter import convert

PACKAGE = "kornia_lightning_probe"
_ROLE = re.compile(r":(?:func|class|meth|mod|attr):`(~?)([\w.]+)`")
_FORMULA = re.compile(r":math:`([^`]+)`")
_DISPLAY = re.compile(r"^( *)\.\. math:: (.+)$", re.MULTILINE)
_EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)
_RULE = re.compile(r"^ *=+(?:  +=+)+$")


class Docstrings(Extension):
    """Rewrites each docstring once the whole package is loaded, so that links know what they may lead to."""

    def on_package(self, *, pkg: Module, **kwargs: Any) -> None:  # noqa: ARG002 - griffe hands over more
        """Rewrite the docstrings of everything in the package."""
        for member in _within(pkg):
            if member.docstring is not None:
                member.docstring = Docstring(
                    markdown(member.docstring.value, member),
                    lineno=member.docstring.lineno,
                    endlineno=member.docstring.endlineno,
                    parent=member,
                    parser=member.docstring.parser,
                    parser_options=member.docstring.parser_options,
                )


def markdown(text: str, of: Object) -> str:
    """A docstring's text with roles, formulae, tables and literal blocks as Markdown has them."""
    text = _ROLE.sub(lambda role: _linked(role, of), text)
    text = _FORMULA.sub(lambda formula: _mathml(formula[1], "inline"), text)
    text = _DISPLAY.sub(lambda formula: formula[1] + _mathml(formula[2], "block"), text)
    # The plural is the name under which griffe knows doctests.
    text = _EXAMPLE.sub(r"\1Examples:", text)
    return _literal_blocks(_tables(text))


def _linked(role: re.Match[str], of: Object) -> str:
    shortened, name = bool(role[1]), role[2]
    shown = name.rsplit(".", 1)[-1] if shortened else name.removeprefix(f"{PACKAGE}.")
    target = _found(name, of)
    if target is None:
        return f"`{shown}`"
    # What is not public has no place on a page: its name then stands there without a link.
    return f'<autoref optional identifier="{target}">`{shown}`</autoref>'


def _found(name: str, of: Object) -> str | None:
    """Where a name leads that a docstring uses: from where it stands outwards, or from the package."""
    if name.startswith(f"{PACKAGE}."):
        return name
    here: Object | None = of
    while here is not None:
        first, *rest = name.split(".")
        if first in here.all_members:
            return ".".join([here.all_members[first].canonical_path, *rest])
        here = here.parent
    return None


def _mathml(formula: str, display: str) -> str:
    # A line that begins with <math> would be taken for a block of its own.
    return f"<span>{convert(formula, display=display)}</span>"


def _tables(text: str) -> str:
    """A text whose tables between rules of "=" are Markdown's."""
    written: list[str] = []
    rows: list[list[str]] | None = None
    columns: list[int] = []
    indent = ""
    for line in text.splitlines():
        if _RULE.match(line):
            if rows is None:
                indent = line[: len(line) - len(line.lstrip())]
                columns = [found.start() for found in re.finditer("=+", line)]
                rows = []
            else:
                written += [indent + row for row in _markdown_table(rows)]
                rows = None
        elif rows is None:
            written.append(line)
        else:
            _take(rows, line, columns)
    return "\n".join(written)


def _take(rows: list[list[str]], line: str, columns: list[int]) -> None:
    ends = [*columns[1:], len(line)]
    cells = [line[start:end].strip() for start, end in zip(columns, ends, strict=True)]
    if cells[0]:
        rows.append(cells)
        return
    # What has no first cell goes on with the line above.
    rows[-1] = [f"{above} {cell}".strip() for above, cell in zip(rows[-1], cells, strict=True)]


def _markdown_table(rows: list[list[str]]) -> list[str]:
    empty = "| " * len(rows[0]) + "|"
    rule = "|---" * len(rows[0]) + "|"
    return ["", empty, rule, *("| " + " | ".join(row) + " |" for row in rows), ""]


def _literal_blocks(text: str) -> str:
    """A text whose paragraphs end in one colon where two led to a block of code."""
    return re.sub(r"::(\n\n +)", r":\1", text)


def _within(of: Object) -> list[Object]:
    found = [of]
    for member in of.members.values():
        if isinstance(member, (Module, Class)):
            found += _within(member)
        elif isinstance(member, Object) and not member.is_alias:
            found.append(member)
    return found
