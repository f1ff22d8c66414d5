"""A notebook, as it was executed, as a page in Markdown: its text, its code and what the code has shown."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, NamedTuple

PICTURE = "image/png"


class Written(NamedTuple):
    """A page and the pictures that it shows.

    Args:
        text: the page, in Markdown.
        pictures: a file's name to its bytes.
    """

    text: str
    pictures: dict[str, bytes]


def as_markdown(path: Path) -> Written:
    """The page of a notebook; nothing is executed."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for number, cell in enumerate(cells):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for shown, output in enumerate(cell["outputs"]):
            name = f"{path.stem}_{number}_{shown}.png"
            data = output.get("data", {})
            if PICTURE in data:
                pictures[name] = base64.b64decode(data[PICTURE])
                # A click shows it as large as it is.
                parts.append(f"[![{_caption(data)}]({name})]({name})")
            else:
                parts.append(_shown(output, data))
    return Written("\n\n".join(parts) + "\n", pictures)


def _shown(output: dict[str, Any], data: dict[str, Any]) -> str:
    if "text/html" in data:
        return f'<div class="shown" markdown="0">{"".join(data["text/html"])}</div>'
    text = "".join(data.get("text/plain", output.get("text", "")))
    return f"```text\n{text.rstrip()}\n```"


def _caption(data: dict[str, Any]) -> str:
    # What a figure says of itself in words is of no use to those who can't see it.
    said = "".join(data.get("text/plain", ""))
    return "what the code above draws" if said.startswith("<Figure") else said
