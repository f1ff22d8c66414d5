"""The golden list, and the page that shows it: `python -m support.zoo.table` measures all of it anew and prints both.

Run from the folder `tests`, and look at every row that has changed before it is committed.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from kornia_lightning_probe import probe_model
from support.zoo import ZOO

_TESTS = Path(__file__).parents[2]
GOLDEN_FILE = _TESTS / "zoo" / "architectures.json"
PAGE = _TESTS.parent / "docs" / "works_with.md"
GOLDEN: dict[str, dict[str, str]] = json.loads(GOLDEN_FILE.read_text(encoding="utf-8"))
"""By name: the embedding, and the layers with blanks between them."""
_BEGIN = "| Model | Layers | Embedding | Seconds |"


def rows_of_page(text: str) -> dict[str, list[str]]:
    """What the page says of each model: number of layers, embedding, seconds."""
    rows: dict[str, list[str]] = {}
    for line in text.partition(_BEGIN)[2].splitlines()[2:]:
        if not line.startswith("|"):
            break
        name, *facts = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        rows[name] = facts
    return rows


def measured(names: Iterable[str]) -> tuple[dict[str, dict[str, str]], dict[str, float]]:
    """The layers and the embedding of models, and how many seconds a probe of four images took."""
    golden: dict[str, dict[str, str]] = {}
    seconds: dict[str, float] = {}
    for name in names:
        entry = ZOO[name]
        torch.manual_seed(0)
        net = entry.make().eval()
        images, bank, keys = entry.inputs(4), entry.bank(), entry.keys or None
        start = time.perf_counter()
        result = probe_model(net, images, bank, metrics=["sensitivity"], forward=entry.forward, image_keys=keys)
        seconds[name] = time.perf_counter() - start
        golden[name] = {"embedding": result.metadata["embedding"], "layers": " ".join(result.layers)}
    return golden, seconds


def page_of(golden: Mapping[str, Mapping[str, str]], seconds: Mapping[str, float], *, head: str) -> str:
    """The page: what stands above the table, and the table."""
    lines = [_BEGIN, "|---|---|---|---|"]
    for name, found in golden.items():
        count = len(found["layers"].split())
        lines.append(f"| {name} | {count} | `{found['embedding']}` | {seconds[name]:.1f} |")
    return head + "\n".join(lines) + "\n"


def main() -> None:
    """Measure all models, and write the golden list and the page."""
    warnings.simplefilter("ignore")
    golden, seconds = measured(ZOO)
    GOLDEN_FILE.write_text(json.dumps(golden, indent=2) + "\n", encoding="utf-8")
    head = PAGE.read_text(encoding="utf-8").partition(_BEGIN)[0]
    PAGE.write_text(page_of(golden, seconds, head=head), encoding="utf-8")


if __name__ == "__main__":
    main()
