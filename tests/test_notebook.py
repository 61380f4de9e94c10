"""The worked assignment is stored with the outputs of its code, and runs from end to end."""

import re
import tomllib
from pathlib import Path

import nbformat
import pytest
from benchmarks import assignment
from benchmarks.notebook import NOTEBOOK, digest, execute

HOME = Path(__file__).parents[1]


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def printed(notebook):
    """What the cells print, in order."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)


def pictures(notebook):
    return [o for c in notebook.cells for o in c.get("outputs", []) if "image/png" in str(o)]


def test_the_stored_outputs_are_those_of_its_code(notebook):
    """`python -m benchmarks.notebook` stores them anew after a change of the code."""
    assert notebook.metadata.echospan.code == digest(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [o for cell in code for o in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert len(pictures(notebook)) == 1


def test_what_the_text_claims_stands_in_the_stored_outputs(notebook):
    text = printed(notebook)
    assert text.count("tests passed") == 2
    grades = {
        name: float(grade)
        for name, grade in re.findall(r"^(\w+, [\w-]+) +grade ([\d.]+) in", text, re.M)
    }
    assert set(grades) == {
        *("fixed, printed", "fixed, read-outs", "variable, printed", "variable, read-outs")
    }
    assert min(grades.values()) > 0.99


def test_it_holds_the_printed_graders_and_trainings_word_for_word(notebook):
    sources = [cell.source + "\n" for cell in notebook.cells]
    trainings = [source for source in sources if "EPOCHS = " in source]
    for training, part in zip(trainings, assignment.PARTS.values(), strict=True):
        assert part.endswith("\n" + training)
    for function in ("test_model", "test_variable_delay_model"):
        assert any(f"def {function}(" in source for source in sources)


def test_it_runs_from_its_first_cell_to_its_last(notebook, tmp_path):
    """At a reduced size; the whole takes the minutes that the printed trainings take."""
    for cell in notebook.cells:
        if "EPOCHS = " in cell.source:
            part = "variable" if "VariableDelay" in cell.source else "fixed"
            cell.source = assignment.reduced(cell.source, part)
        cell.source = re.sub(r"polish=\d+", "polish=50", cell.source)
    done = execute(notebook, tmp_path)
    text = printed(done)
    assert text.count("tests passed") == 2
    assert len(re.findall(r"^(fixed|variable), [\w-]+ +grade [\d.]+ in", text, re.M)) == 4
    assert len(pictures(done)) == 1


def test_the_command_that_opens_it_is_named_and_comes_with_make_install():
    assert ".venv/bin/jupyter lab notebooks/homework.ipynb" in (HOME / "README.md").read_text()
    extras = tomllib.loads((HOME / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert any(name.startswith("jupyterlab") for name in extras["notebook"])
    (ours,) = [name for name in extras["dev"] if name.startswith("echospan[")]
    assert "notebook" in re.split(r"[\[\],]", ours)
    assert '".[dev]"' in (HOME / "Makefile").read_text()
