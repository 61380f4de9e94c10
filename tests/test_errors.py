"""An error names arguments in Python and flags on the command line."""

import ast
import pickle
import re
from pathlib import Path

import pytest

import echospan
from echospan import cli
from echospan.errors import SettingError, by_caller, option


@pytest.mark.parametrize(
    ("text", "python", "command_line"),
    [
        (option("max_delay"), "max_delay", "--max-delay"),
        (option("max_delay", 9), "max_delay=9", "--max-delay 9"),
        (option("engine", "dask"), "engine='dask'", "--engine dask"),
        (option("overwrite", True), "overwrite=True", "--overwrite"),
        (by_caller("shipped('fixed')", "--model fixed"), "shipped('fixed')", "--model fixed"),
        ("--seed is a flag of both", "--seed is a flag of both", "--seed is a flag of both"),
    ],
)
def test_a_part_of_a_message_is_worded_for_its_caller(text, python, command_line):
    error = SettingError(f"{text} is wrong", f"change {text}")
    assert str(error) == f"{python} is wrong; change {python}"
    assert (error.fact, error.remedy) == (f"{python} is wrong", f"change {python}")
    assert error.command_line() == f"{command_line} is wrong; change {command_line}"


def test_an_error_from_another_process_keeps_both_wordings():
    error = SettingError(f"{option('seed')} is wrong", "change it")
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == "seed is wrong; change it"
    assert copy.command_line() == "--seed is wrong; change it"


def test_the_command_line_prints_flags(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "fixed", "--learning-rate", "nan"])
    assert capsys.readouterr().err == (
        "echospan: --learning-rate is nan; use a finite number above 0\n"
    )


def parts(node, outside=()):
    """The strings inside a node, but those inside calls of these functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call) and getattr(child.func, "id", None) in outside:
            continue
        if isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child.value
        yield from parts(child, outside)


def test_a_message_names_flags_by_placeholders_alone_unless_it_names_the_command_too():
    source = Path(echospan.__file__).parent
    for path in source.rglob("*.py"):
        on_the_command_line = "cli" in path.relative_to(source).parts
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Raise) or node.exc is None:
                continue
            for text in parts(node, ("option", "by_caller")):
                where = f"{path}:{node.lineno}: {text}"
                if on_the_command_line:
                    assert not re.search(r"\b[a-z_]+=", text), where
                else:
                    assert not re.search(r"(^|\s)--[a-z]", text) or "echospan " in text, where
