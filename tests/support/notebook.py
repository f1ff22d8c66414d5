"""The tutorial: `python -m support.notebook` in `tests` executes docs/tutorial.ipynb and keeps what it shows."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs/tutorial.ipynb"
SECONDS = 240


def executed(path: Path, folder: Path) -> Any:
    """A notebook with what its cells show, executed by a kernel of its own.

    Args:
        path: the notebook.
        folder: where its cells write files.

    Raises:
        nbclient.exceptions.CellExecutionError: where a cell raises.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    # The package of this tree, whatever is installed; numbers of the kernel's own and not of a process around it.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    client = NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    return notebook


def main() -> None:
    """Write the tutorial anew, without the times at which its cells ran."""
    import nbformat

    with tempfile.TemporaryDirectory() as folder:
        notebook = executed(TUTORIAL, Path(folder))
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    nbformat.write(notebook, TUTORIAL)


if __name__ == "__main__":
    main()
