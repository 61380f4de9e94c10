"""notebooks/homework.ipynb, executed whole and stored with its outputs.

    python -m benchmarks.notebook             # about five minutes on two idle cores

It holds the assignment's own trainings, which must end within ten minutes each and assert it. The
stored notebook names the digest of its code and what it ran with; tests/test_notebook.py compares
the digest.
"""

import hashlib
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from echospan.evaluation import versions

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "homework.ipynb"


def digest(notebook: Any) -> str:
    """Return a digest of the code of all cells, in order."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\n\n".join(code).encode()).hexdigest()


def execute(notebook: Any, folder: Path) -> Any:
    """Run every cell in a folder; CellExecutionError where one fails."""
    return NotebookClient(
        notebook, timeout=3600, record_timing=False, resources={"metadata": {"path": str(folder)}}
    ).execute()


def main() -> None:
    notebook = execute(nbformat.read(NOTEBOOK, as_version=4), NOTEBOOK.parent)
    notebook.metadata["echospan"] = {"code": digest(notebook), "versions": versions()}
    nbformat.write(notebook, NOTEBOOK)
    print(f"{NOTEBOOK.name}: {sum(bool(c.get('outputs')) for c in notebook.cells)} outputs stored")


if __name__ == "__main__":
    main()
