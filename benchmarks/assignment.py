"""The assignment's two scripts as it prints them, and the same scripts with our classes.

`assignment.txt` beside this file quotes the cells; nothing of them is written anew here.
"""

import ast
import re
from pathlib import Path
from typing import Any

_TEXT = (Path(__file__).parent / "assignment.txt").read_text()
_CELLS = [cell.strip("\n") + "\n" for cell in re.split(r"^In \[\d+\]:\n", _TEXT, flags=re.M)[1:]]

PARTS = {
    "fixed": "".join(_CELLS[:4]),
    # In the notebook the second part runs after the first and uses its first cell and its optim.
    "variable": "".join([_CELLS[0], "import torch.optim as optim\n", *_CELLS[4:]]),
}
"""The source of each part, to be run on its own."""

IMPORT = "from echospan.homework import *\n"


def with_our_classes(source: str) -> str:
    """Return a script in which our import stands in the place of each class definition."""
    lines = source.splitlines(keepends=True)
    for node in reversed(ast.parse(source).body):
        if isinstance(node, ast.ClassDef):
            lines[node.lineno - 1 : node.end_lineno] = [IMPORT]
    return "".join(lines)


def reduced(source: str, part: str) -> str:
    """Return a part's script at a size of seconds, asserting what such a size can reach."""
    size, needed, reachable = {
        "fixed": ("size=100000", "accuracy > 0.99", "accuracy > 0.4"),
        "variable": (
            "size=200000",
            "seq_length=SEQ_LENGTH) > 0.99",
            "seq_length=SEQ_LENGTH) > 0.3",
        ),
    }[part]
    for pattern, new in {
        re.escape(size): "size=5000",
        re.escape(needed): reachable,
        r"HIDDEN_SIZE = \d+": "HIDDEN_SIZE = 32",
        r"BATCH_SIZE = \d+": "BATCH_SIZE = 32",
        r"EPOCHS = \d+": "EPOCHS = 2",
        r"LEARNING_RATE = [\d.]+": "LEARNING_RATE = 0.01",
    }.items():
        source, count = re.subn(pattern, new, source)
        if count != 1:
            raise ValueError(f"the script of the part {part} has {pattern} {count} times")
    return source


def run(source: str, names: dict[str, Any] | None = None) -> None:
    """Run a script; AssertionError where one of its own assertions fails.

    Args:
        source: The script.
        names: Where its names are put, so that they can be read afterwards, whatever it raised.
    """
    exec(
        compile(source, "assignment", "exec"), {"__name__": "__main__"} if names is None else names
    )


def printed() -> dict[str, Any]:
    """Return the printed classes and functions of both parts, and what they use; nothing trains."""
    kept = (ast.ClassDef, ast.FunctionDef, ast.Import, ast.Assign)
    names: dict[str, Any] = {}
    for cell in (0, 1, 2, 4, 5, 6):
        body = [node for node in ast.parse(_CELLS[cell]).body if isinstance(node, kept)]
        exec(compile(ast.Module(body, []), "assignment", "exec"), names)
    return names
