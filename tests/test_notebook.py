"""The worked assignment runs from its first cell to its last."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "homework.ipynb"


def test_the_homework_notebook_runs_and_its_graders_are_content(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    done = NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    said = "".join(
        output.get("text", "") for cell in done.cells for output in cell.get("outputs", [])
    )
    assert said.count("the grader says") == 4
    pictures = [o for c in done.cells for o in c.get("outputs", []) if "image/png" in str(o)]
    assert len(pictures) == 1


def test_the_notebook_is_kept_without_its_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)
